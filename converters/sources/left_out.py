"""The parts of a checkpoint that a conversion leaves out, in one line for people.

GoogleView's dropped and removed → "153 tensors (an optimiser's slot); global_step (a counter of the training)"
"""

from __future__ import annotations

from converters.sources import GoogleView

MAX_NAMED = 12
"""Tensors of one reason that are named; more are counted."""


def left_out_line(source: GoogleView) -> str:
    """The tensors by reason, each reason up to its colon, and what names lose; empty where nothing is left out."""
    by_reason: dict[str, list[str]] = {}
    for name, why in source.dropped.items():
        by_reason.setdefault(why.partition(":")[0], []).append(name)
    if source.removed:
        by_reason["part of names"] = list(source.removed)
    return "; ".join(f"{_tensors(names)} ({why})" for why, names in by_reason.items())


def _tensors(names: list[str]) -> str:
    return f"{len(names)} tensors" if len(names) > MAX_NAMED else ", ".join(map(_printable, names))


def _printable(name: str) -> str:
    """A name of the file where the line goes into a table of the card: nothing there may be markup."""
    return "".join(character if character.isalnum() or character in "_-./: " else "?" for character in name[:80])
