"""Tables of what ports compute in place of BiT's parts: activations, norms, standardisations and pools.

A row is a text and a function in float64; ``verify.diagnosis.arithmetic`` puts each in the place of the right one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]


# Activations


def leaky(slope: float) -> Function:
    """Negative values times ``slope``."""
    return lambda x: np.where(x > 0, x, slope * x)


def sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, 0))


def elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _gelu(x: Array) -> Array:
    import torch

    return np.asarray(0.5 * x * (1 + torch.erf(torch.from_numpy(np.asarray(x / math.sqrt(2)))).numpy()))


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


ACTIVATIONS: Mapping[str, Function] = {
    "no ReLU after group norms": lambda x: x,
    "leaky ReLU with the slope 0.01": leaky(0.01),
    "leaky ReLU with the slope 0.1": leaky(0.1),
    "leaky ReLU with the slope 0.2": leaky(0.2),
    "leaky ReLU with the slope 0.25, as a fresh PReLU": leaky(0.25),
    "GELU by the error function": _gelu,
    "GELU by tanh": _gelu_tanh,
    "GELU by a sigmoid, x·σ(1.702x)": lambda x: x * sigmoid(1.702 * x),
    "SiLU (swish)": lambda x: x * sigmoid(x),
    "ReLU6": lambda x: np.clip(x, 0, 6),
    "ELU": elu,
    "SELU": lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772),
    "Mish": lambda x: x * np.tanh(softplus(x)),
    "hard swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "softplus": softplus,
    "squared ReLU": lambda x: np.maximum(x, 0) ** 2,
    "tanh": np.tanh,
    "hard tanh": lambda x: np.clip(x, -1, 1),
    "ReLU cut at 1": lambda x: np.clip(x, 0, 1),
    "sigmoid": sigmoid,
    "hard sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "the absolute value": np.abs,
    "ReLU of the negated values": lambda x: np.maximum(-x, 0),
}
"""Activations that follow a group norm in place of ReLU."""


# Group norms


@dataclass(frozen=True)
class Norm:
    """A group norm with a knob for each part; as it stands it is the right one, without its ReLU."""

    over: Literal["groups", "interleaved", "channels", "everything", "positions"] = "groups"
    correction: int = 0
    centres: bool = True
    divides_by: Literal["deviation", "root mean square", "nothing"] = "deviation"
    outside: bool = False
    """The epsilon is added to the deviation, not to the variance."""
    scales: bool = True
    shifts: bool = True
    one_more: bool = False
    """The scale is 1 + gamma."""
    shifts_first: bool = False
    """(x̂ + beta) · gamma."""

    def __call__(self, x: Array, scale: Array, bias: Array, groups: int, epsilon: float) -> Array:
        y = self._joined(self._normalised(self._sets(x, groups), epsilon), x)
        gamma = (scale if self.scales else np.ones_like(scale)).astype(x.dtype)[:, None, None]
        beta = (bias if self.shifts else np.zeros_like(bias)).astype(x.dtype)[:, None, None]
        gamma = gamma + 1 if self.one_more else gamma
        return np.asarray((y + beta) * gamma if self.shifts_first else y * gamma + beta)

    def _normalised(self, sets: Array, epsilon: float) -> Array:
        centred = sets - sets.mean(axis=1, keepdims=True)
        taken = centred if self.centres else sets
        if self.divides_by == "nothing":
            return taken
        squares = (centred if self.divides_by == "deviation" else sets) ** 2
        variance = squares.sum(axis=1, keepdims=True) / max(1, sets.shape[1] - self.correction)
        return np.asarray(taken / (np.sqrt(variance) + epsilon if self.outside else np.sqrt(variance + epsilon)))

    def _sets(self, x: Array, groups: int) -> Array:
        """The values that share a mean, a row each."""
        if self.over == "interleaved":
            return x.reshape(-1, groups, *x.shape[1:]).swapaxes(0, 1).reshape(groups, -1)
        if self.over == "positions":
            return x.reshape(len(x), -1).T
        rows = {"groups": groups, "channels": len(x), "everything": 1}[self.over]
        return x.reshape(rows, -1)

    def _joined(self, sets: Array, x: Array) -> Array:
        if self.over == "interleaved":
            members = x.shape[0] // len(sets)
            return sets.reshape(len(sets), members, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)
        return (sets.T if self.over == "positions" else sets).reshape(x.shape)


NORMS: Mapping[str, Norm] = {
    "unbiased variance (n - 1)": Norm(correction=1),
    "the epsilon is added to the deviation, not to the variance": Norm(outside=True),
    "each channel by itself, as instance norm": Norm(over="channels"),
    "all channels together, as layer norm": Norm(over="everything"),
    "the channels of each position, as layer norm over the last axis": Norm(over="positions"),
    "groups of every 32nd channel instead of neighbours": Norm(over="interleaved"),
    "the mean is not subtracted, as RMS norm": Norm(centres=False, divides_by="root mean square"),
    "the mean is not subtracted": Norm(centres=False),
    "not divided by the deviation": Norm(divides_by="nothing"),
    "not normalised: gamma and beta alone": Norm(centres=False, divides_by="nothing"),
    "gamma is not used": Norm(scales=False),
    "beta is not used": Norm(shifts=False),
    "neither gamma nor beta is used": Norm(scales=False, shifts=False),
    "scaled by 1 + gamma": Norm(one_more=True),
    "beta is added before gamma multiplies": Norm(shifts_first=True),
}
"""Group norms that normalise, or scale and shift, in another way."""


# Standardised kernels


@dataclass(frozen=True)
class Standardisation:
    """A way of standardising a kernel (height, width, in, out); the defaults are Google's."""

    axes: tuple[int, ...] = (0, 1, 2)
    correction: int = 0
    centres: bool = True
    divides_by: Literal["deviation", "variance", "norm", "root mean square", "nothing"] = "deviation"
    outside: float | None = None
    """An epsilon that is added to the deviation, in place of the one in the variance."""
    gain: Callable[[int], float] = lambda count: 1.0
    """The factor of the result, given the number of values behind an output."""

    def __call__(self, kernel: Array, epsilon: float) -> Array:
        return self._standardised(kernel, epsilon) * self.gain(math.prod(kernel.shape[:-1]))

    def _standardised(self, kernel: Array, epsilon: float) -> Array:
        centred = kernel - kernel.mean(axis=self.axes, keepdims=True)
        variance = (centred**2).sum(axis=self.axes, keepdims=True)
        variance = variance / max(1, math.prod(kernel.shape[axis] for axis in self.axes) - self.correction)
        taken = centred if self.centres else kernel
        if self.divides_by == "nothing":
            return taken
        if self.divides_by == "norm":
            size = np.sqrt((taken**2).sum(axis=self.axes, keepdims=True) + epsilon)
        elif self.divides_by == "root mean square":
            size = np.sqrt((taken**2).mean(axis=self.axes, keepdims=True) + epsilon)
        elif self.divides_by == "variance":
            size = variance + epsilon
        else:
            size = np.sqrt(variance + epsilon) if self.outside is None else np.sqrt(variance) + self.outside
        return np.asarray(taken / size)


