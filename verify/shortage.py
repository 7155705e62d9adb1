"""Shortage of memory, as libraries say it: of their errors, few are MemoryErrors."""

WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad allocation", "bad_alloc")
"""Words of the RuntimeErrors that they raise."""


def is_short_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is short."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in WORDS)
