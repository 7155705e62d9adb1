"""Layouts: how each kind of parameter is stored, in the folders that are written and in the files that are read.

A layout is one permutation of axes and one shape per kind of tensor; the way back is computed from them. The
exactness (``--exact``) is part of what is stored: ``bits`` keeps the source's values, ``logits`` stores standardised
kernels ten times as large, so that a library that hard-codes the standardisation epsilon 1e-8 computes exactly what
Google's 1e-10 does, since (10w - 10m) / sqrt(100v + 1e-8) = (w - m) / sqrt(v + 1e-10).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from converters.errors import DefectError
from converters.mapping.names import SCHEMES, Parameter, Shape, TensorKind
from converters.mapping.tiles import Array, outputs_first, outputs_last

Exact = Literal["bits", "logits"]

KERNEL_FACTOR = {"bits": 1, "logits": 10}
"""The factor of standardised kernels."""

STANDARDIZATION_EPSILON = {"bits": 1e-10, "logits": 1e-8}
"""The epsilon in config.json: Google's (big_transfer bit_pytorch/models.py, ``v + 1e-10``), or the one that
stock libraries hard-code, which ten times larger kernels turn into Google's."""


@dataclass(frozen=True)
class Form:
    """The storage of one kind of tensor: ``axes`` of Google's array in the stored order, of which the first
    ``drop`` axes of Google's, all of length 1, are left out; or after ``lift`` more axes of length 1."""

    axes: tuple[int, ...]
    drop: int = 0
    lift: int = 0

    def shape(self, google: Shape) -> Shape:
        return (1,) * self.lift + tuple(google[axis] for axis in self.axes)

    def fits(self, stored: Shape) -> bool:
        """Whether an array of this shape can be one of this form."""
        return len(stored) == self.lift + len(self.axes) and stored[: self.lift] == (1,) * self.lift

    def google_shape(self, stored: Shape) -> Shape:
        """The way back from ``shape``."""
        return (1,) * self.drop + tuple(stored[self.lift + axis] for axis in np.argsort(self.axes))

    def store(self, array: Array) -> Array:
        """Google's array → the stored one, a view where possible."""
        inner = array.reshape(array.shape[self.drop :]).transpose([axis - self.drop for axis in self.axes])
        return inner.reshape((1,) * self.lift + inner.shape)

    @property
    def is_outputs_first(self) -> bool:
        """HWIO → OIHW, or IO → OI: the permutations that are worth doing with care."""
        return not self.lift and self.axes in ((3, 2, 0, 1), (3, 2))

    def stored(self, array: Array) -> Array:
        """The same as ``store``, C-contiguous."""
        if not self.is_outputs_first:
            return np.ascontiguousarray(self.store(array))
        *_, inputs, outputs = array.shape
        out = np.empty((outputs, inputs, math.prod(array.shape[:-2])), array.dtype)
        outputs_first(array.reshape(-1, inputs, outputs), out)
        return out.reshape(self.shape(array.shape))

    def restore(self, array: Array) -> Array:
        """The stored array → Google's, a view where nothing has to be moved far."""
        if not self.is_outputs_first or not array.size:
            back = array.reshape(array.shape[self.lift :]).transpose(np.argsort(self.axes))
            return back.reshape((1,) * self.drop + back.shape)
        outputs, inputs, *window = array.shape
        out = np.empty((math.prod(window), inputs, outputs), array.dtype)
        outputs_last(np.ascontiguousarray(array).reshape(outputs, inputs, -1), out)
        return out.reshape(self.google_shape(array.shape))


