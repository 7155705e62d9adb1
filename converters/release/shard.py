"""A part of a run's list, for clusters that start many processes: ``--shard I/N``.

I/N, jobs → ``Shard.part()`` → every N-th job, in the list's order
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from converters.errors import UsageError

T = TypeVar("T")

_FORM = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts, counted from 1."""

    index: int
    count: int

    @classmethod
    def of(cls, text: str) -> Self:
        """From ``I/N``. Raises UsageError for anything else."""
        found = _FORM.fullmatch(text)
        index, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= index <= count:
            raise UsageError(f"--shard {text}: is no part. Write I/N, from 1/N to N/N, such as 2/8.")
        return cls(index, count)

    def part(self, jobs: Sequence[T], size: Callable[[T], float]) -> list[T]:
        """The jobs of this part; those of all parts are the list, each once.

        They are dealt from the largest down, so that no two parts differ by more than the largest job: the catalogue
        repeats its networks, and dealt as they come all of the largest would go to one part.
        """
        largest_first = sorted(range(len(jobs)), key=lambda at: -size(jobs[at]))
        return [jobs[at] for at in sorted(largest_first[self.index - 1 :: self.count])]
