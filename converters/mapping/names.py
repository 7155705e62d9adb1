"""The one table of names: what each parameter of BiT is called in each naming scheme, and its shape.

A parameter has one canonical name (``block1/unit01/a/conv/kernel``) and one row here; a naming scheme is a column.
The table is expanded for an architecture into exact names (``parameters``), and back: ``match`` says which tensor of a
file is which parameter, or is left out and why; ``infer`` reads the architecture off names and shapes, and reports
all misfits at once. No regular expression, no guess from a prefix; nothing else in the project spells a tensor name,
except the oracle of ``verify``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from string import Formatter
from typing import Any

from converters.amounts import some
from converters.errors import CheckpointError, DefectError
from converters.mapping.architecture import GROUPS, Architecture


class TensorKind(Enum):
    """The kind of a tensor; layouts transform and shape by kind."""

    KERNEL = "standardised kernel"
    SCALE = "norm scale"
    BIAS = "norm bias"
    HEAD_KERNEL = "head kernel"
    HEAD_BIAS = "head bias"


Shape = tuple[int, ...]
Dims = tuple[int | str, ...]


@dataclass(frozen=True)
class NameRow:
    """One line of the table. ``shape`` is in Google's layout (HWIO); its symbols are the dimensions of
    ``_dimensions``."""

    canonical: str
    kind: TensorKind
    shape: Dims


@dataclass(frozen=True)
class Column:
    """One naming scheme: what it calls each row, in the order of the rows.

    A unit's names are ``unit`` and what follows it: three of each branch (norm scale, norm bias, kernel) and the
    projection's kernel. Templates are filled with block, unit, stage = block - 1, layer = unit - 1 and ``bit``, the
    prefix that transformers drops for a network without a head. ``prefixes`` are what files of the scheme put before
    all names alike, beside what is read off the names themselves (``_resolve``); ``numbered`` says that names may be
    made unique with a number, as TensorFlow does (``standardized_conv2d_7``). ``dropped`` are the tensors beside the
    network, and why each is left out; ``{name}`` in them stands for any name of the column, ``{any}`` at their end for
    whatever lies there. The first that fits counts; one without a reason says that such a tensor is not left out.
    """

    scheme: str
    root: str
    unit: str
    a: tuple[str, str, str]
    proj: str
    b: tuple[str, str, str]
    c: tuple[str, str, str]
    norm: tuple[str, str]
    head: tuple[str, str]
    prefixes: tuple[str, ...] = ("",)
    numbered: bool = False
    dropped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises DefectError, naming the column and what is wrong with it."""
        faults = list(_column_faults(self))
        if faults:
            raise DefectError(f"converters/mapping/names.py: column {self.scheme}: {'; '.join(faults)}.")

    @property
    def templates(self) -> tuple[str, ...]:
        """One a row."""
        inner = (*self.a, self.proj, *self.b, *self.c)
        return (self.root, *(self.unit + name for name in inner), *self.norm, *self.head)


FIELDS = ("block", "unit", "stage", "layer", "bit")
"""The fields that a template may have."""
_PARTS = {"a": 3, "b": 3, "c": 3, "norm": 2, "head": 2}
"""The parts of a column that are several names, and how many."""


def _column_faults(column: Column) -> Iterator[str]:
    """Yields what makes a column one that cannot name the parameters of a network."""
    if wrong := [
        f"{part} has {len(getattr(column, part))} names, not {n}"
        for part, n in _PARTS.items()
        if len(getattr(column, part)) != n
    ]:
        yield from wrong
        return
    for template in (column.unit, *column.templates):
        try:
            found = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
            unknown = [name for name in found if name not in FIELDS]
        except ValueError as error:
            yield f"{template!r} is no template: {error}"
            return
        if unknown:
            yield f"{template!r} has the field {{{unknown[0]}}}; there are {', '.join(FIELDS)}"
            return
    templates = Counter(column.templates)
    yield from (f"{template!r} is the name of {count} rows" for template, count in templates.items() if count > 1)
    places = [(1, 1), (1, 2), (2, 1), (2, 2)]
    if len({_filled(column.unit, block, unit) for block, unit in places}) < len(places):
        yield f"unit is {column.unit!r}, which gives several units of a network one name"


