"""The one table of names: what each parameter of BiT is called in each naming scheme, and its shape.

A parameter has one canonical name (``block1/unit01/a/conv/kernel``) and one row here; a naming scheme is a column.
The rows are expanded for an architecture into exact names (``parameters``), and back: ``infer`` recognises every
name a scheme can give, reads the architecture off names and shapes, and reports all misfits at once. No regular
expression, no prefix guess; nothing else in the project spells a tensor name, except the oracle of ``verify``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from converters.architecture import GROUPS, Architecture
from converters.errors import CheckpointError


class Kind(Enum):
    """What a tensor is; layouts transform and shape by kind."""

    KERNEL = "standardised kernel"
    SCALE = "norm scale"
    BIAS = "norm bias"
    HEAD_KERNEL = "head kernel"
    HEAD_BIAS = "head bias"


GOOGLE = "npz"
"""The scheme of the released npz files, in which every source presents its tensors."""
SCHEMES = (GOOGLE, "transformers")
"""The columns of the table, in order."""

Shape = tuple[int, ...]
Dims = tuple[int | str, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table. ``shape`` is in Google's layout (HWIO); its symbols are the dimensions of
    ``_dimensions``. ``names`` has one template per scheme, filled with block, unit, stage = block - 1,
    layer = unit - 1 and ``bit``, the prefix that transformers drops for a network without a head."""

    canonical: str
    kind: Kind
    shape: Dims
    names: tuple[str, ...]


# fmt: off
ROOT = (
    Row("root/conv/kernel", Kind.KERNEL, (7, 7, 3, "root"),
        ("resnet/root_block/standardized_conv2d/kernel", "{bit}embedder.convolution.weight")),
)
_NPZ, _TR = "resnet/block{block}/unit{unit:02d}/", "{bit}encoder.stages.{stage}.layers.{layer}."
UNIT = tuple(
    Row("block{block}/unit{unit:02d}/" + canonical, kind, shape, (_NPZ + npz, _TR + transformers))
    for canonical, kind, shape, npz, transformers in (
        ("a/norm/scale", Kind.SCALE, ("in",), "a/group_norm/gamma", "norm1.weight"),
        ("a/norm/bias", Kind.BIAS, ("in",), "a/group_norm/beta", "norm1.bias"),
        ("a/conv/kernel", Kind.KERNEL, (1, 1, "in", "mid"), "a/standardized_conv2d/kernel", "conv1.weight"),
        ("proj/conv/kernel", Kind.KERNEL, (1, 1, "in", "out"), "a/proj/standardized_conv2d/kernel",
         "downsample.conv.weight"),
        ("b/norm/scale", Kind.SCALE, ("mid",), "b/group_norm/gamma", "norm2.weight"),
        ("b/norm/bias", Kind.BIAS, ("mid",), "b/group_norm/beta", "norm2.bias"),
        ("b/conv/kernel", Kind.KERNEL, (3, 3, "mid", "mid"), "b/standardized_conv2d/kernel", "conv2.weight"),
        ("c/norm/scale", Kind.SCALE, ("mid",), "c/group_norm/gamma", "norm3.weight"),
        ("c/norm/bias", Kind.BIAS, ("mid",), "c/group_norm/beta", "norm3.bias"),
        ("c/conv/kernel", Kind.KERNEL, (1, 1, "mid", "out"), "c/standardized_conv2d/kernel", "conv3.weight"),
    )
)
NORM = (
    Row("norm/scale", Kind.SCALE, ("features",), ("resnet/group_norm/gamma", "{bit}norm.weight")),
    Row("norm/bias", Kind.BIAS, ("features",), ("resnet/group_norm/beta", "{bit}norm.bias")),
)
HEAD = (
    Row("head/kernel", Kind.HEAD_KERNEL, (1, 1, "features", "classes"),
        ("resnet/head/conv2d/kernel", "classifier.1.weight")),
    Row("head/bias", Kind.HEAD_BIAS, ("classes",), ("resnet/head/conv2d/bias", "classifier.1.bias")),
)
# fmt: on

PROJECTION = "proj/"
"""Marks the rows that only the first unit of a block has."""

MAX_BLOCKS, MAX_UNITS = 9, 99
"""What the released names can spell: one digit for the block, two for the unit."""


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network: canonical name, kind, shape in Google's layout, and its name in each scheme."""

    canonical: str
    kind: Kind
    shape: Shape
    names: Mapping[str, str]


def parameters(architecture: Architecture) -> list[Parameter]:
    """Every parameter of the network, in the order of the released files: 9 a unit and 9 more."""
    return [
        Parameter(
            canonical,
            row.kind,
            tuple(_dimensions(architecture, block, unit)[d] if isinstance(d, str) else d for d in row.shape),
            dict(zip(SCHEMES, names, strict=True)),
        )
        for row, block, unit, canonical, names in _expand(architecture.units, architecture.classes is not None)
    ]


