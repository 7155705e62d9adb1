"""The diagnosis of a head whose logits are wrong although its stored values are right.

The head is linear, so it is enough to know, for the model's own features on every image, each class's sum and bias;
a head of other values is one more product of matrices.

    the model's features and logits → ``head_faults()`` → at most one fault
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.compare import U, in_words
from verify.diagnosis.changes import REORDERINGS, REVALUATIONS, bfloat16, float16, reread
from verify.faults import Fault, Kind
from verify.forward import ReaderRun
from verify.oracles.numpy import NumpyOracle
from verify.protocols import Source

Array = npt.NDArray[Any]
Head = Callable[[Array, Array], Array]

BLOCK = 1 << 22
"""Values of the kernel that are made float64 at a time."""
PRECISIONS: Mapping[str, tuple[Callable[[Array], Array], float]] = {
    "float16": (float16, 2.0**-11),
    "bfloat16": (bfloat16, 2.0**-8),
}


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _log_softmax(x: Array) -> Array:
    top = x.max(axis=-1, keepdims=True)
    return np.asarray(x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))


def _normalised(x: Array) -> Array:
    return np.asarray((x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5))


# fmt: off
WRONG_HEADS: tuple[tuple[Kind, str, Head], ...] = (
    (Kind.DROPPED_BIAS, "the bias is not added", lambda sums, bias: sums),
    (Kind.DROPPED_BIAS, "the bias is added twice", lambda sums, bias: sums + 2 * bias),
    (Kind.DROPPED_BIAS, "the bias is subtracted", lambda sums, bias: sums - bias),
    (Kind.DROPPED_VALUES, "the bias alone", lambda sums, bias: np.broadcast_to(bias, sums.shape)),
    (Kind.DROPPED_VALUES, "all zeros", lambda sums, bias: np.zeros_like(sums)),
    (Kind.SHIFTED_LABELS, "classes shifted by 1", lambda sums, bias: np.roll(sums + bias, 1, -1)),
    (Kind.SHIFTED_LABELS, "classes shifted by -1", lambda sums, bias: np.roll(sums + bias, -1, -1)),
    (Kind.SHIFTED_LABELS, "the kernel's classes shifted by 1", lambda sums, bias: np.roll(sums, 1, -1) + bias),
    (Kind.SHIFTED_LABELS, "the kernel's classes shifted by -1", lambda sums, bias: np.roll(sums, -1, -1) + bias),
    (Kind.SHIFTED_LABELS, "the bias shifted by 1", lambda sums, bias: sums + np.roll(bias, 1)),
    (Kind.SHIFTED_LABELS, "the bias shifted by -1", lambda sums, bias: sums + np.roll(bias, -1)),
    (Kind.PERMUTED_LABELS, "classes reversed", lambda sums, bias: (sums + bias)[:, ::-1]),
    (Kind.PERMUTED_LABELS, "the bias reversed", lambda sums, bias: sums + bias[::-1]),
    (Kind.PERMUTED_LABELS, "the kernel's classes reversed", lambda sums, bias: sums[:, ::-1] + bias),
    (Kind.PERMUTED_LABELS, "sorted", lambda sums, bias: np.sort(sums + bias)),
    (Kind.ACTIVATION, "a softmax is part of the head", lambda sums, bias: _softmax(sums + bias)),
    (Kind.ACTIVATION, "a log-softmax is part of the head", lambda sums, bias: _log_softmax(sums + bias)),
    (Kind.ACTIVATION, "a sigmoid is part of the head", lambda sums, bias: _sigmoid(sums + bias)),
    (Kind.ACTIVATION, "a log-sigmoid is part of the head", lambda sums, bias: -np.logaddexp(0, -(sums + bias))),
    (Kind.ACTIVATION, "a ReLU is part of the head", lambda sums, bias: np.maximum(sums + bias, 0)),
    (Kind.ACTIVATION, "a tanh is part of the head", lambda sums, bias: np.tanh(sums + bias)),
    (Kind.ACTIVATION, "a softplus is part of the head", lambda sums, bias: np.logaddexp(0, sums + bias)),
    (Kind.ACTIVATION, "exponentials of the logits", lambda sums, bias: np.exp(sums + bias)),
    (Kind.ACTIVATION, "the logits are normalised", lambda sums, bias: _normalised(sums + bias)),
    (Kind.ACTIVATION, "the logits are divided by their norm",
     lambda sums, bias: (sums + bias) / np.linalg.norm(sums + bias, axis=-1, keepdims=True)),
)
# fmt: on


@dataclass(frozen=True)
class _Head:
    """The model's features and logits, (images, …), and the logits of the source's head on these features."""

    features: Array
    logits: Array
    sums: Array
    bias: Array
    scale: Array
    """Σ |h_i w_ij| + |b_j|."""

    @property
    def right(self) -> Array:
        return self.sums + self.bias

    @property
    def limits(self) -> Array:
        """The largest error of an image's logits that rounding explains."""
        largest: Array = self.scale.max(axis=1, keepdims=True)
        return 2 * math.sqrt(self.features.shape[1] + 1) * U * largest

    @property
    def many(self) -> bool:
        """Whether the logits are enough to refute a fault with a number of its own."""
        return self.logits.size > 2

    def explained_by(self, values: Array) -> bool:
        return values.shape == self.logits.shape and bool((np.abs(values - self.logits) <= self.limits).all())


