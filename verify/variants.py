"""Arithmetics that are not BiT's: each a known fault of a port, as an oracle that makes it, in float64.

VARIANTS → ``Variant.oracle()`` → a NumpyOracle whose layers are wrong in one known way
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.numpy import Arithmetic, NumpyOracle
from verify.protocols import Tensors

Array = npt.NDArray[Any]


class Suspect(NumpyOracle):
    """An oracle with a knob for each structure that ports get wrong; as it stands it is the right one."""

    stride_on = "b"
    shortcut = "activation"
    adds_shortcut = True
    relu_after_add = False
    activates = True
    standardizes = True
    correction = 0
    pads_same = False
    pools = "max"

    def _unit(self, at: str, streams: list[Any], stride: int) -> list[Any]:
        strides = {name: stride if name == self.stride_on else 1 for name in "abc"}
        preactivated = self._norm(at + "a/", streams)
        identity = streams
        if at + "a/proj/standardized_conv2d/kernel" in self.source.shapes:
            identity = self._conv(at + "a/proj/", preactivated if self.shortcut == "activation" else streams, 1, stride)
        elif self.shortcut == "always activation":
            identity = preactivated
        branch = self._conv(at + "a/", preactivated, stride=strides["a"])
        branch = self._conv(at + "b/", self._norm(at + "b/", branch), size=3, stride=strides["b"])
        branch = self._conv(at + "c/", self._norm(at + "c/", branch), stride=strides["c"])
        if self.adds_shortcut:
            branch = [b + i for b, i in zip(branch, identity, strict=True)]
        if self.relu_after_add:
            for maps in branch:
                for image in maps.images:
                    np.maximum(image, 0, out=image)
        return branch

    def _normed(self, x: Array, scale: Array, bias: Array) -> Array:
        from verify.oracles.numpy import _group_norm

        if self.activates:
            return super()._normed(x, scale, bias)
        return _group_norm(x, scale, bias, self.arithmetic.groups, self.arithmetic.norm_epsilon)

    def _matrix(self, kernel: Array, rows: Array | None, columns: Array | None, dtype: Any) -> Array:
        matrix = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
        if not self.standardizes:
            return matrix
        variance = matrix.var(axis=0, ddof=self.correction)
        return np.asarray((matrix - matrix.mean(axis=0)) / np.sqrt(variance + self.arithmetic.standardization_epsilon))

    def _convolved(self, x: Array, matrix: Array, size: int, stride: int) -> Array:
        if not self.pads_same or stride == 1 or size == 1:
            return super()._convolved(x, matrix, size, stride)
        dense = super()._convolved(x, matrix, size, 1)
        _, height, width = x.shape
        return dense[:, 1 - height % 2 :: stride, 1 - width % 2 :: stride]  # SAME begins one later on an even edge

    def _pool(self, x: Array) -> Array:
        if self.pools == "max":
            return super()._pool(x)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        if self.pools == "unpadded":
            padded = x
        if self.pools == "one-sided":
            padded = np.pad(x, ((0, 0), (0, 1), (0, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
        pooled: Array = windows.mean(axis=(3, 4)) if self.pools == "mean" else windows.max(axis=(3, 4))
        return pooled


@dataclass(frozen=True)
class Variant:
    """One wrong arithmetic."""

    kind: str
    detail: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def oracle(self, source: Tensors, right: Arithmetic) -> NumpyOracle:
        """The oracle that makes this fault; ``right`` are the constants of the checkpoint."""
        arithmetic = Arithmetic(**{**vars(right), **self.constants})
        suspect = Suspect(source, float32_runs=0, arithmetic=arithmetic)
        for name, value in self.knobs.items():
            setattr(suspect, name, value)
        return suspect


def _constants(kind: str, name: str, text: Callable[[Any], str], *values: Any) -> list[Variant]:
    return [Variant(kind, text(value), {name: value}) for value in values]


# fmt: off
VARIANTS = (
    Variant("standardisation epsilon", "1e-08, as stock transformers and timm have it, instead of 1e-10",
            {"standardization_epsilon": 1e-8}),
    *_constants("standardisation epsilon", "standardization_epsilon", "{} instead of 1e-10".format,
                1e-5, 1e-6, 1e-7, 1e-9, 1e-12, 1e-3, 0.0),
    *_constants("norm epsilon", "norm_epsilon", "{} instead of 1e-05".format, 1e-6, 1e-3, 1e-4, 1e-8, 1e-12, 0.0),
    *_constants("group count", "groups", "{} groups instead of 32".format, 16, 64, 8, 4, 1),
    *_constants("max-pool padding", "pool_padding", "the stem is surrounded by {}".format, "-inf", "zeros"),
    Variant("pooling", "no padding around the stem's max-pool", knobs={"pools": "unpadded"}),
    Variant("pooling", "the stem's max-pool is padded on one side", knobs={"pools": "one-sided"}),
    Variant("pooling", "the stem is averaged instead of max-pooled", knobs={"pools": "mean"}),
    Variant("stride", "on the first 1×1 convolution instead of the 3×3", knobs={"stride_on": "a"}),
    Variant("stride", "on the last 1×1 convolution instead of the 3×3", knobs={"stride_on": "c"}),
    Variant("convolution padding", "uneven, as TensorFlow's SAME", knobs={"pads_same": True}),
    Variant("activation", "ReLU after the addition", knobs={"relu_after_add": True}),
    Variant("activation", "no ReLU after group norms", knobs={"activates": False}),
    Variant("shortcut", "projected from the unit's input, not from its activation", knobs={"shortcut": "input"}),
    Variant("shortcut", "always from the activation", knobs={"shortcut": "always activation"}),
    Variant("shortcut", "not added", knobs={"adds_shortcut": False}),
    Variant("no standardisation", "kernels as they are stored", knobs={"standardizes": False}),
    Variant("no standardisation", "with the unbiased variance", knobs={"correction": 1}),
)
"""The likelier ones of a kind first."""
# fmt: on
