"""The diagnosis of a head that departs although what is stored of it is right: which wrong head gives these logits?

The head is linear, so it is enough to know, for the model's own features, each class's sum and bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.compare import U
from verify.evidence import Run
from verify.faults import Fault
from verify.oracles.numpy import NumpyOracle
from verify.protocols import Source

Array = npt.NDArray[Any]
Head = Callable[[Array, Array], Array]

# fmt: off
WRONG_HEADS: tuple[tuple[str, str, Head], ...] = (
    ("dropped bias", "the bias is not added", lambda sums, bias: sums),
    ("dropped bias", "the bias is added twice", lambda sums, bias: sums + 2 * bias),
    ("shifted labels", "classes shifted by 1", lambda sums, bias: np.roll(sums + bias, 1)),
    ("shifted labels", "classes shifted by -1", lambda sums, bias: np.roll(sums + bias, -1)),
    ("shifted labels", "the kernel's classes shifted by 1", lambda sums, bias: np.roll(sums, 1) + bias),
    ("shifted labels", "the kernel's classes shifted by -1", lambda sums, bias: np.roll(sums, -1) + bias),
    ("shifted labels", "the bias shifted by 1", lambda sums, bias: sums + np.roll(bias, 1)),
    ("shifted labels", "the bias shifted by -1", lambda sums, bias: sums + np.roll(bias, -1)),
    ("permuted labels", "classes reversed", lambda sums, bias: (sums + bias)[::-1]),
    ("permuted labels", "the bias reversed", lambda sums, bias: sums + bias[::-1]),
    ("permuted labels", "sorted", lambda sums, bias: np.sort(sums + bias)),
    ("activation", "a softmax is part of the head", lambda sums, bias: _softmax(sums + bias)),
    ("activation", "a sigmoid is part of the head", lambda sums, bias: 1 / (1 + np.exp(-(sums + bias)))),
)
# fmt: on


def head_faults(oracle: NumpyOracle, source: Source, run: Run) -> list[Fault]:
    """What is wrong with the logits, given the model's own features; nothing where nothing is."""
    head = next((c for c in run.comparisons if c.name == "logits" and not c.passed), None)
    if head is None or not math.isfinite(head.error) or oracle.classes is None:
        return []
    outputs = run.outputs[head.image]
    if "features" not in outputs:
        return [Fault("unknown arithmetic", "logits", f"{head.ratio:.3g} floors; {head.detail}")]
    features, logits = outputs["features"].reshape(-1).astype(np.float64), outputs["logits"].astype(np.float64)
    sums, bias, scale = _projected(source, features)
    limits = 2 * math.sqrt(len(features) + 1) * U * scale.max()
    for kind, detail, wrong in WRONG_HEADS:
        if np.abs(wrong(sums, bias) - logits).max() <= limits:
            return [Fault(kind, "logits", detail)]
    if np.abs(np.sort(sums + bias) - np.sort(logits)).max() <= limits:
        return [Fault("permuted labels", "logits", "the right logits in another order")]
    count = int((np.abs(logits - sums - bias) > limits).sum())
    kind = "changed values" if count < len(logits) else "unknown arithmetic"
    return [Fault(kind, "logits", f"{count} of {len(logits)} classes depart; {head.detail}")]


def _projected(source: Source, features: Array) -> tuple[Array, Array, Array]:
    """Σ h_i w_ij and b_j in float64, and Σ |h_i w_ij| + |b_j|."""
    kernel = source.read("resnet/head/conv2d/kernel").reshape(len(features), -1)
    bias = source.read("resnet/head/conv2d/bias").astype(np.float64)
    step = max(1, (1 << 22) // len(features))
    blocks = [kernel[:, start : start + step].astype(np.float64) for start in range(0, kernel.shape[1], step)]
    sums = np.concatenate([features @ block for block in blocks])
    scale = np.concatenate([np.abs(features) @ np.abs(block) for block in blocks]) + np.abs(bias)
    return sums, bias, scale


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max())
    return np.asarray(powers / powers.sum())