def _filled(template: str, block: int, unit: int, bit: str = "bit.") -> str:
    return template.format(block=block, unit=unit, stage=block - 1, layer=unit - 1, bit=bit)


# fmt: off
ROOT = (NameRow("root/conv/kernel", TensorKind.KERNEL, (7, 7, 3, "root")),)
UNIT = tuple(
    NameRow("block{block}/unit{unit:02d}/" + name, kind, shape)
    for name, kind, shape in (
        ("a/norm/scale",     TensorKind.SCALE,  ("in",)),
        ("a/norm/bias",      TensorKind.BIAS,   ("in",)),
        ("a/conv/kernel",    TensorKind.KERNEL, (1, 1, "in", "mid")),
        ("proj/conv/kernel", TensorKind.KERNEL, (1, 1, "in", "out")),
        ("b/norm/scale",     TensorKind.SCALE,  ("mid",)),
        ("b/norm/bias",      TensorKind.BIAS,   ("mid",)),
        ("b/conv/kernel",    TensorKind.KERNEL, (3, 3, "mid", "mid")),
        ("c/norm/scale",     TensorKind.SCALE,  ("mid",)),
        ("c/norm/bias",      TensorKind.BIAS,   ("mid",)),
        ("c/conv/kernel",    TensorKind.KERNEL, (1, 1, "mid", "out")),
    )
)
NORM = (
    NameRow("norm/scale", TensorKind.SCALE, ("features",)),
    NameRow("norm/bias", TensorKind.BIAS, ("features",)),
)
HEAD = (
    NameRow("head/kernel", TensorKind.HEAD_KERNEL, (1, 1, "features", "classes")),
    NameRow("head/bias", TensorKind.HEAD_BIAS, ("classes",)),
)
ROWS = ROOT + UNIT + NORM + HEAD
PROJECTION = "proj/"
"""Marks the row that only the first unit of a block has."""

_SLOT = "an optimiser's slot: the training's state, not the network's"
_COUNTER, _SETTING = "a counter of the training", "an optimiser's setting"
_TF1_OPTIMISERS = ("Momentum", "Adam", "AdamW", "RMSProp", "Adagrad", "AdagradDA", "Adadelta", "Ftrl", "LARS", "LAMB")
_TF1_STATE = {
    "global_step": _COUNTER,
    "beta1_power": _COUNTER,
    "beta2_power": _COUNTER,
    **dict.fromkeys([f"{{name}}/{name}{n}" for name in _TF1_OPTIMISERS for n in ("", "_1", "_2")], _SLOT),
}
_OPTIMISERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
_TF2_STATE = {
    **dict.fromkeys(("save_counter", "iteration", "global_step", "step"), _COUNTER),
    "learning_rate": _SETTING,
    **{f"{optimiser}/{name}": why for optimiser in _OPTIMISERS for name, why in (
        ("iter", _COUNTER),
        *((setting, _SETTING) for setting in ("learning_rate", "decay", "momentum", "beta_1", "beta_2", "rho")),
        *((f"{slot}/{{name}}", _SLOT) for slot in ("m", "v", "vhat", "momentum", "velocity", "accumulator")))},
    **dict.fromkeys(("{name}/momentum", "{name}/m", "{name}/v", "{name}/vhat", "{name}/rms", "{name}/accumulator"),
                    _SLOT),
}
TRAINING = {
    **dict.fromkeys(("iter", "iterations", "_iterations", "iteration", "save_counter", "global_step", "step", "epoch",
                     "good_steps"), _COUNTER),
    **dict.fromkeys(("learning_rate", "_learning_rate", "current_learning_rate", "_current_learning_rate", "decay",
                     "momentum", "beta_1", "beta_2", "rho", "epsilon", "loss_scale", "current_loss_scale"), _SETTING),
}
"""Attributes of TensorFlow 2's optimisers, and of checkpoints, → why what they lead to is left out. Any other variable
that only an optimiser leads to is a slot."""
OPTIMISER = ("_iterations", "iter", "learning_rate", "_learning_rate", "_current_learning_rate", "beta_1", "momentum")
"""An object with two of these attributes is an optimiser."""
METRICS = "metrics"
"""The attribute in which Keras holds a model's metrics."""
SLOT, COUNTER = _SLOT, _COUNTER
METRIC = "a metric: the training's state, not the network's"
NO_WEIGHT = "not of floats: no weight, but a state of the training, or of random numbers"
BESIDE = "a number beside the network, in the checkpoint itself"
_JAX_STATE = {
    # flax.optim's optimisers, beside their target.
    "opt/state/step": _COUNTER,
    "opt/state/param_states/{name}/{any}": _SLOT,
    "opt/state/param_states/{any}": "",  # the slot of a tensor that the network has not
    # optax: a tree of the optimiser's own, of numbers, slots and names (big_vision train.py, optax.py).
    "opt/{any}": "the optimiser's state: not the network's",
    "chrono/{any}": _COUNTER,
    # Before chrono: accum_train_time and the generator's state.
    "extra/{any}": _COUNTER,
}
_TORCH_STATE = {"n_averaged": _COUNTER}  # torch.optim.swa_utils.AveragedModel