STANDARDISATIONS: Mapping[str, Standardisation] = {
    "kernels as they are stored": Standardisation(centres=False, divides_by="nothing"),
    "with the unbiased variance (n - 1)": Standardisation(correction=1),
    "with the unbiased deviation plus 1e-05": Standardisation(correction=1, outside=1e-5),
    "1e-05 is added to the deviation": Standardisation(outside=1e-5),
    "1e-08 is added to the deviation": Standardisation(outside=1e-8),
    "over height and width alone": Standardisation(axes=(0, 1)),
    "over the inputs alone": Standardisation(axes=(2,)),
    "over the outputs, too: one mean and variance of all": Standardisation(axes=(0, 1, 2, 3)),
    "over height, width and outputs": Standardisation(axes=(0, 1, 3)),
    "over the outputs alone": Standardisation(axes=(3,)),
    "the mean is not subtracted": Standardisation(centres=False),
    "the mean is neither subtracted nor in the variance": Standardisation(centres=False, divides_by="root mean square"),
    "not divided by the deviation": Standardisation(divides_by="nothing"),
    "divided by the variance": Standardisation(divides_by="variance"),
    "divided by the norm": Standardisation(divides_by="norm"),
    "divided by the norm, the mean not subtracted": Standardisation(centres=False, divides_by="norm"),
    "divided by the root of the number of inputs": Standardisation(gain=lambda count: count**-0.5),
    "with a gain of 1.714 over the root of the number of inputs": Standardisation(
        gain=lambda n: 1.7139588594436646 * n**-0.5
    ),
}
"""Kernels that are standardised in another way."""


