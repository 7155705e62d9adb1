"""Arithmetics that are not BiT's: each a known fault of a port, as an oracle that makes it, in float64.

DEVIATIONS → ``Deviation.oracle()`` → a NumpyOracle whose layers are wrong in one known way, everywhere or in one tensor

A fault that has a number (an epsilon, a slope) is a ``Family``: its usual values are rows, any other is searched for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verify.diagnosis.alternatives import (
    ACTIVATIONS,
    NORMS,
    POOLS,
    STANDARDISATIONS,
    STEM_POOLS,
    Function,
    Norm,
    Standardisation,
    leaky,
    windows,
)
from verify.diagnosis.right_steps import SharingOracle
from verify.faults import Kind
from verify.oracles.numpy import Arithmetic
from verify.oracles.numpy.convolution import multiplied
from verify.protocols import Tensors

Array = npt.NDArray[Any]

Part = Literal["kernel", "norm", "convolution", "stem", "unit", "pool"]
"""The part of a layer that a fault touches. Kernels and norms may be wrong one at a time."""

PARTS: Mapping[str, tuple[Part, ...]] = {
    "root": ("kernel", "convolution", "stem"),
    "norm": ("norm",),
    "features": ("pool",),
}
"""Layer → its parts; the units have the others."""
PARTS_OF_A_UNIT: tuple[Part, ...] = ("kernel", "norm", "convolution", "unit")


def parts_of(layer: str) -> tuple[Part, ...]:
    return PARTS.get(layer, PARTS_OF_A_UNIT)


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


class Suspect(SharingOracle):
    """An oracle with a knob for each structure that ports get wrong; where none is turned, it is the right one."""

    standardises: Standardisation = Standardisation()
    normalises: Norm = Norm()
    activates: Function = staticmethod(relu)
    pools: Function | None = None
    """The stem's pooling; None is the right max-pool."""
    averages: Function = staticmethod(lambda maps: maps.mean(axis=1))
    """The pooling of the features."""
    stem_activates = False
    stem_stride = 2
    stride_on = "b"
    stride: int | None = None
    """The stride of the unit, whatever is right there."""
    dilation = 1
    shortcut = "activation"
    adds_shortcut = True
    branch_scale = 1.0
    relu_after_add = False
    pads = "constant"
    """The padding of 3×3 convolutions and of the stem's: a mode of np.pad, ``same`` as TensorFlow, or ``none``."""

    _here = True

    def __init__(self, deviation: Deviation, source: Tensors, right: Arithmetic, only: str) -> None:
        early = {name: value for name, value in deviation.constants.items() if name == "pool_padding"}
        super().__init__(source, float32_runs=0, arithmetic=replace(right, **early))
        self.part, self.only = deviation.part, only
        self.wrong = {name: value for name, value in deviation.constants.items() if name not in early}
        vars(self).update(deviation.knobs)

    def _step(self, name: str, streams: list[Any]) -> list[Any]:
        if name == "features":
            self._features = [
                replace(maps, images=[self.averages(x.reshape(len(x), -1)) for x in maps.images]) for maps in streams
            ]
            return self._features
        return super()._step(name, streams)

    def _unit(self, at: str, streams: list[Any], stride: int) -> list[Any]:
        stride = self.stride or stride
        strides = {name: stride if name == self.stride_on else 1 for name in "abc"}
        preactivated = self._norm(at + "a/", streams)
        identity = self._identity(at, streams, preactivated, stride)
        branch = self._conv(at + "a/", preactivated, stride=strides["a"])
        branch = self._conv(at + "b/", self._norm(at + "b/", branch), size=3, stride=strides["b"])
        branch = self._conv(at + "c/", self._norm(at + "c/", branch), stride=strides["c"], like=identity)
        branch = [replace(b, images=[self.branch_scale * x for x in b.images]) for b in branch]
        if self.adds_shortcut:
            branch = [b + i for b, i in zip(branch, identity, strict=True)]
        if self.relu_after_add:
            branch = [replace(maps, images=[relu(x) for x in maps.images]) for maps in branch]
        return branch

    def _identity(self, at: str, streams: list[Any], preactivated: list[Any], stride: int) -> list[Any]:
        if at + "a/proj/standardized_conv2d/kernel" not in self.source.shapes:
            return preactivated if self.shortcut == "always activation" else streams
        taken = streams if self.shortcut == "input" else preactivated
        if self.shortcut == "averaged" and stride > 1:
            taken = [replace(m, images=[windows(x, 2, 2).mean(axis=(3, 4)) for x in _even(m.images)]) for m in taken]
            stride = 1
        return self._conv(at + "a/proj/", taken, 1, stride)

    def _norm(self, at: str, streams: list[Any]) -> list[Any]:
        self._here = at.startswith(self.only)
        return super()._norm(at, streams)

    def _normed(self, x: Array, scale: Array, bias: Array, arithmetic: Arithmetic) -> Array:
        if not self._here:
            return super()._normed(x, scale, bias, arithmetic)
        wrong = self._arithmetic()
        y = self.normalises(x, scale, bias, wrong.groups, wrong.norm_epsilon)
        return np.asarray(self.activates(y), x.dtype)

    def _arithmetic(self) -> Arithmetic:
        return replace(self.arithmetic, **self.wrong)

    def _conv(self, at: str, streams: list[Any], *options: Any, **more: Any) -> list[Any]:
        self._here = at == self.only or not self.only
        return super()._conv(at, streams, *options, **more)

    def _is_right_norm(self, at: str) -> bool:
        return not (self.part == "norm" and self._here)

    def _is_right_conv(self, at: str) -> bool:
        return self.part == "norm" or (self.part == "kernel" and not self._here)

    def _convolved(self, kernel: Array, streams: Sequence[Any], size: int, stride: int) -> list[list[Array]]:
        if not self._here:
            return super()._convolved(kernel, streams, size, stride)
        stride = self.stem_stride if size == 7 else stride
        epsilon = self._arithmetic().standardization_epsilon
        wide = self.standardises(kernel.astype(np.float64), epsilon).reshape(-1, kernel.shape[-1])
        matrices = [np.asarray(wide, maps.precision) for maps in streams]
        return [
            [self._outputs(x, matrix, size, stride) for x in maps.images]
            for maps, matrix in zip(streams, matrices, strict=True)
        ]

    def _outputs(self, x: Array, matrix: Array, size: int, stride: int) -> Array:
        if size == 1 or (self.pads == "constant" and self.dilation == 1):
            y = multiplied(matrix, x, size, stride)
        else:
            y = (self._same if self.pads == "same" else self._padded)(x, matrix, size, stride)
        return relu(y) if size == 7 and self.stem_activates else y

    def _same(self, x: Array, matrix: Array, size: int, stride: int) -> Array:
        """TensorFlow's: one more after than before where the sum is odd."""
        dense = multiplied(matrix, x, size, 1)
        _, height, width = x.shape
        if stride == 1:
            return dense
        return dense[:, 1 - height % 2 :: stride, 1 - width % 2 :: stride]

    def _padded(self, x: Array, matrix: Array, size: int, stride: int) -> Array:
        dilation = self.dilation if size == 3 else 1
        reach = size // 2 * dilation
        if self.pads != "none":
            mode: Any = self.pads
            x = np.pad(x, ((0, 0), (reach, reach), (reach, reach)), mode=mode)
        taps = windows(x, 2 * reach + 1, stride)[..., ::dilation, ::dilation]
        columns = taps.transpose(3, 4, 0, 1, 2).reshape(len(matrix), -1)
        return np.asarray((matrix.T @ columns).reshape(-1, *taps.shape[1:3]))

    def _pool(self, x: Array, pool_padding: str) -> Array:
        return super()._pool(x, pool_padding) if self.pools is None else np.asarray(self.pools(x))