# Google's released npz files, TensorFlow 1 checkpoints and TF1-Hub modules: big_transfer bit_pytorch/models.py.
NPZ = Column("npz",
             root="resnet/root_block/standardized_conv2d/kernel",
             unit="resnet/block{block}/unit{unit:02d}/",
             a=("a/group_norm/gamma", "a/group_norm/beta", "a/standardized_conv2d/kernel"),
             proj="a/proj/standardized_conv2d/kernel",
             b=("b/group_norm/gamma", "b/group_norm/beta", "b/standardized_conv2d/kernel"),
             c=("c/group_norm/gamma", "c/group_norm/beta", "c/standardized_conv2d/kernel"),
             norm=("resnet/group_norm/gamma", "resnet/group_norm/beta"),
             head=("resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"),
             prefixes=("", "module/"), numbered=True, dropped=_TF1_STATE)
COLUMNS = (
    NPZ,
    # Keras .h5, whole names: big_transfer bit_tf2/models.py; shortened ones are told by their order (sources/keras.py).
    Column("keras",
           root="resnet/root_block/standardized_conv2d/kernel:0",
           unit="resnet/block{block}/unit{unit:02d}/",
           a=("a/group_norm/gamma:0", "a/group_norm/beta:0", "a/standardized_conv2d/kernel:0"),
           proj="a/proj/standardized_conv2d/kernel:0",
           b=("b/group_norm/gamma:0", "b/group_norm/beta:0", "b/standardized_conv2d/kernel:0"),
           c=("c/group_norm/gamma:0", "c/group_norm/beta:0", "c/standardized_conv2d/kernel:0"),
           norm=("resnet/group_norm/gamma:0", "resnet/group_norm/beta:0"),
           head=("resnet/head/dense/kernel:0", "resnet/head/dense/bias:0"), numbered=True),
    # TensorFlow 2 object graphs, the variables' full names: big_transfer bit_tf2/models.py. The head alone is another.
    replace(NPZ, scheme="tf2", head=("resnet/head/dense/kernel", "resnet/head/dense/bias"), prefixes=("",),
            dropped=_TF2_STATE),
    # big_vision models/bit_paper.py; the prefixes are those of its utils.py, load_params.
    Column("big_vision",
           root="root_block/conv_root/kernel",
           unit="block{block}/unit{unit:02d}/",
           a=("gn1/scale", "gn1/bias", "conv1/kernel"),
           proj="conv_proj/kernel",
           b=("gn2/scale", "gn2/bias", "conv2/kernel"),
           c=("gn3/scale", "gn3/bias", "conv3/kernel"),
           norm=("norm-pre-head/scale", "norm-pre-head/bias"),
           head=("head/kernel", "head/bias"), prefixes=("", "params/", "opt/target/", "opt/params/"),
           dropped=_JAX_STATE),
    # Google's PyTorch: big_transfer bit_pytorch/models.py.
    Column("original",
           root="root.conv.weight",
           unit="body.block{block}.unit{unit:02d}.",
           a=("gn1.weight", "gn1.bias", "conv1.weight"),
           proj="downsample.weight",
           b=("gn2.weight", "gn2.bias", "conv2.weight"),
           c=("gn3.weight", "gn3.bias", "conv3.weight"),
           norm=("head.gn.weight", "head.gn.bias"),
           head=("head.conv.weight", "head.conv.bias"), dropped=_TORCH_STATE),
    Column("transformers",
           root="{bit}embedder.convolution.weight",
           unit="{bit}encoder.stages.{stage}.layers.{layer}.",
           a=("norm1.weight", "norm1.bias", "conv1.weight"),
           proj="downsample.conv.weight",
           b=("norm2.weight", "norm2.bias", "conv2.weight"),
           c=("norm3.weight", "norm3.bias", "conv3.weight"),
           norm=("{bit}norm.weight", "{bit}norm.bias"),
           head=("classifier.1.weight", "classifier.1.bias"), dropped=_TORCH_STATE),
    Column("timm",
           root="stem.conv.weight",
           unit="stages.{stage}.blocks.{layer}.",
           a=("norm1.weight", "norm1.bias", "conv1.weight"),
           proj="downsample.conv.weight",
           b=("norm2.weight", "norm2.bias", "conv2.weight"),
           c=("norm3.weight", "norm3.bias", "conv3.weight"),
           norm=("norm.weight", "norm.bias"),
           head=("head.fc.weight", "head.fc.bias"), dropped=_TORCH_STATE),
)
ATTRIBUTES = Column(
    "attributes of tf2",
    root="_root/layer_with_weights-0/kernel",
    unit="_blocks/{stage}/layer_with_weights-{layer}/",
    a=("_unit_a/layer_with_weights-0/gamma", "_unit_a/layer_with_weights-0/beta", "_unit_a_conv/kernel"),
    proj="_proj/kernel",
    b=("_unit_b/layer_with_weights-0/gamma", "_unit_b/layer_with_weights-0/beta",
       "_unit_b/layer_with_weights-1/kernel"),
    c=("_unit_c/layer_with_weights-0/gamma", "_unit_c/layer_with_weights-0/beta",
       "_unit_c/layer_with_weights-1/kernel"),
    norm=("_pre_head/0/gamma", "_pre_head/0/beta"),
    head=("_head/kernel", "_head/bias"))
