"""Faults: what is wrong with a port, where, and the kinds that a diagnosis can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self


class Kind(StrEnum):
    """A kind of fault that a diagnosis can name, as parity.json has it."""

    meaning: str
    """An explanation for the readers of a report."""

    def __new__(cls, name: str, meaning: str) -> Self:
        self = str.__new__(cls, name)
        self._value_, self.meaning = name, meaning
        return self

    # what is stored
    MIRRORED_KERNEL = "mirrored kernel", "A kernel is flipped along its height, its width or both."
    TRANSPOSED_KERNEL = "transposed kernel", "A tensor has its axes in another order."
    RESHAPED_TENSOR = (
        "reshaped tensor",
        "A tensor holds the same bytes in another shape, as reshape, not transpose, leaves them.",
    )
    SWAPPED_TENSORS = "swapped tensors", "A tensor holds what another one of its shape must hold."
    PERMUTED_CHANNELS = "permuted channels", "A tensor holds the right channels in another order."
    PERMUTED_LABELS = "permuted labels", "The head holds the right classes in another order."
    SHIFTED_LABELS = "shifted labels", "The head's classes are shifted by a fixed number of places."
    REDUCED_PRECISION = "reduced precision", "Values went through a narrower format, or the network computes in one."
    SCALED_VALUES = "scaled values", "A tensor, or the logits, are a multiple of what they must be."
    DROPPED_VALUES = "dropped values", "A tensor is all zeros where it must not be."
    CONSTANT_VALUES = "constant values", "A tensor holds one value everywhere, as a fresh layer does."
    STANDARDISED_KERNEL = "standardised kernel", "A kernel is stored standardised; the network standardises it again."
    SHIFTED_VALUES = "shifted values", "A number was added to every value of a tensor."
    OTHER_FUNCTION = "other function", "A tensor holds a function of what it must be, such as squares."
    BYTE_ORDER = "byte order", "The bytes of each value are in reverse order."
    CHANGED_VALUES = "changed values", "Some values of a tensor are others."
    OTHER_VALUES = "other values", "A tensor holds values of unknown origin."
    OTHER_CHECKPOINT = "other checkpoint", "Nearly every tensor holds other values: these are another checkpoint's."
    NOT_A_NUMBER = "not a number", "A stored value is NaN or Inf."
    OTHER_DTYPE = "other dtype", "A tensor is stored in another format than the rest."
    OTHER_SHAPE = "other shape", "A tensor, stored or computed, has another shape."
    MISSING_TENSOR = "missing tensor", "A tensor has no place, or a parameter has no value."
    UNEXPECTED_TENSOR = (
        "unexpected tensor",
        "There is a tensor that the checkpoint's network has not, or one used twice.",
    )
    # how it is computed
    STANDARDISATION_EPSILON = (
        "standardisation epsilon",
        "Kernels are standardised with another epsilon than Google's 1e-10.",
    )
    NO_STANDARDISATION = "no standardisation", "Kernels are not standardised, or not as Google's code does it."
    NORM_EPSILON = "norm epsilon", "Group norms have another epsilon than Google's 1e-5."
    GROUP_COUNT = "group count", "Group norms have another number of groups than 32."
    GROUP_NORM = "group norm", "Group norms normalise, scale or shift in another way."
    MAX_POOL_PADDING = "max-pool padding", "The stem's max-pool is surrounded by other values."
    POOLING = "pooling", "The stem or the end of the network pools in another way."
    STRIDE = "stride", "A stride is another one, or on another convolution, or became a dilation."
    CONVOLUTION_PADDING = "convolution padding", "Convolutions are padded in another way, as by TensorFlow's SAME."
    ACTIVATION = "activation", "An activation is missing, another one, or in another place."
    SHORTCUT = "shortcut", "A shortcut starts elsewhere."
    DROPPED_BIAS = "dropped bias", "The head's bias is not added."
    UNKNOWN_ARITHMETIC = "unknown arithmetic", "A layer computes something else, in no way known."
    ROUNDING = "rounding", "No layer exceeds its limit by itself; small errors add up."
    OTHER_CLASSES = (
        "other classes",
        "Images that the network never saw get another class than the checkpoint gives them.",
    )
    BATCH = "batch", "What is computed of an image depends on the others in its batch."
    CANNOT_RUN = "cannot run", "The library cannot run the folder."
    # what the files say
    CONFIGURATION = "configuration", "A field of a file is not what the source and its catalogue say."
    CHANGED = (
        "changed while audited",
        "A file was replaced, added or removed while the audit ran: what was found is not of one content.",
    )
    FORGED_REPORT = (
        "forged report",
        "The report in the folder was edited: it does not follow from its own figures and digest.",
    )
    STALE_REPORT = "stale report", "The report in the folder is of other files."
    PROVENANCE = "provenance", "The folder's provenance is of other files, another checkpoint or other options."
    SIGNATURE = "signature", "The folder's signature does not hold."


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
