"""Stored values: every source tensor used once, every target parameter filled once, every value bit-exact.

Dead channels hide from every image, so no forward pass replaces this. All misfits are collected, not only the first.

    target.correspondences, source.shapes → ``check()`` → Stored
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from verify.compare import stored_misfit
from verify.protocols import Source, Target
from verify.report import Tensors

SHOWN = 3
"""Misfits spelt out in a one-line reason."""


@dataclass(frozen=True)
class Stored:
    """The accounts of a target's tensors, and a line for each that does not balance."""

    tensors: Tensors
    misfits: tuple[str, ...]

    @property
    def reason(self) -> str:
        """One line for all misfits; empty when there is none."""
        more = len(self.misfits) - SHOWN
        return "; ".join(self.misfits[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def check(target: Target, source: Source, step: Callable[[str], None]) -> Stored:
    """Compares one stored tensor after another; ``step`` is called with the name of each."""
    differing, exact = [], 0
    for pair in target.correspondences:
        step(pair.target)
        if pair.source not in source.shapes or pair.target not in target.parameters:
            continue
        misfit = stored_misfit(pair.expected(), pair.stored())
        exact += not misfit
        if misfit:
            differing.append(f"{pair.target} {misfit} (source: {pair.source})")
    used = Counter(pair.source for pair in target.correspondences)
    filled = Counter(pair.target for pair in target.correspondences)
    misfits = [
        *differing,
        *_unbalanced("source tensor", source.shapes, used, "used"),
        *_unbalanced("parameter", target.parameters, filled, "filled"),
    ]
    tensors = Tensors(
        source=len(source.shapes),
        used=sum(used[name] == 1 for name in source.shapes),
        target=len(target.parameters),
        filled=sum(filled[name] == 1 for name in target.parameters),
        bit_exact=exact,
    )
    return Stored(tensors, tuple(misfits))


def _unbalanced(kind: str, present: Iterable[str], counts: Counter[str], verb: str) -> list[str]:
    present = set(present)
    unused = [f"{kind} {name} is not {verb}" for name in sorted(present - counts.keys())]
    missing = [f"{kind} {name} is missing" for name in sorted(counts.keys() - present)]
    repeated = [f"{kind} {name} is {verb} {n} times" for name, n in sorted(counts.items()) if n > 1 and name in present]
    return missing + unused + repeated
