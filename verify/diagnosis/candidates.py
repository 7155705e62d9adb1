"""The faults that a layer is tried for: every known arithmetic, then its tensors changed in every known way.

layer → ``candidates()`` → a fault, and the oracle that makes it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.diagnosis.arithmetic import DEVIATIONS, Deviation, parts_of
from verify.diagnosis.changes import LAYOUT_ORDERS, REORDERINGS, REVALUATIONS, Change, reread
from verify.diagnosis.right_steps import SharingOracle
from verify.faults import Fault, Kind
from verify.oracles.numpy import Arithmetic
from verify.protocols import Source, Tensors

Array = npt.NDArray[Any]
Build = Callable[[], SharingOracle]
Wrong = Mapping[str, Array | str]
"""Tensors that are others, by their names: other values, or the name of the one that stands in its place."""
Candidate = tuple[Fault, Build]

PARTNERS = 40
"""Tensors, norms or units of one shape that are tried in place of another."""
SHIFTS = 3
"""Ways in which the channels of one axis are put in another order."""

KERNEL, GAMMA, BETA = "standardized_conv2d/kernel", "group_norm/gamma", "group_norm/beta"
ROLES: Mapping[str, tuple[str, ...]] = {
    "all tensors": ("",),
    "the affine parameters": (GAMMA, BETA),
    "the gammas": (GAMMA,),
    "the betas": (BETA,),
    "the kernels": (KERNEL,),
}
"""Tensors of a layer that go wrong together, by the end of their names."""


class Changed:
    """A source some of whose tensors are others."""

    def __init__(self, source: Tensors, wrong: Wrong) -> None:
        self.source, self.shapes, self.wrong = source, source.shapes, wrong

    def read(self, name: str) -> Array:
        found = self.wrong.get(name, name)
        return self.source.read(found) if isinstance(found, str) else found.copy()


def layer_of(tensor: str) -> str:
    """resnet/block1/unit01/a/group_norm/gamma → block1/unit01."""
    parts = tensor.split("/")
    if parts[1] == "root_block":
        return "root"
    if parts[1] == "head":
        return "logits"
    return "norm" if parts[1] == "group_norm" else "/".join(parts[1:3])


def tensors_of(layer: str, source: Source) -> list[str]:
    return [name for name in source.shapes if layer_of(name) == layer and layer != "features"]


def candidates(right: Arithmetic, source: Source, layer: str) -> Iterator[Candidate]:
    """The likelier ones first."""
    names = tensors_of(layer, source)
    for deviation in deviations_of(layer):
        yield Fault(deviation.kind, layer, deviation.detail), partial(deviation.oracle, source, right)
    for fault, wrong in chain(
        _changed(source, layer, names), _exchanged(source, layer, names), _reordered(source, names)
    ):
        yield fault, partial(SharingOracle, Changed(source, wrong), float32_runs=0, arithmetic=right)
    for deviation, place in _single(layer, names):
        yield Fault(deviation.kind, place, deviation.detail), partial(deviation.oracle, source, right, _at(place))


def candidate_count(source: Source, layer: str) -> int:
    """Returns the largest possible number of candidates."""
    names = tensors_of(layer, source)
    count = len(deviations_of(layer)) + len(list(_single(layer, names))) + len(list(_places(source, layer, names)))
    changes = len(REORDERINGS) + len(REVALUATIONS)
    count += changes * (len(names) + len(_roles(names)))
    return count + sum(
        len(LAYOUT_ORDERS) * (len(source.shapes[name]) == 4) + SHIFTS * len(source.shapes[name]) for name in names
    )


def deviations_of(layer: str) -> list[Deviation]:
    return [deviation for deviation in DEVIATIONS if deviation.part in parts_of(layer)]


def _single(layer: str, names: Sequence[str]) -> Iterator[tuple[Deviation, str]]:
    """Arithmetics that one kernel alone, or one norm, may have; none where there is but one."""
    places = {
        "kernel": [name for name in names if name.endswith(KERNEL)],
        "norm": [name.removesuffix("/gamma") for name in names if name.endswith(GAMMA)],
    }
    for deviation in deviations_of(layer):
        if deviation.of_one_tensor and len(places[deviation.part]) > 1:
            for place in places[deviation.part]:
                yield deviation, place


def _at(place: str) -> str:
    """resnet/block1/unit01/b/group_norm → resnet/block1/unit01/b/."""
    return place.removesuffix("standardized_conv2d/kernel").removesuffix("group_norm")


def _changed(source: Source, layer: str, names: Sequence[str]) -> Iterator[tuple[Fault, Wrong]]:
    """Tensors changed in each known way: one at a time, then those of a role together."""
    changes: Sequence[Change] = (*REORDERINGS, *REVALUATIONS)
    for change, name in product(changes, names):
        right = source.read(name)
        wrong = _applied(change, right)
        if wrong.shape == right.shape and not np.array_equal(wrong, right):
            yield Fault(change.kind, name, change.detail), {name: wrong}
    for name in names:
        for detail, wrong in _reread(source.read(name)):
            yield Fault(Kind.RESHAPED_TENSOR, name, detail), {name: wrong}
    for change, role in product(changes, _roles(names)):
        rights = {name: source.read(name) for name in names if name.endswith(ROLES[role])}
        wrongs = {name: _applied(change, right) for name, right in rights.items()}
        if all(wrongs[name].shape == right.shape for name, right in rights.items()):
            yield Fault(change.kind, layer, f"{role}: {change.detail}"), wrongs


def _applied(change: Change, right: Array) -> Array:
    return np.ascontiguousarray(change.apply(right, (0, 1) if right.ndim == 4 else None))


def _reread(right: Array) -> Iterator[tuple[str, Array]]:
    """A kernel's bytes in another shape."""
    if right.ndim == 4:
        for written, read in LAYOUT_ORDERS:
            wrong = reread(right, written, read)
            if not np.array_equal(wrong, right):
                yield f"the same bytes in another shape: written as {written}, read as {read}", wrong


