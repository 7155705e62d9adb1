"""Transposes kernels within the processor's cache: Google's have the output channels last, PyTorch's first.

What a transposition strides over falls out of the cache before it is used again, so that it is done in tiles. Their
rows lie a little apart: as far apart as a kernel's own, a power of two, they would all fall into the same few of its
lines.

    kernel (window, inputs, outputs) → tiles of some inputs and outputs → out (outputs, inputs, window), and back
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROWS = 144
"""About how many runs of output channels a tile has: 16 inputs of a 3×3 kernel, 144 of a 1×1."""
OUTPUTS = 2048
"""Output channels that are transposed at a time, or compared."""
BACK_VALUES, BACK_OUTPUTS = 288, 512
"""The same of tiles on the way back: the values of an output channel, and the output channels."""
GAP = 16
"""Values between two rows: a line of the cache."""


def same_bits(one: Array, other: Array) -> bool:
    """Whether two arrays of one dtype have the same bits in the same places; no copy is made of either."""
    bits = f"u{one.itemsize}"
    return bool(np.array_equal(one.view(bits), other.view(bits)))


@dataclass(frozen=True)
class Tile:
    """Some of a kernel's values, (inputs, window, outputs), and where they belong.

    ``rows`` are the output channels: rows of the transposed kernel.
    """

    inputs: slice
    rows: slice
    values: Array

    def put(self, out: Array) -> None:
        """Transposes into ``out``, (outputs, inputs, window) in C order, which holds the rows of this tile alone."""
        np.copyto(*self._both(out))

    def equals(self, stored: Array) -> bool:
        """Whether ``stored``, the rows that ``put`` would fill, has the very bits of this tile."""
        part, values = self._both(stored)
        pieces = (slice(start, start + OUTPUTS) for start in range(0, len(part), OUTPUTS))
        return all(same_bits(part[piece], values[piece]) for piece in pieces)

    def _both(self, rows: Array) -> tuple[Array, Array]:
        """The part of these rows that the tile is, and its values, in one shape: (outputs, inputs · window)."""
        inputs, window, outputs = self.values.shape
        part = rows.reshape(outputs, -1)[:, self.inputs.start * window : self.inputs.stop * window]
        return part, self.values.reshape(inputs * window, outputs).T


def empty_tiles(inputs: int, window: int, outputs: int, most: int, dtype: npt.DTypeLike) -> Iterator[Tile]:
    """The tiles of a kernel, to be filled: all inputs of at most ``most`` outputs, then those of the next outputs.

    Each is valid until the next is asked for, since they share their memory: ``values`` of one shape in succession are
    the same array. Its ``reshape`` to (inputs · window, outputs) makes no copy.
    """
    step = max(1, ROWS // window)
    room = np.empty((min(step, inputs), window, min(most, outputs) + GAP), dtype)
    values = room[:, :, :-GAP]
    for o in range(0, outputs, most):
        for i in range(0, inputs, step):
            rows, columns = slice(i, min(i + step, inputs)), slice(o, min(o + most, outputs))
            shape = (rows.stop - i, window, columns.stop - o)
            if values.shape != shape:
                values = room[: shape[0], :, : shape[2]]
            yield Tile(rows, columns, values)


def tiles_of(kernel: Array, most: int) -> Iterator[Tile]:
    """The tiles of an array (window, inputs, outputs), each valid until the next is asked for."""
    window, inputs, outputs = kernel.shape
    for tile in empty_tiles(inputs, window, outputs, most, kernel.dtype):
        np.copyto(tile.values, kernel[:, tile.inputs, tile.rows].transpose(1, 0, 2))
        yield tile


def outputs_first(kernel: Array, out: Array) -> None:
    """``kernel`` (window, inputs, outputs) → ``out`` (outputs, inputs, window), C-contiguous."""
    for tile in tiles_of(kernel, OUTPUTS):
        tile.put(out[tile.rows])


def outputs_last(stored: Array, out: Array) -> None:
    """``stored`` (outputs, inputs, window) → ``out`` (window, inputs, outputs), both C-contiguous."""
    window, inputs, outputs = out.shape
    step, rows = max(1, BACK_VALUES // window), stored.reshape(outputs, -1)
    room = np.empty((min(BACK_OUTPUTS, outputs), min(step, inputs) * window + GAP), out.dtype)
    for o in range(0, outputs, BACK_OUTPUTS):
        for i in range(0, inputs, step):
            some = rows[o : o + BACK_OUTPUTS, i * window : (i + step) * window]
            values = room[: some.shape[0], : some.shape[1]]
            np.copyto(values, some)
            values = values.reshape(len(some), -1, window)
            np.copyto(out[:, i : i + step, o : o + BACK_OUTPUTS], values.transpose(2, 1, 0))
