"""Faults: what is wrong with a port, where, and the kinds that a diagnosis can name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    kind: str
    """A key of ``KINDS``."""
    place: str
    """A parameter of the target, a layer of the network, a field of a file, or a reader."""
    detail: str
    """The figures, and what the fault looks like."""

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}, {self.detail}" if self.detail else f"{self.place}: {self.kind}"


CHANGED = "changed while audited"
OTHER_CLASSES = "other classes"

KINDS = {
    # what is stored
    "mirrored kernel": "A kernel is flipped along its height, its width or both.",
    "transposed kernel": "A tensor has its axes in another order.",
    "reshaped tensor": "A tensor holds the same bytes in another shape, as reshape leaves them instead of transpose.",
    "swapped tensors": "A tensor holds what another one of its shape must hold.",
    "permuted channels": "A tensor holds the right channels in another order.",
    "permuted labels": "The head holds the right classes in another order.",
    "shifted labels": "The head's classes are shifted by a fixed number of places.",
    "reduced precision": "Values went through a narrower format, or the network computes in one.",
    "scaled values": "A tensor, or the logits, are a multiple of what they must be.",
    "dropped values": "A tensor is all zeros where it must not be.",
    "constant values": "A tensor holds one value everywhere, as a fresh layer does.",
    "standardised kernel": "A kernel is stored standardised; the network standardises it again.",
    "shifted values": "A number was added to every value of a tensor.",
    "other function": "A tensor holds a function of what it must be, such as squares.",
    "byte order": "The bytes of each value are in reverse order.",
    "changed values": "Some values of a tensor are others.",
    "other values": "A tensor holds values of unknown origin.",
    "other checkpoint": "Nearly every tensor holds other values: these are another checkpoint's.",
    "not a number": "A stored value is NaN or Inf.",
    "other dtype": "A tensor is stored in another format than the rest.",
    "other shape": "A tensor, stored or computed, has another shape.",
    "missing tensor": "A tensor has no place, or a parameter has no value.",
    "unexpected tensor": "There is a tensor that the checkpoint's network has not, or one used twice.",
    # how it is computed
    "standardisation epsilon": "Kernels are standardised with another epsilon than Google's 1e-10.",
    "no standardisation": "Kernels are not standardised, or not as Google's code does it.",
    "norm epsilon": "Group norms have another epsilon than Google's 1e-5.",
    "group count": "Group norms have another number of groups than 32.",
    "group norm": "Group norms normalise, scale or shift in another way.",
    "max-pool padding": "The stem's max-pool is surrounded by other values.",
    "pooling": "The stem or the end of the network pools in another way.",
    "stride": "A stride is another one, or on another convolution, or became a dilation.",
    "convolution padding": "Convolutions are padded in another way, as by TensorFlow's SAME.",
    "activation": "An activation is missing, another one, or in another place.",
    "shortcut": "A shortcut starts elsewhere.",
    "dropped bias": "The head's bias is not added.",
    "unknown arithmetic": "A layer computes something else, in no way known.",
    "rounding": "No layer departs by itself; small errors add up.",
    OTHER_CLASSES: "Images that the network never saw get another class than the checkpoint gives them.",
    "batch": "What is computed of an image depends on the others in its batch.",
    "cannot run": "The library cannot run the folder.",
    # what the files say
    "configuration": "A field of a file is not what the source and its catalogue say.",
    CHANGED: "A file was replaced, added or removed while the audit ran: what was found is not of one content.",
    "forged report": "The report in the folder was edited: it does not follow from its own figures and digest.",
    "stale report": "The report in the folder is of other files.",
}

FOLLOWS: Mapping[str, tuple[str, ...]] = {
    "missing tensor": ("cannot run",),
    "unexpected tensor": ("cannot run",),
    "other shape": ("cannot run",),
    "not a number": ("cannot run",),
    "weight_standardization_eps": ("standardisation epsilon", "no standardisation"),
    "num_groups": ("group count", "cannot run"),
    "pool_padding": ("max-pool padding",),
    "global_padding": ("convolution padding", "max-pool padding", "pooling", "other shape", "unknown arithmetic"),
    "hidden_act": ("activation", "cannot run", "unknown arithmetic"),
    "output_stride": ("stride", "other shape", "cannot run"),
    "layer_type": ("shortcut", "activation", "other shape", "cannot run", "unknown arithmetic"),
    "embedding_dynamic_padding": ("convolution padding", "pooling", "other shape", "unknown arithmetic"),
    "embedding_size": ("cannot run", "other shape"),
    "hidden_sizes": ("cannot run", "other shape"),
    "width_factor": ("cannot run", "other shape"),
    "depths": ("cannot run", "other shape"),
    "model_type": ("cannot run",),
    "architectures": ("cannot run", "other shape"),
    "architecture": ("cannot run", "other shape"),
    "num_classes": ("cannot run", "other shape"),
    "model_args": ("activation", "shortcut", "stride", "pooling", "other shape", "cannot run", "unknown arithmetic"),
}
"""A kind of stored fault, or a word of the place of a field → kinds of computed faults that follow from it."""


def causes(found: Sequence[Fault], computed: Sequence[Fault] = ()) -> list[Fault]:
    """The faults of stored values and of files, and those computed ones that do not merely follow from them."""
    configured = [word for fault in found if fault.kind == "configuration" for word in _words(fault.place)]
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
    read = one.kind == other.kind and one.kind in ("configuration", "stale report")
    return (
        read and one.place.split()[0] == other.place.split()[0] and bool({*_words(one.place)} & {*_words(other.place)})
    )


def _words(place: str) -> list[str]:
    """config.json hidden_sizes × width_factor → hidden_sizes, width_factor; of model_args.act_layer, model_args."""
    return [word.split(".")[0] for word in place.split()[1:] if word != "×"]
