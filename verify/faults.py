"""Faults: what is wrong with a port, where, and the kinds that a diagnosis can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """A kind of fault that a diagnosis can name, as parity.json has it."""

    # what is stored
    MIRRORED_KERNEL = "mirrored kernel"
    TRANSPOSED_KERNEL = "transposed kernel"
    RESHAPED_TENSOR = "reshaped tensor"
    SWAPPED_TENSORS = "swapped tensors"
    PERMUTED_CHANNELS = "permuted channels"
    PERMUTED_LABELS = "permuted labels"
    SHIFTED_LABELS = "shifted labels"
    REDUCED_PRECISION = "reduced precision"
    SCALED_VALUES = "scaled values"
    DROPPED_VALUES = "dropped values"
    CONSTANT_VALUES = "constant values"
    STANDARDISED_KERNEL = "standardised kernel"
    SHIFTED_VALUES = "shifted values"
    OTHER_FUNCTION = "other function"
    BYTE_ORDER = "byte order"
    CHANGED_VALUES = "changed values"
    OTHER_VALUES = "other values"
    OTHER_CHECKPOINT = "other checkpoint"
    NOT_A_NUMBER = "not a number"
    OTHER_DTYPE = "other dtype"
    OTHER_SHAPE = "other shape"
    MISSING_TENSOR = "missing tensor"
    UNEXPECTED_TENSOR = "unexpected tensor"
    # how it is computed
    STANDARDISATION_EPSILON = "standardisation epsilon"
    NO_STANDARDISATION = "no standardisation"
    NORM_EPSILON = "norm epsilon"
    GROUP_COUNT = "group count"
    GROUP_NORM = "group norm"
    MAX_POOL_PADDING = "max-pool padding"
    POOLING = "pooling"
    STRIDE = "stride"
    CONVOLUTION_PADDING = "convolution padding"
    ACTIVATION = "activation"
    SHORTCUT = "shortcut"
    DROPPED_BIAS = "dropped bias"
    UNKNOWN_ARITHMETIC = "unknown arithmetic"
    ROUNDING = "rounding"
    OTHER_CLASSES = "other classes"
    BATCH = "batch"
    CANNOT_RUN = "cannot run"
    # what the files say
    CONFIGURATION = "configuration"
    CHANGED = "changed while audited"
    FORGED_REPORT = "forged report"
    STALE_REPORT = "stale report"
    PROVENANCE = "provenance"
    SIGNATURE = "signature"


KINDS: Mapping[Kind, str] = {
    Kind.MIRRORED_KERNEL: "A kernel is flipped along its height, its width or both.",
    Kind.TRANSPOSED_KERNEL: "A tensor has its axes in another order.",
    Kind.RESHAPED_TENSOR: "A tensor holds the same bytes in another shape, as reshape, not transpose, leaves them.",
    Kind.SWAPPED_TENSORS: "A tensor holds what another one of its shape must hold.",
    Kind.PERMUTED_CHANNELS: "A tensor holds the right channels in another order.",
    Kind.PERMUTED_LABELS: "The head holds the right classes in another order.",
    Kind.SHIFTED_LABELS: "The head's classes are shifted by a fixed number of places.",
    Kind.REDUCED_PRECISION: "Values went through a narrower format, or the network computes in one.",
    Kind.SCALED_VALUES: "A tensor, or the logits, are a multiple of what they must be.",
    Kind.DROPPED_VALUES: "A tensor is all zeros where it must not be.",
    Kind.CONSTANT_VALUES: "A tensor holds one value everywhere, as a fresh layer does.",
    Kind.STANDARDISED_KERNEL: "A kernel is stored standardised; the network standardises it again.",
    Kind.SHIFTED_VALUES: "A number was added to every value of a tensor.",
    Kind.OTHER_FUNCTION: "A tensor holds a function of what it must be, such as squares.",
    Kind.BYTE_ORDER: "The bytes of each value are in reverse order.",
    Kind.CHANGED_VALUES: "Some values of a tensor are others.",
    Kind.OTHER_VALUES: "A tensor holds values of unknown origin.",
    Kind.OTHER_CHECKPOINT: "Nearly every tensor holds other values: these are another checkpoint's.",
    Kind.NOT_A_NUMBER: "A stored value is NaN or Inf.",
    Kind.OTHER_DTYPE: "A tensor is stored in another format than the rest.",
    Kind.OTHER_SHAPE: "A tensor, stored or computed, has another shape.",
    Kind.MISSING_TENSOR: "A tensor has no place, or a parameter has no value.",
    Kind.UNEXPECTED_TENSOR: "There is a tensor that the checkpoint's network has not, or one used twice.",
    Kind.STANDARDISATION_EPSILON: "Kernels are standardised with another epsilon than Google's 1e-10.",
    Kind.NO_STANDARDISATION: "Kernels are not standardised, or not as Google's code does it.",
    Kind.NORM_EPSILON: "Group norms have another epsilon than Google's 1e-5.",
    Kind.GROUP_COUNT: "Group norms have another number of groups than 32.",
    Kind.GROUP_NORM: "Group norms normalise, scale or shift in another way.",
    Kind.MAX_POOL_PADDING: "The stem's max-pool is surrounded by other values.",
    Kind.POOLING: "The stem or the end of the network pools in another way.",
    Kind.STRIDE: "A stride is another one, or on another convolution, or became a dilation.",
    Kind.CONVOLUTION_PADDING: "Convolutions are padded in another way, as by TensorFlow's SAME.",
    Kind.ACTIVATION: "An activation is missing, another one, or in another place.",
    Kind.SHORTCUT: "A shortcut starts elsewhere.",
    Kind.DROPPED_BIAS: "The head's bias is not added.",
    Kind.UNKNOWN_ARITHMETIC: "A layer computes something else, in no way known.",
    Kind.ROUNDING: "No layer exceeds its limit by itself; small errors add up.",
    Kind.OTHER_CLASSES: "Images that the network never saw get another class than the checkpoint gives them.",
    Kind.BATCH: "What is computed of an image depends on the others in its batch.",
    Kind.CANNOT_RUN: "The library cannot run the folder.",
    Kind.CONFIGURATION: "A field of a file is not what the source and its catalogue say.",
    Kind.CHANGED: "A file was replaced, added or removed while the audit ran: what was found is not of one content.",
    Kind.FORGED_REPORT: "The report in the folder was edited: it does not follow from its own figures and digest.",
    Kind.STALE_REPORT: "The report in the folder is of other files.",
    Kind.PROVENANCE: "The folder's provenance is of other files, another checkpoint or other options.",
    Kind.SIGNATURE: "The folder's signature does not hold.",
}
"""An explanation of each kind for the readers of a report."""

RECORDS: Mapping[str, Kind] = {
    "parity.json": Kind.STALE_REPORT,
    "provenance.json": Kind.PROVENANCE,
    "model.sig": Kind.SIGNATURE,
}
"""Files that a folder holds about itself, and the kind of fault where what they say is not so."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    kind: Kind
    place: str
    """A parameter of the target, a layer of the network, a field of a file, or a reader."""
    detail: str
    """The figures, and what the fault looks like."""

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}, {self.detail}" if self.detail else f"{self.place}: {self.kind}"