@dataclass(frozen=True)
class Layout:
    """A column in the table of names, whose name it has, and the form of each kind of tensor in it.

    ``also`` are forms that are read as well as the one that is written: files of one scheme differ in whether the
    head's kernel, or a norm, keeps its axes of length 1.
    """

    name: str
    forms: Mapping[TensorKind, Form]
    also: Mapping[TensorKind, Form] = field(default_factory=dict)

    def parameter_name(self, parameter: Parameter) -> str:
        return parameter.names[self.name]

    def shape(self, parameter: Parameter) -> Shape:
        return self.forms[parameter.kind].shape(parameter.shape)

    def google_shape(self, kind: TensorKind, stored: Shape) -> Shape:
        """The shape in Google's layout of a stored tensor; the stored one itself where no form has it."""
        form = self._form(kind, stored)
        return form.google_shape(stored) if form else stored

    def store(self, parameter: Parameter, array: Array, exact: Exact) -> Array:
        """Returns the stored array of a source tensor: C-contiguous, of the source's dtype."""
        return scaled(self.forms[parameter.kind].stored(array), parameter.kind, exact)

    def restore(self, kind: TensorKind, array: Array, exact: Exact = "bits") -> Array:
        """Returns the source's array of a stored tensor: C-contiguous, of the stored dtype.

        The bits are the source's; those of a kernel stored by ``logits`` within one unit in the last place, since a
        division undoes a rounded multiplication for only 85 % of the values. Raises ValueError for a shape that no
        form of the kind has.
        """
        form = self._form(kind, array.shape)
        if form is None:
            raise ValueError(f"no {kind.value} of the {self.name} layout has the shape {array.shape}")
        back = np.ascontiguousarray(form.restore(array))
        if exact == "logits" and kind is TensorKind.KERNEL:
            back = back / back.dtype.type(KERNEL_FACTOR[exact])
        return back

    def is_googles(self, kind: TensorKind) -> bool:
        """Whether the values lie in the order of Google's layout."""
        return all(form.axes == tuple(sorted(form.axes)) for form in (self.forms[kind], *self._also(kind)))

    def _form(self, kind: TensorKind, stored: Shape) -> Form | None:
        return next((form for form in (self.forms[kind], *self._also(kind)) if form.fits(stored)), None)

    def _also(self, kind: TensorKind) -> list[Form]:
        return [self.also[kind]] if kind in self.also else []


def scaled(values: Array, kind: TensorKind, exact: Exact, out: Array | None = None) -> Array:
    """The source's values, or of kernels by ``logits`` ten times those, in ``out`` where it is given."""
    if exact == "bits" or kind is not TensorKind.KERNEL:
        return values
    with np.errstate(over="ignore"):  # an overflow becomes inf, which no verification passes
        multiplied: Array = np.multiply(values, values.dtype.type(KERNEL_FACTOR[exact]), out=out)
    return multiplied


_HWIO, _OIHW = Form((0, 1, 2, 3)), Form((3, 2, 0, 1))
_IO, _OI = Form((2, 3), drop=2), Form((3, 2), drop=2)
_VECTOR = Form((0,))


def _forms(kernel: Form, head: Form, norm: Form = _VECTOR) -> dict[TensorKind, Form]:
    return {
        TensorKind.KERNEL: kernel,
        TensorKind.SCALE: norm,
        TensorKind.BIAS: norm,
        TensorKind.HEAD_KERNEL: head,
        TensorKind.HEAD_BIAS: _VECTOR,
    }


TRANSFORMERS = Layout("transformers", _forms(_OIHW, _OI), {TensorKind.HEAD_KERNEL: _OIHW})
TIMM = Layout("timm", _forms(_OIHW, _OIHW), {TensorKind.HEAD_KERNEL: _OI})
ORIGINAL = Layout("original", _forms(_OIHW, _OIHW), {TensorKind.HEAD_KERNEL: _OI})
NPZ = Layout("npz", _forms(_HWIO, _HWIO), {TensorKind.HEAD_KERNEL: _IO})
KERAS = Layout("keras", _forms(_HWIO, _IO), {TensorKind.HEAD_KERNEL: _HWIO})
TF2 = Layout("tf2", _forms(_HWIO, _IO), {TensorKind.HEAD_KERNEL: _HWIO})
BIG_VISION = Layout(
    "big_vision",
    _forms(_HWIO, _IO, Form((0,), lift=3)),
    {TensorKind.SCALE: _VECTOR, TensorKind.BIAS: _VECTOR, TensorKind.HEAD_KERNEL: _HWIO},
)

LAYOUTS = {layout.name: layout for layout in (TRANSFORMERS, TIMM, ORIGINAL, NPZ)}
"""The layouts that can be written."""
READ_ONLY = (KERAS, TF2, BIG_VISION)
"""The layouts that can be read besides."""
BY_SCHEME = {layout.name: layout for layout in (*LAYOUTS.values(), *READ_ONLY)}
"""The layouts that can be read: one for each column of the table."""


def _refuse_other_columns() -> None:
    """Raises DefectError where a column has no layout to read it with, or a layout no column."""
    for scheme in {*SCHEMES} ^ {*BY_SCHEME}:
        missing = "no layout in READ_ONLY" if scheme in SCHEMES else "no column in converters/mapping/names.py"
        raise DefectError(f"converters/mapping/layouts.py: column {scheme}: it has {missing}.")


_refuse_other_columns()
