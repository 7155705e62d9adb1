"""The values of one parameter as a layout stores them, in blocks that are made within the processor's cache.

    source → some columns of a tensor in Google's layout → blocks of output channels → the file

Google's kernels have the output channels last, PyTorch's first. What a transposition strides over falls out of the
cache before it is used again, so a tile is first copied, in runs, to where it stays in it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.layouts import Array, Exact, Layout, scaled
from converters.names import GOOGLE, Parameter
from converters.sources import GoogleView

OUTPUT_FIRST = ((3, 2, 0, 1), (3, 2))
"""The permutations that are made in blocks: HWIO → OIHW and IO → OI. Others are small tensors', or none."""
OUTPUTS = 128
"""Output channels of a block and of a tile."""
INPUTS, WINDOWED_INPUTS = 256, 32
"""Input channels of a tile, and where a kernel has several values for each."""


def stored_blocks(source: GoogleView, parameter: Parameter, layout: Layout, exact: Exact) -> Iterator[Array]:
    """What ``layout.store`` gives, block after block along its first axis: float32, each valid until the next is
    asked for."""
    name, form = parameter.names[GOOGLE], layout.forms[parameter.kind]
    if form.axes not in OUTPUT_FIRST:
        yield layout.store(parameter, source.read(name), exact)
        return
    inner = layout.shape(parameter)[1:]
    *window, inputs, _ = parameter.shape
    for columns in source.columns(name):
        kernel = columns.reshape(window[0] * window[1], inputs, -1)
        for block in _transposed(kernel):
            yield scaled(block.reshape(-1, *inner), parameter.kind, exact)


def _transposed(kernel: Array) -> Iterator[Array]:
    """(window, inputs, outputs) → blocks of (up to OUTPUTS outputs, inputs, window)."""
    window, inputs, outputs = kernel.shape
    rows = INPUTS if window == 1 else WINDOWED_INPUTS
    tile = np.empty((window, rows, OUTPUTS), kernel.dtype)
    block = np.empty((OUTPUTS, inputs, window), kernel.dtype)
    for o in range(0, outputs, OUTPUTS):
        wide = min(OUTPUTS, outputs - o)
        for i in range(0, inputs, rows):
            high = min(rows, inputs - i)
            part = tile[:, :high, :wide]
            np.copyto(part, kernel[:, i : i + high, o : o + wide])
            np.copyto(block[:wide, i : i + high], part.transpose(2, 1, 0))
        yield block[:wide]