def head_faults(oracle: NumpyOracle, source: Source, run: ReaderRun) -> list[Fault]:
    """Returns the fault of the logits, given the model's own features; none where they are right."""
    worst = next((c for c in run.comparisons if c.name == "logits" and not c.passed), None)
    if worst is None or oracle.classes is None:
        return []
    known = all("features" in outputs for outputs in run.outputs)
    if known and not all(np.isfinite(outputs["features"]).all() for outputs in run.outputs):
        return []
    if not all(np.isfinite(outputs["logits"]).all() for outputs in run.outputs):
        return [Fault(Kind.NOT_A_NUMBER, "logits", "the model gives values that are not finite")]
    if not known:
        return [Fault(Kind.UNKNOWN_ARITHMETIC, "logits", f"error is {in_words(worst.ratio)}; {worst.detail}")]
    head = _head(source, run)
    for kind, detail, values in _candidates(source, head):
        if head.explained_by(values):
            return [Fault(kind, "logits", detail)]
    if head.explained_by(_reordered(head)):
        return [Fault(Kind.PERMUTED_LABELS, "logits", "the right logits in another order")]
    count = int((np.abs(head.logits - head.right) > head.limits).any(axis=0).sum())
    kind = Kind.CHANGED_VALUES if count < head.logits.shape[1] else Kind.UNKNOWN_ARITHMETIC
    return [Fault(kind, "logits", f"{count} of {head.logits.shape[1]} classes are wrong; {worst.detail}")]


def _head(source: Source, run: ReaderRun) -> _Head:
    features = np.stack([outputs["features"].reshape(-1) for outputs in run.outputs]).astype(np.float64)
    logits = np.stack([outputs["logits"].reshape(-1) for outputs in run.outputs]).astype(np.float64)
    kernel = _kernel(source)
    bias = source.read(BIAS).astype(np.float64)
    scale = _product(np.abs(features), np.abs(kernel)) + np.abs(bias)
    return _Head(features, logits, _product(features, kernel), bias, scale)


KERNEL, BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"


def _kernel(source: Source) -> Array:
    kernel = source.read(KERNEL)
    return kernel.reshape(kernel.shape[-2:])