def _even(images: Any) -> list[Array]:
    """An even height and width, by one more row and column of zeros."""
    return [np.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2))) for x in images]


@dataclass(frozen=True)
class Deviation:
    """One wrong arithmetic."""

    kind: Kind
    detail: str
    part: Part
    constants: Mapping[str, Any] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_one_tensor(self) -> bool:
        """Whether a port may have it in a single kernel or norm."""
        return self.part in ("kernel", "norm")

    def oracle(self, source: Tensors, right: Arithmetic, only: str = "") -> Suspect:
        """The oracle that makes this fault; ``right`` are the constants of the checkpoint, ``only`` what the name of
        the one kernel or norm begins with that is wrong."""
        return Suspect(self, source, right, only)


@dataclass(frozen=True)
class Family:
    """A wrong arithmetic for each number, of which any may have been taken; searched from ``low`` to ``high``."""

    part: Part
    low: float
    high: float
    deviation: Callable[[float], Deviation]


def _rows(kind: Kind, part: Part, knob: str, table: Mapping[str, Any]) -> list[Deviation]:
    return [Deviation(kind, detail, part, knobs={knob: value}) for detail, value in table.items()]


def _epsilon(value: float) -> Deviation:
    stock = ", as stock transformers and timm have it," if value == 1e-8 else ""
    detail = f"{value:.3g}{stock} instead of 1e-10" + ("" if value else ", as if standardised twice")
    return Deviation(Kind.STANDARDISATION_EPSILON, detail, "kernel", {"standardization_epsilon": value})


def _norm_epsilon(value: float) -> Deviation:
    return Deviation(Kind.NORM_EPSILON, f"{value:.3g} instead of 1e-05", "norm", {"norm_epsilon": value})