def _roles(names: Sequence[str]) -> list[str]:
    """Roles that more than one tensor has."""
    return [role for role, ends in ROLES.items() if sum(name.endswith(ends) for name in names) > 1]


def _exchanged(source: Source, layer: str, names: Sequence[str]) -> Iterator[tuple[Fault, Wrong]]:
    """Tensors in each other's places, on both sides: one, a norm's two, or a role of two units."""
    for place, detail, places in _places(source, layer, names):
        yield Fault(Kind.SWAPPED_TENSORS, place, detail), places | {there: here for here, there in places.items()}


def _places(source: Source, layer: str, names: Sequence[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    shapes = source.shapes
    for name in names:
        for other in [n for n in shapes if shapes[n] == shapes[name] and n != name][:PARTNERS]:
            yield name, f"computed with {other} in its place", {name: other}
    norms = [name.removesuffix("gamma") for name in shapes if name.endswith(GAMMA)]
    for norm in [norm for norm in norms if norm + "gamma" in names]:
        same = [other for other in norms if shapes[other + "gamma"] == shapes[norm + "gamma"] and other != norm]
        for other in same[:PARTNERS]:
            detail = f"affine parameters swapped with those of {other.rstrip('/')}"
            yield norm.rstrip("/"), detail, {norm + part: other + part for part in ("gamma", "beta")}
    gammas = [name for name in names if name.endswith(GAMMA)]
    if len(gammas) > 1:
        yield layer, "gammas and betas exchanged", {g: g.removesuffix("gamma") + "beta" for g in gammas}
    if "/" in layer:
        yield from _units(source, layer, names)


def _units(source: Source, layer: str, names: Sequence[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yields the tensors of other units that a unit may hold."""
    others = [other for other in dict.fromkeys(map(layer_of, source.shapes)) if "/" in other and other != layer]
    for other, (role, ends) in product(others[:PARTNERS], ROLES.items()):
        pairs = {n: n.replace(f"/{layer}/", f"/{other}/") for n in names if n.endswith(ends)}
        if all(source.shapes.get(there) == source.shapes[here] for here, there in pairs.items()):
            yield layer, f"{role} swapped with those of {other}", pairs


def _reordered(source: Source, names: Sequence[str]) -> Iterator[tuple[Fault, Wrong]]:
    """The channels of one axis in another order, in SHIFTS ways for each axis."""
    for name in names:
        right = source.read(name)
        for axis in (axis for axis, length in enumerate(right.shape) if length > 1):
            for detail, wrong in (
                (f"axis {axis} reversed", np.flip(right, axis)),
                (f"axis {axis} shifted by 1", np.roll(right, 1, axis)),
                (f"axis {axis} shifted by -1", np.roll(right, -1, axis)),
            ):
                yield Fault(Kind.PERMUTED_CHANNELS, name, detail), {name: wrong}