# Pools


POOLS: Mapping[str, Function] = {
    "max instead of mean pooling": lambda maps: maps.max(axis=1),
    "the sum instead of the mean": lambda maps: maps.sum(axis=1),
    "the median instead of the mean": lambda maps: np.median(maps, axis=1),
    "the mean of mean and max pooling": lambda maps: (maps.mean(axis=1) + maps.max(axis=1)) / 2,
    "mean and max pooling, one after the other": lambda maps: np.concatenate([maps.mean(axis=1), maps.max(axis=1)]),
    "the first position alone": lambda maps: maps[:, 0],
    "the middle position alone": lambda maps: maps[:, maps.shape[1] // 2],
    "the last position alone": lambda maps: maps[:, -1],
    "the mean divided by one less (n - 1)": lambda maps: maps.sum(axis=1) / max(1, maps.shape[1] - 1),
    "the root of the mean of squares": lambda maps: np.sqrt((maps**2).mean(axis=1)),
    "generalised mean pooling with the power 3": lambda maps: np.cbrt((np.maximum(maps, 1e-6) ** 3).mean(axis=1)),
    "the minimum instead of the mean": lambda maps: maps.min(axis=1),
    "the mean, divided by its own norm": lambda maps: maps.mean(axis=1) / np.linalg.norm(maps.mean(axis=1)),
}
"""(channels, positions) → pooled features."""


def windows(x: Array, size: int, stride: int) -> Array:
    """(channels, height, width) → (channels, height', width', size, size), nothing padded."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def _surrounded(x: Array, before: int, after: int, value: float = 0.0) -> Array:
    return np.pad(x, ((0, 0), (before, after), (before, after)), constant_values=value)


def _counted_mean(x: Array) -> Array:
    """Padding is not counted."""
    sums = windows(_surrounded(x, 1, 1), 3, 2).sum(axis=(3, 4))
    return np.asarray(sums / windows(_surrounded(np.ones_like(x[:1]), 1, 1), 3, 2).sum(axis=(3, 4)))


STEM_POOLS: Mapping[str, Function] = {
    "no padding around the stem's max-pool": lambda x: windows(x, 3, 2).max(axis=(3, 4)),
    "the stem's max-pool is padded on one side": lambda x: windows(_surrounded(x, 0, 1), 3, 2).max(axis=(3, 4)),
    "the stem is averaged instead of max-pooled": lambda x: windows(_surrounded(x, 1, 1), 3, 2).mean(axis=(3, 4)),
    "the stem is averaged, padding not counted": _counted_mean,
    "the stem's max-pool has windows of 2 × 2": lambda x: windows(x, 2, 2).max(axis=(3, 4)),
    "the stem's max-pool has windows of 5 × 5": lambda x: windows(_surrounded(x, 2, 2), 5, 2).max(axis=(3, 4)),
    "the stem is averaged over windows of 2 × 2": lambda x: windows(x, 2, 2).mean(axis=(3, 4)),
    "the stem's max-pool has the stride 1": lambda x: windows(_surrounded(x, 1, 1), 3, 1).max(axis=(3, 4)),
    "the stem takes every second position": lambda x: x[:, ::2, ::2],
    "the stem's minimum is pooled": lambda x: windows(_surrounded(x, 1, 1), 3, 2).min(axis=(3, 4)),
    "the stem is not pooled": lambda x: x,
}
"""(channels, height, width) → the stem's output."""