def _groups(value: int) -> Deviation:
    return Deviation(Kind.GROUP_COUNT, f"{value} groups instead of 32", "norm", {"groups": value})


def _slope(value: float) -> Deviation:
    detail = f"leaky ReLU with the slope {value:.3g}"
    return Deviation(Kind.ACTIVATION, detail, "norm", knobs={"activates": leaky(value)})


def _branch(value: float) -> Deviation:
    detail = f"the branch is added {value:.3g} times as large"
    return Deviation(Kind.SCALED_VALUES, detail, "unit", knobs={"branch_scale": value})


def _unbiased(epsilon: float) -> Deviation:
    detail = f"with the unbiased variance (n - 1) and the epsilon {epsilon:.3g}"
    knobs = {"standardises": Standardisation(correction=1)}
    return Deviation(Kind.NO_STANDARDISATION, detail, "kernel", {"standardization_epsilon": epsilon}, knobs)


# fmt: off
DEVIATIONS = (
    *map(_epsilon, (1e-8, 1e-5, 1e-6, 1e-7, 1e-9, 1e-12, 1e-3, 0.0)),
    *map(_norm_epsilon, (1e-6, 1e-3, 1e-4, 1e-8, 1e-12, 0.0)),
    *map(_groups, (16, 64, 8, 4, 2, 1)),
    *(Deviation(Kind.MAX_POOL_PADDING, f"the stem is surrounded by {value}", "stem", {"pool_padding": value})
      for value in ("-inf", "zeros")),
    *_rows(Kind.POOLING, "stem", "pools", STEM_POOLS),
    Deviation(Kind.STRIDE, "on the first 1×1 convolution instead of the 3×3", "unit", knobs={"stride_on": "a"}),
    Deviation(Kind.STRIDE, "on the last 1×1 convolution instead of the 3×3", "unit", knobs={"stride_on": "c"}),
    Deviation(Kind.STRIDE, "1 instead of 2", "unit", knobs={"stride": 1}),
    Deviation(Kind.STRIDE, "2 instead of 1", "unit", knobs={"stride": 2}),
    Deviation(Kind.STRIDE, "1 instead of 2, and a dilation", "unit", knobs={"stride": 1, "dilation": 2}),
    Deviation(Kind.STRIDE, "the 3×3 convolution is dilated", "unit", knobs={"dilation": 2}),
    Deviation(Kind.STRIDE, "1 instead of 2 in the stem's convolution", "stem", knobs={"stem_stride": 1}),
    Deviation(Kind.CONVOLUTION_PADDING, "uneven, as TensorFlow's SAME", "convolution", knobs={"pads": "same"}),
    *(Deviation(Kind.CONVOLUTION_PADDING, text, "convolution", knobs={"pads": mode}) for text, mode in (
        ("the edge repeated instead of zeros", "edge"), ("reflected instead of zeros", "reflect"),
        ("from the other side instead of zeros", "wrap"), ("none", "none"))),
    Deviation(Kind.ACTIVATION, "ReLU after the addition", "unit", knobs={"relu_after_add": True}),
    Deviation(Kind.ACTIVATION, "ReLU after the stem's convolution", "stem", knobs={"stem_activates": True}),
    *_rows(Kind.ACTIVATION, "norm", "activates", ACTIVATIONS),
    Deviation(Kind.SHORTCUT, "projected from the unit's input, not from its activation", "unit",
            knobs={"shortcut": "input"}),
    Deviation(Kind.SHORTCUT, "always from the activation", "unit", knobs={"shortcut": "always activation"}),
    Deviation(Kind.SHORTCUT, "averaged before it is projected", "unit", knobs={"shortcut": "averaged"}),
    Deviation(Kind.SHORTCUT, "not added", "unit", knobs={"adds_shortcut": False}),
    Deviation(Kind.SHORTCUT, "alone: the branch is not added", "unit", knobs={"branch_scale": 0.0}),
    *_rows(Kind.NO_STANDARDISATION, "kernel", "standardises", STANDARDISATIONS),
    *map(_unbiased, (1e-8, 1e-5, 1e-6, 1e-12)),
    *_rows(Kind.GROUP_NORM, "norm", "normalises", NORMS),
    *_rows(Kind.POOLING, "pool", "averages", POOLS),
)
"""The likelier ones of a kind first."""

FAMILIES = (
    Family("kernel", 1e-14, 1.0, _epsilon),
    Family("kernel", 1e-14, 1.0, _unbiased),
    Family("norm", 1e-14, 1.0, _norm_epsilon),
    Family("norm", 1e-4, 0.99, _slope),
    Family("unit", 1e-3, 10.0, _branch),
)
"""Any number of a kind."""
# fmt: on