def infer(shapes: Mapping[str, Shape], scheme: str, where: str) -> Architecture:
    """The architecture of a checkpoint whose tensors have these names and shapes.

    Each symbolic dimension is what most of the tensors that have it say, so that one misshapen tensor is reported
    as such. Raises CheckpointError, naming ``where``, with all missing, unexpected and misshapen tensors together.
    """
    known = {name: known for name, known in _known(scheme).items() if name in shapes}
    if not any(block and row.kind is Kind.KERNEL for row, block, _ in known.values()):
        raise CheckpointError(
            f"{where}: not a BiT checkpoint: none of its {len(shapes)} tensors is a unit's kernel of the {scheme} "
            f"scheme ({_some(list(shapes))}).\n"
            f"Looked for {_some([_template(ROOT[0], scheme), _template(UNIT[2], scheme)])}."
        )
    votes: dict[tuple[str, int], Counter[int]] = {}
    units = [0] * max((block for _, block, _ in known.values()), default=0)
    for name, (row, block, unit) in known.items():
        if block:
            units[block - 1] = max(units[block - 1], unit)
        if len(shapes[name]) == len(row.shape):
            for symbol, size in zip(row.shape, shapes[name], strict=True):
                if isinstance(symbol, str):
                    votes.setdefault((symbol, block), Counter())[size] += 1

    def vote(symbol: str, block: int = 0) -> int:
        counts = votes.get((symbol, block))
        return counts.most_common(1)[0][0] if counts else 0

    has_head = any(row in HEAD for row, _, _ in known.values())
    architecture = Architecture(
        units=tuple(units),
        root_width=vote("root"),
        widths=tuple(vote("mid", block) for block in range(1, len(units) + 1)),
        classes=vote("classes") if has_head else None,
    )
    _refuse_misfits(architecture, shapes, scheme, where)
    _refuse_groups(architecture, where)
    return architecture


def _refuse_misfits(architecture: Architecture, shapes: Mapping[str, Shape], scheme: str, where: str) -> None:
    wanted = {p.names[scheme]: p.shape for p in parameters(architecture)}
    missing = [name for name in wanted if name not in shapes]
    unexpected = [name for name in shapes if name not in wanted]
    misshapen = [
        f"{name} is {_shape(shapes[name])}, not {_shape(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    faults = [
        f"{len(names)} {label}: {_some(names)}"
        for label, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise CheckpointError(
            f"{where}: not a whole BiT checkpoint, nearest is {architecture}: {'; '.join(faults)}.\n"
            "Get the file anew, or leave out the tensors that do not belong to the network."
        )


def _refuse_groups(architecture: Architecture, where: str) -> None:
    widths = {"root": architecture.root_width} | {
        f"block{block}": width for block, width in enumerate(architecture.widths, start=1)
    }
    odd = [f"{name} has {width} channels" for name, width in widths.items() if width <= 0 or width % GROUPS]
    if odd or architecture.classes == 0 or not architecture.units:
        reason = "; ".join(odd) or "it has no block or no class"
        raise CheckpointError(f"{where}: not a BiT network: {reason}; GroupNorm needs a multiple of {GROUPS} channels.")


def _dimensions(architecture: Architecture, block: int, unit: int) -> dict[str, int]:
    dimensions = {
        "root": architecture.root_width,
        "features": architecture.features,
        "classes": architecture.classes or 0,
    }
    if block:
        mid = architecture.widths[block - 1]
        before = 4 * architecture.widths[block - 2] if block > 1 else architecture.root_width
        dimensions |= {"mid": mid, "out": 4 * mid, "in": before if unit == 1 else 4 * mid}
    return dimensions


def _expand(units: Sequence[int], head: bool) -> Iterator[tuple[Row, int, int, str, tuple[str, ...]]]:
    """(row, block, unit, canonical name, names) in file order; block and unit are 0 outside the blocks."""

    def fill(row: Row, block: int = 0, unit: int = 0) -> tuple[Row, int, int, str, tuple[str, ...]]:
        fields = {
            "block": block,
            "unit": unit,
            "stage": block - 1,
            "layer": unit - 1,
            "bit": "bit." if head else "",
        }
        return row, block, unit, row.canonical.format(**fields), tuple(n.format(**fields) for n in row.names)

    for row in ROOT:
        yield fill(row)
    for block, count in enumerate(units, start=1):
        for unit in range(1, count + 1):
            for row in UNIT:
                if unit == 1 or PROJECTION not in row.canonical:
                    yield fill(row, block, unit)
    for row in NORM + (HEAD if head else ()):
        yield fill(row)


@cache
def _known(scheme: str) -> dict[str, tuple[Row, int, int]]:
    """Every name the scheme can give, with a head and without."""
    column = SCHEMES.index(scheme)
    return {
        names[column]: (row, block, unit)
        for head in (False, True)
        for row, block, unit, _, names in _expand([MAX_UNITS] * MAX_BLOCKS, head)
    }


def _template(row: Row, scheme: str) -> str:
    return row.names[SCHEMES.index(scheme)].format(block=1, unit=1, stage=0, layer=0, bit="bit.")


def _shape(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _some(names: Sequence[str], limit: int = 3) -> str:
    shown = ", ".join(name[:120] for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
