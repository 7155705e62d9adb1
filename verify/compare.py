"""The rules of parity as pure functions: arrays in, frozen values out; nothing is printed, raised or decided here.

An error is held against a limit with ``not (error <= limit)``, so that NaN fails. The limits are derived, not chosen:
u is the rounding of float32, and the floor of a tensor is how far the oracle's own float32 runs are from its float64
run. ``FACTOR`` is the allowance for another implementation's order of summation: honest runs of random networks, in
five builds of the libraries, stay at or below 2.0 × the floor (``benchmarks/tolerance.py``, docs/tolerance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

U = 2.0**-24
"""Half the distance from 1 to the next float32."""
FACTOR = 2.5
"""An error may be this many times the floor."""


@dataclass(frozen=True)
class Comparison:
    """One tensor of the model under test against the oracle's, on one image."""

    name: str
    image: int
    error: float
    """The distance that the rule measures: in L2, or of the worst logit."""
    limit: float
    max_abs_error: float
    floor: float
    """The largest element of any float32 run's deviation; comparable with ``max_abs_error``."""
    detail: str = ""
    """The worst element with both values, or what is wrong with the tensor."""
    batch: int = 1
    """The number of images that were run at once, this one among them."""

    @property
    def passed(self) -> bool:
        return self.error <= self.limit

    @property
    def ratio(self) -> float:
        """The error divided by the floor: above ``FACTOR`` it fails."""
        if self.error <= self.limit:
            return FACTOR * self.error / self.limit if self.limit else 0.0
        return FACTOR * self.error / self.limit if self.limit else math.inf


def in_words(ratio: float | None, precision: str = "float32") -> str:
    """Returns a ratio as people read it: ``8.5 × float32 rounding (limit 2.5 ×)``."""
    digits = "–" if ratio is None else f"{ratio:.1f}" if 1 <= ratio < 100 else f"{ratio:.2g}"
    return f"{digits} × {precision} rounding (limit {FACTOR:g} ×)"


def norm(x: Array) -> float:
    """‖x‖₂ in float64."""
    flat = np.asarray(x, np.float64).reshape(-1)
    return float(np.sqrt(flat @ flat))


def peak(x: Array) -> float:
    """max |x|; 0 of nothing."""
    return float(np.abs(x).max()) if x.size else 0.0


def rounding(truth: Array, runs: Sequence[Array]) -> tuple[float, float]:
    """The L2 floor of a tensor, max over the float32 runs of ‖t_k − t‖₂, and the largest element's deviation."""
    deviations = [run - truth for run in runs]
    return _largest([norm(d) for d in deviations]), _largest([peak(d) for d in deviations])


def trunk(
    name: str, image: int, model: Array, truth: Array, floors: tuple[float, float], unit: float = U
) -> Comparison:
    """Rule 1: ‖t′ − t‖₂ ≤ FACTOR · max(max_k ‖t_k − t‖₂, u‖t‖₂), times u′/u for a model that computes with unit u′."""
    l2_floor, peak_floor = floors
    limit = FACTOR * unit / U * _largest([l2_floor, U * norm(truth)])
    if model.shape != truth.shape:
        return misshapen(name, image, model.shape, truth.shape, limit, peak_floor)
    difference = np.asarray(model, np.float64) - truth
    detail = _worst(np.abs(difference), model, truth)
    return Comparison(name, image, norm(difference), limit, peak(difference), peak_floor, detail)


@dataclass(frozen=True)
class Logits:
    """The oracle's logits on one image, and what rules 2 and 3 need beside them; vectors over the classes."""

    truth: Array
    """z."""
    runs: Array
    """(runs, classes): z_k."""
    scale: Array
    """Σ |h_i w_ij| + |b_j|."""
    propagated: Array
    """Σ_i w_ij² mean_k (δh_k)_i²: the features' rounding as it reaches each logit."""


@dataclass(frozen=True)
class OwnLogits:
    """The source's head on the model's own features h′, in float64; vectors over the classes."""

    value: Array
    """Σ h′_i w_ij + b_j."""
    scale: Array
    """Σ |h′_i w_ij| + |b_j|."""
    features: int