"""The attributes that lead to the variables of big_transfer's bit_tf2/models.py: all there is where Keras shortens
names (``group_norm/gamma`` in every unit). No scheme of its own: the tensors of an object graph are those of tf2."""
# fmt: on

SCHEMES = tuple(column.scheme for column in COLUMNS)
"""The columns of the table, in order."""
GOOGLE = "npz"
"""The scheme of the released npz files, in which every source presents its tensors."""

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""The attributes in which PyTorch's wrappers hold what they wrap, a network or a part of it, and which so stand in its
names: DataParallel and DistributedDataParallel, torch.compile, FSDP, activation checkpointing. No scheme has them."""

NUMBER = re.compile(r"_\d")
"""The beginning of a number that TensorFlow adds to a name."""
OUTPUT = ":0"
"""Ends the name of a TensorFlow variable, which is its first output; whether a file has it says nothing."""

ANY = "{any}"
"""Ends a template of ``dropped``: whatever lies there."""

MAX_BLOCKS, MAX_UNITS = 9, 99
"""The most that released names can spell: one digit for the block, two for the unit."""


@dataclass(frozen=True)
class Parameter:
    """One tensor of a network: canonical name, kind, shape in Google's layout, and its name in each scheme."""

    canonical: str
    kind: TensorKind
    shape: Shape
    names: Mapping[str, str]


@dataclass(frozen=True)
class Match:
    """The tensors of a file, matched by one scheme."""

    scheme: str
    names: Mapping[str, str]
    """Name in the file → name in the table, exact; for an unknown tensor its own name."""
    kinds: Mapping[str, TensorKind]
    """Name in the file → kind, of the known ones."""
    dropped: Mapping[str, str]
    """Name in the file → why that tensor is left out."""
    removed: tuple[str, ...] = ()
    """The additions to names in the file: wrappers (``module.``), a common prefix (``model.``)."""


def parameters(architecture: Architecture) -> list[Parameter]:
    """Every parameter of the network, in the order of the released files: 9 a unit and 9 more."""
    return [
        Parameter(
            row.canonical.format(block=block, unit=unit),
            row.kind,
            tuple(_dimensions(architecture, block, unit)[d] if isinstance(d, str) else d for d in row.shape),
            dict(zip(SCHEMES, names, strict=True)),
        )
        for row, block, unit, names in _expand(architecture.units, architecture.classes is not None)
    ]


