"""Transposes kernels within the processor's cache: Google's have the output channels last, PyTorch's first.

What a transposition strides over falls out of the cache before it is used again, so a tile is first copied, in runs,
to where it stays in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

OUTPUTS = 128
"""Output channels of a tile."""
INPUTS, WINDOWED_INPUTS = 256, 32
"""Input channels of a tile, and where a kernel has several values for each."""


def outputs_first(kernel: Array, out: Array) -> None:
    """``kernel`` (window, inputs, outputs) → ``out`` (outputs, inputs, window)."""
    window, inputs, outputs = kernel.shape
    rows = INPUTS if window == 1 else WINDOWED_INPUTS
    tile = np.empty((window, min(rows, inputs), min(OUTPUTS, outputs)), kernel.dtype)
    for o in range(0, outputs, OUTPUTS):
        for i in range(0, inputs, rows):
            part = kernel[:, i : i + rows, o : o + OUTPUTS]
            near = tile[:, : part.shape[1], : part.shape[2]]
            np.copyto(near, part)
            np.copyto(out[o : o + OUTPUTS, i : i + rows], near.transpose(2, 1, 0))
