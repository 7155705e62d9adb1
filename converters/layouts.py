"""Layouts: how each kind of parameter is stored in a converted folder.

A layout is one permutation of axes and one shape per kind of tensor; the way back is computed from them. The
``--exact`` answer is part of what is stored: ``bits`` keeps the source's values, ``logits`` stores standardised
kernels ten times as large, so that a library that hard-codes the standardisation epsilon 1e-8 computes exactly what
Google's 1e-10 does, since (10w - 10m) / sqrt(100v + 1e-8) = (w - m) / sqrt(v + 1e-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from converters.names import Kind, Parameter, Shape

Array = npt.NDArray[Any]
Exact = Literal["bits", "logits"]

KERNEL_FACTOR = {"bits": 1, "logits": 10}
"""What standardised kernels are multiplied by."""

STANDARDIZATION_EPSILON = {"bits": 1e-10, "logits": 1e-8}
"""What config.json declares: Google's epsilon (big_transfer bit_pytorch/models.py, ``v + 1e-10``), or the one that
stock libraries hard-code, which ten times larger kernels turn into Google's."""


@dataclass(frozen=True)
class Form:
    """How one kind of tensor is stored: ``axes`` of Google's array in the stored order, of which the first
    ``drop`` axes of Google's, all of length 1, are left out."""

    axes: tuple[int, ...]
    drop: int = 0

    def shape(self, google: Shape) -> Shape:
        return tuple(google[axis] for axis in self.axes)

    def store(self, array: Array) -> Array:
        """Google's array → the stored one, a view where possible."""
        return array.reshape(array.shape[self.drop :]).transpose([axis - self.drop for axis in self.axes])

    def restore(self, array: Array) -> Array:
        """The stored array → Google's."""
        back = array.transpose(np.argsort(self.axes))
        return back.reshape((1,) * self.drop + back.shape)


@dataclass(frozen=True)
class Layout:
    """A folder layout: its column in the table of names, and the form of each kind of tensor."""

    name: str
    scheme: str
    forms: Mapping[Kind, Form]

    def parameter_name(self, parameter: Parameter) -> str:
        return parameter.names[self.scheme]

    def shape(self, parameter: Parameter) -> Shape:
        return self.forms[parameter.kind].shape(parameter.shape)

    def store(self, parameter: Parameter, array: Array, exact: Exact) -> Array:
        """What the folder holds for a source tensor: C-contiguous, of the source's dtype."""
        stored = np.ascontiguousarray(self.forms[parameter.kind].store(array))
        if exact == "logits" and parameter.kind is Kind.KERNEL:
            with np.errstate(over="ignore"):  # an overflow becomes inf, which no verification passes
                stored = stored * stored.dtype.type(KERNEL_FACTOR[exact])
        return stored


_OIHW = Form((3, 2, 0, 1))
_VECTOR = Form((0,))

TRANSFORMERS = Layout(
    "transformers",
    scheme="transformers",
    forms={
        Kind.KERNEL: _OIHW,
        Kind.SCALE: _VECTOR,
        Kind.BIAS: _VECTOR,
        Kind.HEAD_KERNEL: Form((3, 2), drop=2),
        Kind.HEAD_BIAS: _VECTOR,
    },
)

LAYOUTS = {layout.name: layout for layout in (TRANSFORMERS,)}