def trunk(names: Mapping[str, str], scheme: str) -> dict[str, str]:
    """Tensor → its name in the table, of those below the head, after the prefix of any length that fits most of them.

    ``names`` are what the tensors are called in one place: by full names, by keys, or by one object's attributes. The
    network's own name, the first word of the table's names, is part of the prefix; ``:0`` of a TensorFlow variable is
    nothing. A prefix under which two tensors are the same one fits none.
    """
    tails, found = _tails(scheme), dict[str, dict[str, str]]()
    for tensor, name in names.items():
        parts = name.removesuffix(OUTPUT).split("/")
        plain = unnumbered("/".join(parts), scheme).split("/")
        for start in range(max(0, len(parts) - _DEEPEST), len(parts)):
            table_name = tails.get("/".join(plain[start:]))
            if table_name:
                found.setdefault("/".join(parts[:start]), {})[tensor] = table_name
    fits = {prefix: fit for prefix, fit in found.items() if len(set(fit.values())) == len(fit)}
    return max(fits.items(), key=lambda item: (len(item[1]), -len(item[0])), default=("", {}))[1]


@cache
def attributes(scheme: str) -> Mapping[str, Any]:
    """Google's TensorFlow 2 network as a tree of attributes, its leaves names in the table, without a head."""
    tree: dict[str, Any] = {}
    for *_, (path, name) in _expand([MAX_UNITS] * MAX_BLOCKS, False, [ATTRIBUTES, _column(scheme)]):
        *way, last = path.split("/")
        place = tree
        for attribute in way:
            place = place.setdefault(attribute, {})
        place[last] = name
    return tree


@cache
def longest_name() -> int:
    """Characters of the longest name that the table can spell."""
    return max(len(_filled(name, MAX_BLOCKS, MAX_UNITS)) for column in COLUMNS for name in column.templates)


def is_slot(name: str, names: Collection[str], scheme: str) -> bool:
    """Whether it is a slot of another tensor of the file, be that the network's or not."""
    slots = (template for template, why in _column(scheme).dropped.items() if why is SLOT)
    tails = (template.removeprefix("{name}") for template in slots if template.startswith("{name}"))
    return any(name.endswith(tail) and name.removesuffix(tail) in names for tail in tails)


def ends(scheme: str) -> tuple[str, str, str]:
    """Returns the names of the last norm's scale, the head's kernel and its bias."""
    column = _column(scheme)
    return column.norm[0], *column.head


def nearest(names: Iterable[str], schemes: Sequence[str] = SCHEMES) -> str:
    """The scheme, of those given, that knows most of these names; the first of them where none knows any."""
    names = list(names)
    known = {}
    for scheme in schemes:
        known[scheme] = len(_resolve(names, scheme)[1])
        if known[scheme] == len(names):  # no other scheme's table has to be made
            return scheme
    return max(known, key=known.__getitem__)


def match(names: Iterable[str], scheme: str, where: str) -> Match:
    """Matches each tensor of a file by ``scheme``.

    Raises CheckpointError, naming ``where``, when two tensors are the same parameter.
    """
    prefix, found = _resolve(list(names), scheme)
    known, dropped = _known(scheme), _column(scheme).dropped
    owner: dict[str, str] = {}
    result, left_out = {}, {}
    for name in names:
        others = {} if name in found else dropped
        why = next((why for template, why in others.items() if _is_dropped(name, template, prefix, scheme)), None)
        if why:
            left_out[name] = why
            continue
        result[name] = table_name = found.get(name, name)
        if owner.setdefault(table_name, name) != name:
            raise CheckpointError(
                f"{where}: {owner[table_name]} and {name} are the same tensor of the network, {table_name}.\n"
                "Remove the one that does not belong to it."
            )
    kinds = {name: known[table_name][0].kind for name, table_name in found.items()}
    return Match(scheme, result, kinds, left_out, _removed(found, prefix, scheme))