def _product(features: Array, kernel: Array) -> Array:
    """Multiplies in float64, some columns at a time."""
    step = max(1, BLOCK // len(kernel))
    blocks = [kernel[:, start : start + step].astype(np.float64) for start in range(0, kernel.shape[1], step)]
    return np.concatenate([features @ block for block in blocks], axis=1)


def _candidates(source: Source, head: _Head) -> Iterator[tuple[Kind, str, Array]]:
    """Kind, detail, logits: cheap ones first."""
    for kind, detail, wrong in WRONG_HEADS:
        yield kind, detail, np.asarray(wrong(head.sums, head.bias))
    if head.many:
        for kind, fit in FITS:
            values, detail = fit(head)
            yield kind, detail, values
    kernel = _kernel(source)
    for name, (rounded, _) in PRECISIONS.items():
        yield from _rounded_heads(name, rounded, head, kernel)
    yield from _rounded_logits(head)
    yield from _other_kernels(head, kernel)
    yield from _other_biases(head)


def _rounded_heads(
    name: str, rounded: Callable[[Array], Array], head: _Head, kernel: Array
) -> Iterator[tuple[Kind, str, Array]]:
    """Kernel, bias and features in a narrower format."""
    bias = rounded(head.bias.astype(np.float32))
    features = rounded(head.features.astype(np.float32)).astype(np.float64)
    sums, sums_of_rounded = _product(head.features, rounded(kernel)), _product(features, rounded(kernel))
    yield Kind.REDUCED_PRECISION, f"head rounded to {name}: its kernel", sums + head.bias
    yield Kind.REDUCED_PRECISION, f"head rounded to {name}: kernel and bias", sums + bias
    yield Kind.REDUCED_PRECISION, f"head rounded to {name}: kernel and features", sums_of_rounded + head.bias
    yield Kind.REDUCED_PRECISION, f"head rounded to {name}: kernel, bias and features", sums_of_rounded + bias
    yield Kind.REDUCED_PRECISION, f"features rounded to {name} before the head", _product(features, kernel) + head.bias


def _rounded_logits(head: _Head) -> Iterator[tuple[Kind, str, Array]]:
    """Logits that a narrower format holds, and that are the right ones but for its rounding."""
    for name, (rounded, unit) in PRECISIONS.items():
        held = np.array_equal(rounded(head.logits.astype(np.float32)), head.logits)
        if held and (np.abs(head.logits - head.right) <= 2 * unit * np.abs(head.right) + head.limits).all():
            yield Kind.REDUCED_PRECISION, f"logits rounded to {name}", head.logits


def _other_kernels(head: _Head, kernel: Array) -> Iterator[tuple[Kind, str, Array]]:
    """The kernel changed in each known way."""
    whole = kernel[None, None]
    for change in (*REORDERINGS, *REVALUATIONS):
        wrong = change.apply(whole, (0, 1))
        if wrong.shape == whole.shape:
            yield change.kind, f"head kernel: {change.detail}", _product(head.features, wrong[0, 0]) + head.bias
    detail = "head kernel: the same bytes in another shape"
    yield Kind.RESHAPED_TENSOR, detail, _product(head.features, reread(whole, "HWIO", "OIHW")[0, 0]) + head.bias
    for detail, moved in (("reversed", head.features[:, ::-1]), ("shifted by 1", np.roll(head.features, 1, 1)),
                          ("shifted by -1", np.roll(head.features, -1, 1))):  # fmt: skip
        yield Kind.PERMUTED_CHANNELS, f"head's inputs {detail}", _product(moved, kernel) + head.bias


def _other_biases(head: _Head) -> Iterator[tuple[Kind, str, Array]]:
    """The bias changed in each known way, and any other one: the same on every image."""
    narrow = head.bias.astype(np.float32)
    for change in REVALUATIONS:
        wrong = np.asarray(change.apply(narrow, None), np.float64)
        yield change.kind, f"head bias: {change.detail}", head.sums + wrong
    if len(head.logits) > 1 and head.logits.shape[1] > 1:
        other = (head.logits - head.sums).mean(axis=0)
        count = int((np.abs(other - head.bias) > head.limits.min()).sum())
        kind = Kind.OTHER_VALUES if count == len(other) else Kind.CHANGED_VALUES
        yield kind, f"head bias: {count} of {len(other)} values are others", head.sums + other


# Faults with a number of their own


def _ratio(of: Array, to: Array) -> float:
    size = float((to * to).sum())
    return float((of * to).sum()) / size if size else 0.0


def _scaled(head: _Head) -> tuple[Array, str]:
    ratio = _ratio(head.logits, head.right)
    return ratio * head.right, f"scaled logits: {ratio:.6g} times as large, as a temperature makes them"


def _scaled_sums(head: _Head) -> tuple[Array, str]:
    ratio = _ratio(head.logits - head.bias, head.sums)
    return ratio * head.sums + head.bias, f"scaled logits: {ratio:.6g} times as large, before the bias is added"


def _scaled_bias(head: _Head) -> tuple[Array, str]:
    ratio = _ratio(head.logits - head.sums, np.broadcast_to(head.bias, head.sums.shape))
    return head.sums + ratio * head.bias, f"the bias is added {ratio:.6g} times as large"


def _scaled_features(head: _Head) -> tuple[Array, str]:
    """A factor for each image."""
    if head.logits.shape[1] < 3:
        return np.full_like(head.logits, np.inf), ""
    sizes = np.maximum((head.sums**2).sum(axis=1, keepdims=True), 1e-300)
    ratios = ((head.logits - head.bias) * head.sums).sum(axis=1, keepdims=True) / sizes
    norms = np.linalg.norm(head.features, axis=1, keepdims=True)
    unit = bool(np.allclose(ratios * norms, 1, rtol=1e-4))
    what = "divided by their norm" if unit else "scaled on each image"
    return ratios * head.sums + head.bias, f"features {what} before the head"


def _shifted(head: _Head) -> tuple[Array, str]:
    shift = float((head.logits - head.right).mean())
    return head.right + shift, f"shifted logits: {shift:.6g} is added to each"


def _centred(head: _Head) -> tuple[Array, str]:
    """A shift for each image."""
    if head.logits.shape[1] < 2:
        return np.full_like(head.logits, np.inf), ""
    shifts = (head.logits - head.right).mean(axis=1, keepdims=True)
    means = head.right.mean(axis=1, keepdims=True)
    what = "their mean" if np.allclose(shifts, -means, rtol=1e-3, atol=head.limits.max()) else "a number of its own"
    return head.right + shifts, f"shifted logits: {what} is subtracted on each image"


def _clipped(head: _Head) -> tuple[Array, str]:
    low, high = float(head.logits.min()), float(head.logits.max())
    return np.clip(head.right, low, high), f"logits clipped to {low:.4g} … {high:.4g}"


FITS: tuple[tuple[Kind, Callable[[_Head], tuple[Array, str]]], ...] = (
    (Kind.SCALED_VALUES, _scaled),
    (Kind.SCALED_VALUES, _scaled_sums),
    (Kind.SCALED_VALUES, _scaled_bias),
    (Kind.SCALED_VALUES, _scaled_features),
    (Kind.SHIFTED_VALUES, _shifted),
    (Kind.SHIFTED_VALUES, _centred),
    (Kind.ACTIVATION, _clipped),
)


def _reordered(head: _Head) -> Array:
    """The right logits in the order of the model's, on each image."""
    order = np.argsort(np.argsort(head.logits, axis=1), axis=1)
    return np.take_along_axis(np.sort(head.right, axis=1), order, axis=1)
