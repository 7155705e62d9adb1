"""The dtypes that values may be stored in: rounded to nearest, ties to even, and seen as bits.

float32 array → ``round_to()`` → what is stored (bfloat16, which NumPy lacks, as uint16 bits) → ``widened()`` → float32
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Dtype:
    """``code`` is safetensors' name, ``storage`` NumPy's dtype of what is stored."""

    name: str
    code: str
    storage: np.dtype[Any]


DTYPES = {
    dtype.name: dtype
    for dtype in (
        Dtype("float32", "F32", np.dtype("<f4")),
        Dtype("float16", "F16", np.dtype("<f2")),
        Dtype("bfloat16", "BF16", np.dtype("<u2")),
    )
}


def round_to(values: Array, dtype: str) -> Array:
    """float32 values → what is stored of them. What a dtype cannot hold becomes inf."""
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            return values.astype(_bfloat16()).view(DTYPES[dtype].storage)
        return values.astype(DTYPES[dtype].storage, copy=False)


def widened(stored: Array, dtype: str) -> Array:
    """The float32 values of what is stored, exactly."""
    return (stored.view(_bfloat16()) if dtype == "bfloat16" else stored).astype(np.float32, copy=False)


def _bfloat16() -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16