def head(image: int, model: Array, oracle: Logits, own: OwnLogits, unit: float = U) -> Comparison:
    """Rule 2: |z′_j − (Σ h′_i w_ij + b_j)| ≤ √(C+1) · u · (Σ |h′_i w_ij| + |b_j|), for every class j; u′ for a model
    that computes with that."""
    floor = _logit_floor(oracle)
    if model.shape != oracle.truth.shape:
        return misshapen("logits", image, model.shape, oracle.truth.shape, 0.0, floor)
    logits = np.asarray(model, np.float64)
    errors = np.abs(logits - own.value)
    limits = math.sqrt(own.features + 1) * unit * own.scale
    worst = _worst_share(errors, limits)
    detail = f"logit {worst} is {logits[worst]:.9g}, and {own.value[worst]:.9g} from the model's own features"
    return Comparison(
        "logits",
        image,
        float(errors[worst]),
        float(limits[worst]),
        peak(logits - oracle.truth),
        floor,
        detail,
    )


def logits_alone(image: int, model: Array, oracle: Logits, unit: float = U) -> Comparison:
    """Rule 3, where only logits can be had: ‖z′ − z‖₂ ≤ FACTOR · ‖s‖₂, times u′/u for a model that computes with u′;
    s_j² = mean_k (z_k − z)_j² + Σ_i w_ij² mean_k (δh_k)_i² + u² (Σ |h_i w_ij| + |b_j|)²."""
    measured = ((oracle.runs - oracle.truth) ** 2).mean(axis=0)
    limit = FACTOR * unit / U * float(np.sqrt((measured + oracle.propagated + (U * oracle.scale) ** 2).sum()))
    if model.shape != oracle.truth.shape:
        return misshapen("logits", image, model.shape, oracle.truth.shape, limit, _logit_floor(oracle))
    difference = np.asarray(model, np.float64) - oracle.truth
    detail = _worst(np.abs(difference), model, oracle.truth)
    return Comparison("logits", image, norm(difference), limit, peak(difference), _logit_floor(oracle), detail)


def misshapen(
    name: str,
    image: int,
    model: tuple[int, ...] | None,
    truth: tuple[int, ...] | None,
    limit: float,
    floor: float,
) -> Comparison:
    """A tensor that cannot be compared: one side has none, or another shape."""
    if truth is None:
        detail = "the checkpoint's network has no such tensor"
    elif model is None:
        detail = "the model gives no such tensor"
    else:
        detail = f"shape {model}, not {truth}"
    return Comparison(name, image, math.inf, limit, math.inf, floor, detail)


def useless_floor(features: Array, l2_floor: float) -> bool:
    """Rule 4: the pooled floor is above √u · ‖h‖, or not a number: such limits would let anything pass."""
    return not (l2_floor <= math.sqrt(U) * norm(features))


def dtype_name(stored: Array) -> str:
    """Returns the dtype of stored values; bfloat16, which NumPy lacks, comes as its bits, in uint16."""
    return "bfloat16" if stored.dtype == np.uint16 else str(stored.dtype)


def stored_misfit(expected: Array, stored: Array) -> str:
    """Returns how a stored tensor differs from the expected one, bit for bit; empty where it does not.

    Raw bits are compared: NaN equals itself, and -0 is not 0.
    """
    if stored.shape != expected.shape:
        return f"has shape {stored.shape}, not {expected.shape}"
    if stored.dtype != expected.dtype:
        return f"holds {dtype_name(stored)}, not {dtype_name(expected)}"
    differs = bits(stored) != bits(expected)
    count = int(np.count_nonzero(differs))
    if not count:
        return ""
    index = tuple(int(i) for i in np.unravel_index(int(differs.argmax()), differs.shape))
    values = f"{stored[index]!s} stored, {expected[index]!s} expected"
    return f"differs at {list(index)}: {values} ({count} of {differs.size} values differ)"


def bits(x: Array) -> Array:
    """The same values as unsigned integers."""
    return np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}").reshape(x.shape)


def _largest(values: Sequence[float]) -> float:
    """The maximum, and NaN where there is one: Python's max may lose it."""
    return math.nan if any(math.isnan(v) for v in values) else max(values, default=0.0)


def _logit_floor(oracle: Logits) -> float:
    return peak(oracle.runs - oracle.truth)


def _worst(errors: Array, model: Array, truth: Array) -> str:
    """The element that is furthest off, with both values; a NaN is furthest."""
    if not errors.size:
        return ""
    index = tuple(int(i) for i in np.unravel_index(int(errors.argmax()), errors.shape))
    return f"at {list(index)}: {model[index]:.9g}, oracle {truth[index]:.9g}"


def _worst_share(errors: Array, limits: Array) -> int:
    """The index of the largest error / limit; what is over a limit of 0, or NaN, comes first."""
    shares = np.where(errors <= limits, 0.0, np.inf)
    np.divide(errors, limits, out=shares, where=limits > 0)
    return int(shares.argmax())