FOLLOWS: Mapping[str, tuple[Kind, ...]] = {
    Kind.MISSING_TENSOR: (Kind.CANNOT_RUN,),
    Kind.UNEXPECTED_TENSOR: (Kind.CANNOT_RUN,),
    Kind.OTHER_SHAPE: (Kind.CANNOT_RUN,),
    Kind.NOT_A_NUMBER: (Kind.CANNOT_RUN,),
    "weight_standardization_eps": (Kind.STANDARDISATION_EPSILON, Kind.NO_STANDARDISATION),
    "num_groups": (Kind.GROUP_COUNT, Kind.CANNOT_RUN),
    "pool_padding": (Kind.MAX_POOL_PADDING,),
    "global_padding": (
        Kind.CONVOLUTION_PADDING,
        Kind.MAX_POOL_PADDING,
        Kind.POOLING,
        Kind.OTHER_SHAPE,
        Kind.UNKNOWN_ARITHMETIC,
    ),
    "hidden_act": (Kind.ACTIVATION, Kind.CANNOT_RUN, Kind.UNKNOWN_ARITHMETIC),
    "output_stride": (Kind.STRIDE, Kind.OTHER_SHAPE, Kind.CANNOT_RUN),
    "layer_type": (Kind.SHORTCUT, Kind.ACTIVATION, Kind.OTHER_SHAPE, Kind.CANNOT_RUN, Kind.UNKNOWN_ARITHMETIC),
    "embedding_dynamic_padding": (Kind.CONVOLUTION_PADDING, Kind.POOLING, Kind.OTHER_SHAPE, Kind.UNKNOWN_ARITHMETIC),
    "embedding_size": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "hidden_sizes": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "width_factor": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "depths": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "model_type": (Kind.CANNOT_RUN,),
    "architectures": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "architecture": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "num_classes": (Kind.CANNOT_RUN, Kind.OTHER_SHAPE),
    "model_args": (
        Kind.ACTIVATION,
        Kind.SHORTCUT,
        Kind.STRIDE,
        Kind.POOLING,
        Kind.OTHER_SHAPE,
        Kind.CANNOT_RUN,
        Kind.UNKNOWN_ARITHMETIC,
    ),
}
"""A kind of stored fault, or a word of the place of a field → kinds of computed faults that follow from it."""


def causes(found: Sequence[Fault], computed: Sequence[Fault] = ()) -> list[Fault]:
    """The faults of stored values and of files, and those computed ones that do not merely follow from them."""
    configured = [word for fault in found if fault.kind == Kind.CONFIGURATION for word in _words(fault.place)]
    follow = {kind for cause in (*(fault.kind for fault in found), *configured) for kind in FOLLOWS.get(cause, ())}
    return [*_joined(found), *(fault for fault in computed if fault.kind not in follow)]


def _joined(faults: Sequence[Fault]) -> list[Fault]:
    """The faults of one field of a file, such as the classes of ``id2label``, as one, with the others' places."""
    groups: list[list[Fault]] = []
    for fault in faults:
        known = next((group for group in groups if _of_one_field(group[0], fault)), None)
        if known is None:
            groups.append([fault])
        else:
            known.append(fault)
    return [_one(first, others) for first, *others in groups]


def _one(first: Fault, others: Sequence[Fault]) -> Fault:
    if not others:
        return first
    places = ", ".join(other.place for other in others) if len(others) < 3 else f"{len(others)} more such fields"
    return replace(first, detail=f"{first.detail}; and so {places}")


def _of_one_field(one: Fault, other: Fault) -> bool:
    read = one.kind == other.kind and one.kind in (Kind.CONFIGURATION, *RECORDS.values())
    return (
        read and one.place.split()[0] == other.place.split()[0] and bool({*_words(one.place)} & {*_words(other.place)})
    )


def _words(place: str) -> list[str]:
    """config.json hidden_sizes × width_factor → hidden_sizes, width_factor; of model_args.act_layer, model_args."""
    return [word.split(".")[0] for word in place.split()[1:] if word != "×"]