def infer(shapes: Mapping[str, Shape], scheme: str, where: str) -> Architecture:
    """The architecture of a checkpoint whose tensors have these names and shapes (in Google's layout).

    Each symbolic dimension is what most of the tensors that have it say, so that one misshapen tensor is reported
    as such. Raises CheckpointError, naming ``where``, with all missing, unexpected and misshapen tensors together.
    """
    known = {name: known for name, known in _known(scheme).items() if name in shapes}
    if not any(block and row.kind is TensorKind.KERNEL for row, block, _ in known.values()):
        looked_for = some([_template(0, scheme), _template(3, scheme)])
        raise CheckpointError(
            f"{where}: not a BiT checkpoint: none of its {len(shapes)} tensors ({some(list(shapes))}) is a unit's "
            f"kernel of the {scheme} scheme.\nLooked for {looked_for}."
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
        f"{name} is {in_words(shapes[name])}, not {in_words(shape)}"
        for name, shape in wanted.items()
        if name in shapes and shapes[name] != shape
    ]
    faults = [
        f"{len(names)} {label}: {some(names)}"
        for label, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise CheckpointError(
            f"{where}: not a whole BiT checkpoint, nearest is {architecture} in the {scheme} scheme: "
            f"{'; '.join(faults)}.\nDownload it again, or leave out the tensors that do not belong to the network."
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


def _expand(
    units: Sequence[int], head: bool, columns: Sequence[Column] = COLUMNS
) -> Iterator[tuple[NameRow, int, int, tuple[str, ...]]]:
    """(row, block, unit, names) in file order; block and unit are 0 outside the blocks."""
    rows = list(zip(ROWS, zip(*(column.templates for column in columns), strict=True), strict=True))
    inner = slice(len(ROOT), len(ROOT + UNIT))

    def fill(part: slice, block: int = 0, unit: int = 0) -> Iterator[tuple[NameRow, int, int, tuple[str, ...]]]:
        for row, templates in rows[part]:
            if unit <= 1 or PROJECTION not in row.canonical:
                names = (_filled(template, block, unit, "bit." if head else "") for template in templates)
                yield row, block, unit, tuple(names)

    yield from fill(slice(inner.start))
    for block, count in enumerate(units, start=1):
        for unit in range(1, count + 1):
            yield from fill(inner, block, unit)
    yield from fill(slice(inner.stop, None if head else -len(HEAD)))


@cache
def _column(scheme: str) -> Column:
    return COLUMNS[SCHEMES.index(scheme)]


@cache
def _known(scheme: str) -> dict[str, tuple[NameRow, int, int]]:
    """Every name that a scheme can give, with a head and without."""
    if not any("{bit}" in template for template in _column(scheme).templates):
        return _every(scheme, True)
    return {**_every(scheme, False), **_every(scheme, True)}


@cache
def _every(scheme: str, head: bool) -> dict[str, tuple[NameRow, int, int]]:
    """Every name that a scheme can give with a head, or without one."""
    expanded = _expand([MAX_UNITS] * MAX_BLOCKS, head, [_column(scheme)])
    return {name: (row, block, unit) for row, block, unit, (name,) in expanded}


_DEEPEST = 6
"""The most words of a name that ``trunk`` looks for: block, unit, branch, projection, convolution, kernel."""


@cache
def _tails(scheme: str) -> dict[str, str]:
    """A name below the head without the network's own → the whole name."""
    known = _known(scheme).items()
    return {name.partition("/")[2].removesuffix(OUTPUT): name for name, (row, *_) in known if row not in HEAD}


@cache
def _words(scheme: str) -> frozenset[str]:
    """The parts between slashes of all names of a scheme."""
    return frozenset(word for name in _known(scheme) for word in name.split("/"))


def unnumbered(name: str, scheme: str) -> str:
    """``name`` without the numbers that TensorFlow adds to make names unique; nothing else is changed."""
    if not NUMBER.search(name):  # most names, and a hostile file's many: told at once
        return name
    words = _words(scheme)

    def plain(word: str) -> str:
        stem, colon, output = word.partition(":")
        before, _, number = stem.rpartition("_")
        bare = before + colon + output
        return bare if number.isdecimal() and bare in words else word

    return "/".join(map(plain, name.split("/")))


def words(name: str, scheme: str) -> list[str]:
    """The parts of a name that a scheme knows, in order, without numbers: what the name says about its tensor."""
    return [word for word in unnumbered(name, scheme).split("/") if word in _words(scheme)]


def _plain(name: str, scheme: str) -> str:
    """A file's name without wrappers and, where the scheme has them, numbers."""
    bare = ".".join(part for part in name.split(".") if part not in WRAPPERS) if "." in name else name
    if not _column(scheme).numbered:
        return bare
    return unnumbered(bare if _column(scheme).root.endswith(OUTPUT) else bare.removesuffix(OUTPUT), scheme)


def _is_known(name: str, prefixes: Collection[str], scheme: str) -> bool:
    """Whether the table has a file's name, after one of these prefixes."""
    plain, known = _plain(name, scheme), _known(scheme)
    return any(plain.startswith(prefix) and plain.removeprefix(prefix) in known for prefix in prefixes)


def _resolve(names: Sequence[str], scheme: str) -> tuple[str, dict[str, str]]:
    """The prefix that fits most names, and name in the file → name in the table for those it fits.

    A prefix is what stands before exact names of the table; of two that fit equally many, the scheme's own, then the
    shorter.
    """
    own = _column(scheme).prefixes
    before: dict[str, dict[str, str]] = {prefix: {} for prefix in own}
    for name in names:
        for prefix, spelling in _splits(_plain(name, scheme), scheme):
            if prefix in own or not _is_state(prefix, scheme):
                before.setdefault(prefix, {})[name] = spelling
    for prefix, found in before.items():
        before[prefix] = _of_one_form(found, scheme)
    return max(before.items(), key=lambda fit: (len(fit[1]), fit[0] in own, -len(fit[0])))


def _of_one_form(found: dict[str, str], scheme: str) -> dict[str, str]:
    """Those of a network with a head, or without one: of ``bit.norm.weight`` without a head, ``bit.`` is a prefix."""
    known = _known(scheme)
    has_head = any(known[spelling][0] in HEAD for spelling in found.values())
    return {name: spelling for name, spelling in found.items() if has_head or spelling in _every(scheme, False)}


def _splits(name: str, scheme: str) -> Iterator[tuple[str, str]]:
    """Prefix and table's name, as far as the name ends in one: of ``model.norm.weight``, the whole ``norm.weight``."""
    known = _known(scheme)
    separator, most = _separator(scheme), _deepest(scheme)
    parts = name.split(separator)
    for start in range(max(0, len(parts) - most), len(parts)):
        spelling = separator.join(parts[start:])
        if spelling in known:
            yield name[: len(name) - len(spelling)], spelling


@cache
def _deepest(scheme: str) -> int:
    """The most parts that a name of the scheme has."""
    return max(len(name.split(_separator(scheme))) for name in _known(scheme))


def _separator(scheme: str) -> str:
    return "/" if "/" in _column(scheme).root else "."


def _removed(found: Iterable[str], prefix: str, scheme: str) -> tuple[str, ...]:
    present = {part for name in found for part in name.split(".")}
    wrappers = [f"{wrapper}." for wrapper in WRAPPERS if wrapper in present]
    return (*wrappers, *([] if prefix in _column(scheme).prefixes else [prefix]))


def _is_state(prefix: str, scheme: str) -> bool:
    """Whether what this prefix leads to is left out: an optimiser's slots have the names of the network, too."""
    whole = [template for template in _column(scheme).dropped if template.endswith(ANY) and "{name}" not in template]
    return any(f"/{template.removesuffix(ANY)}" in f"/{prefix}" for template in whole)


def _is_dropped(name: str, template: str, prefix: str, scheme: str) -> bool:
    stem = template.removesuffix(ANY)
    if stem != template and "{name}" in stem:
        most = max(each.count("/") for each in (prefix, *_column(scheme).prefixes)) + _deepest(scheme) + stem.count("/")
        ends = [end for end, character in enumerate(name) if character == "/"][:most]
        return any(_is_dropped(name[:end], stem[:-1], prefix, scheme) for end in ends)
    if stem != template:  # beside the network, or beside what holds it
        above = "".join(f"{part}/" for part in prefix.split("/")[:-2])
        within = prefix.startswith(stem) and name.startswith(prefix)
        return name.startswith((stem, above + stem)) and not within
    before, slot, after = template.partition("{name}")
    if not slot:
        return name in (template, prefix + template)
    framed = name.startswith(before) and name.endswith(after) and len(name) > len(before) + len(after)
    middle = name[len(before) : len(name) - len(after)]
    return framed and _is_known(middle, (prefix, *_column(scheme).prefixes), scheme)


def _template(row: int, scheme: str) -> str:
    return _filled(_column(scheme).templates[row], block=1, unit=1)


def in_words(shape: Shape) -> str:
    """A shape as messages have it: ``7×7×3×64``."""
    return "×".join(map(str, shape)) or "a scalar"
