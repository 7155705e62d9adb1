"""Stored values: every source tensor used once, every target parameter filled once, every value bit-exact.

Dead channels hide from every image, so no forward pass replaces this. All misfits are collected, not only the first.

    target.correspondences, source.shapes → ``check()`` → Stored
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from verify.compare import Array, bits, stored_misfit
from verify.faults import Fault, Kind
from verify.oracles.numpy.ahead import ReadAhead
from verify.protocols import Correspondence, Source, Target
from verify.report.parity import TensorCounts


@dataclass(frozen=True)
class ComparedTensor:
    """One parameter that was compared with its source tensor; the digests are those of the bytes in C order."""

    pair: Correspondence
    misfit: str
    """Empty where it is bit-exact."""
    stored_sha256: str
    expected_sha256: str

    @property
    def exact(self) -> bool:
        return not self.misfit


@dataclass(frozen=True)
class Stored:
    """The result of comparing a target's tensors with the source's."""

    tensors: TensorCounts
    compared: tuple[ComparedTensor, ...]
    unmatched: tuple[Fault, ...]
    """Source tensors and target parameters without their one counterpart."""

    @property
    def differing(self) -> list[ComparedTensor]:
        """The tensors that do not hold, bit for bit, what they must."""
        return [each for each in self.compared if not each.exact]

    @property
    def misfits(self) -> tuple[str, ...]:
        """One line for each tensor that is not what it must be."""
        differing = [f"{each.pair.target} {each.misfit} (source: {each.pair.source})" for each in self.differing]
        return (*differing, *(each.detail for each in self.unmatched))


def check(target: Target, source: Source, step: Callable[[str], None]) -> Stored:
    """Compares one stored tensor after another; ``step`` is called with the name of each.

    The target is read in a thread of its own, a tensor ahead, and digests are taken in another.
    """

    def is_whole(pair: Correspondence) -> bool:
        return pair.source in source.shapes and pair.target in target.parameters

    compared = []
    whole = list(filter(is_whole, target.correspondences))
    with closing(ReadAhead(lambda pair: pair.stored(), whole)) as ahead, ThreadPoolExecutor(1) as digester:
        for pair in target.correspondences:
            step(pair.target)
            if is_whole(pair):
                stored = ahead.read(pair)
                found = digester.submit(digest, stored)
                compared.append(_compared(pair, stored, found))
    used = Counter(pair.source for pair in target.correspondences)
    filled = Counter(pair.target for pair in target.correspondences)
    unmatched = [
        *_unmatched("source tensor", source.shapes, used, "used"),
        *_unmatched("parameter", target.parameters, filled, "filled"),
    ]
    tensors = TensorCounts(
        source=len(source.shapes),
        used=sum(used[name] == 1 for name in source.shapes),
        target=len(target.parameters),
        filled=sum(filled[name] == 1 for name in target.parameters),
        bit_exact=sum(each.exact for each in compared),
    )
    return Stored(tensors, tuple(compared), tuple(unmatched))


def digest(tensor: Array) -> str:
    """sha256 of a tensor's bytes, little-endian and in C order, hexadecimal."""
    pattern = bits(tensor)
    return hashlib.sha256(pattern.astype(pattern.dtype.newbyteorder("<"), copy=False).data).hexdigest()


def _compared(pair: Correspondence, stored: Array, taken: Future[str]) -> ComparedTensor:
    holds = pair.holds(stored)
    found = taken.result()
    if holds:
        return ComparedTensor(pair, "", found, found)
    expected = pair.expected()
    misfit = stored_misfit(expected, stored)
    return ComparedTensor(pair, misfit, found, digest(expected) if misfit else found)


def _unmatched(kind: str, present: Iterable[str], counts: Counter[str], verb: str) -> list[Fault]:
    present = set(present)
    missing = [Fault(Kind.MISSING_TENSOR, n, f"{kind} {n} is missing") for n in sorted(counts.keys() - present)]
    unused = [Fault(Kind.UNEXPECTED_TENSOR, n, f"{kind} {n} is not {verb}") for n in sorted(present - counts.keys())]
    repeated = [
        Fault(Kind.UNEXPECTED_TENSOR, name, f"{kind} {name} is {verb} {n} times")
        for name, n in sorted(counts.items())
        if n > 1 and name in present
    ]
    return missing + unused + repeated
