"""Stored values: every source tensor used once, every target parameter filled once, every value bit-exact.

Dead channels hide from every image, so no forward pass replaces this. All misfits are collected, not only the first.

    target.correspondences, source.shapes → ``check()`` → Stored
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from verify.compare import Array, bits, stored_misfit
from verify.protocols import Correspondence, Source, Target
from verify.report.parity import Tensors


@dataclass(frozen=True)
class Account:
    """One parameter that was compared with its source tensor; the digests are those of the bytes in C order."""

    pair: Correspondence
    misfit: str
    """Empty where it is bit-exact."""
    holds: str
    """sha256 of what is stored."""
    must: str
    """sha256 of what must be."""

    @property
    def exact(self) -> bool:
        return not self.misfit


@dataclass(frozen=True)
class Unbalanced:
    """A source tensor or a target parameter without its one counterpart."""

    name: str
    text: str
    missing: bool
    """A name that is only hoped for; otherwise one that is left over or used twice."""


@dataclass(frozen=True)
class Stored:
    """The accounts of a target's tensors, and those that do not balance."""

    tensors: Tensors
    accounts: tuple[Account, ...]
    unbalanced: tuple[Unbalanced, ...]

    @property
    def misfits(self) -> tuple[str, ...]:
        """A line for each tensor that is not what it must be."""
        differing = [f"{a.pair.target} {a.misfit} (source: {a.pair.source})" for a in self.accounts if not a.exact]
        return (*differing, *(account.text for account in self.unbalanced))


def check(target: Target, source: Source, step: Callable[[str], None]) -> Stored:
    """Compares one stored tensor after another; ``step`` is called with the name of each."""
    accounts = []
    for pair in target.correspondences:
        step(pair.target)
        if pair.source in source.shapes and pair.target in target.parameters:
            accounts.append(_account(pair))
    used = Counter(pair.source for pair in target.correspondences)
    filled = Counter(pair.target for pair in target.correspondences)
    unbalanced = [
        *_unbalanced("source tensor", source.shapes, used, "used"),
        *_unbalanced("parameter", target.parameters, filled, "filled"),
    ]
    tensors = Tensors(
        source=len(source.shapes),
        used=sum(used[name] == 1 for name in source.shapes),
        target=len(target.parameters),
        filled=sum(filled[name] == 1 for name in target.parameters),
        bit_exact=sum(account.exact for account in accounts),
    )
    return Stored(tensors, tuple(accounts), tuple(unbalanced))


def digest(tensor: Array) -> str:
    """sha256 of a tensor's bytes, little-endian and in C order, hexadecimal."""
    pattern = bits(tensor)
    return hashlib.sha256(pattern.astype(pattern.dtype.newbyteorder("<"), copy=False).data).hexdigest()


def _account(pair: Correspondence) -> Account:
    expected, stored = pair.expected(), pair.stored()
    misfit, holds = stored_misfit(expected, stored), digest(stored)
    return Account(pair, misfit, holds, digest(expected) if misfit else holds)


def _unbalanced(kind: str, present: Iterable[str], counts: Counter[str], verb: str) -> list[Unbalanced]:
    present = set(present)
    missing = [Unbalanced(n, f"{kind} {n} is missing", True) for n in sorted(counts.keys() - present)]
    unused = [Unbalanced(n, f"{kind} {n} is not {verb}", False) for n in sorted(present - counts.keys())]
    repeated = [
        Unbalanced(name, f"{kind} {name} is {verb} {n} times", False)
        for name, n in sorted(counts.items())
        if n > 1 and name in present
    ]
    return missing + unused + repeated
