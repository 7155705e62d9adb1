"""Faults: what is wrong with a port, where, and the kinds that a diagnosis can name."""

from __future__ import annotations

from dataclasses import dataclass


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
    "reshaped tensor": "A tensor's values were read in another order of axes, as reshape does instead of transpose.",
    "swapped tensors": "A tensor holds what another one of its shape must hold.",
    "permuted channels": "A tensor holds the right channels in another order.",
    "permuted labels": "The head holds the right classes in another order.",
    "shifted labels": "The head's classes are shifted by a fixed number of places.",
    "reduced precision": "Values went through a narrower format, or the network computes in one.",
    "scaled values": "A tensor is a multiple of what it must be.",
    "dropped values": "A tensor is all zeros where it must not be.",
    "constant values": "A tensor holds one value everywhere, as a fresh layer does.",
    "standardised kernel": "A kernel is stored standardised; the network standardises it again.",
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
    "max-pool padding": "The stem's max-pool is surrounded by other values.",
    "pooling": "The stem or the end of the network pools in another way.",
    "stride": "A stride is on another convolution.",
    "convolution padding": "Convolutions pad unevenly, as TensorFlow's SAME does.",
    "activation": "An activation is missing, another one, or in another place.",
    "shortcut": "A shortcut starts elsewhere.",
    "dropped bias": "The head's bias is not added.",
    "unknown arithmetic": "A layer computes something else, in no way known.",
    "rounding": "No layer departs by itself; small errors add up.",
    OTHER_CLASSES: "Images that the network never saw get another class than the checkpoint gives them.",
    "cannot run": "The library cannot run the folder.",
    # what the files say
    "configuration": "A field of a file is not what the source and its catalogue say.",
    CHANGED: "A file was replaced, added or removed while the audit ran: what was found is not of one content.",
    "stale report": "The report in the folder is of other files.",
}
