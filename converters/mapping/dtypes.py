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
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return values.astype(DTYPES[dtype].storage, copy=False)
    bits = values.view(np.uint32)
    # bfloat16 is the upper half of a float32: half of its last place is added, and less than that where it is even
    carried = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (carried >> np.uint32(16)).astype(DTYPES[dtype].storage)


def widened(stored: Array, dtype: str) -> Array:
    """The float32 values of what is stored, exactly."""
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(np.float32, copy=False)
