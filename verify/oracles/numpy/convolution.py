"""The oracle's standardised convolutions: one kernel, in every precision and order of channels that it is wanted in.

A kernel is taken a few output channels at a time, few enough to stay in the processor's cache: there they are
standardised for one run after the other, and multiplied with that run's windows. So the kernel comes from memory once,
and no other kernel is made there. Where the windows alone are large, the products are what takes time, and the kernel
is taken whole.

    kernel (height, width, in, out), operands → ``convolve()`` → maps (out, height', width') of each operand's images
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.numpy.arrays import Array, Arrays, NumpyArrays, Precision
from verify.oracles.numpy.threads import at_once, threads

BLOCK_BYTES = 1 << 25
"""About how large the pieces are in which the windows of images are made, where a processor's cache is to hold much of
them."""
DEVICE_BYTES = 1 << 29
"""The same on a GPU, which waits for each piece to be asked for."""
TILE_VALUES = 1 << 19
"""About how many values of a kernel are standardised at once."""
TILE_CHANNELS = 32
"""The fewest output channels of a tile: two cache lines of each row."""
SUMMED_ROWS = 64
"""Rows added one after another before their sums are; keeps float32 sums as exact as pairwise summation."""
SQUARED_ROWS = SUMMED_ROWS * 64
"""Rows whose squares are made at once."""
PARALLEL_VALUES = 1 << 12
"""The size of a kernel from which several threads pay."""


@dataclass(frozen=True)
class Operand:
    """One run's images, (in, height, width) arrays, and how the kernel is to be standardised for them."""

    images: Sequence[Array]
    rows: npt.NDArray[Any] | None
    """The order of the input channels; None is Google's."""
    precision: Precision
    epsilon: float


def convolve(
    arrays: Arrays, kernel: npt.NDArray[Any], operands: Sequence[Operand], size: int, stride: int
) -> list[list[Array]]:
    """The maps of each operand's images, padded by ``size // 2`` zeros; output channels in Google's order."""
    windows = [_Windows(arrays, operand.images, size, stride) for operand in operands]
    outputs = [each.empty(kernel.shape[-1]) for each in windows]
    groups = _alike(operands)
    device_kernel = arrays.put(kernel, str(kernel.dtype))

    def work(channels: slice, members: Sequence[Sequence[int]]) -> None:
        with arrays.exactly():
            tile = arrays.contiguous(device_kernel[..., channels])
            for group in members:
                first = operands[group[0]]
                centred, variance = _centred(arrays, _as_matrix(arrays, tile, first.rows, first.precision))
                for index in group:
                    matrix = _divided(arrays, centred, variance, operands[index].epsilon, index == group[-1])
                    for block in windows[index].blocks():
                        block.put(matrix.T @ block.columns, outputs[index], channels)

    tiles = _tiles(kernel.shape) if arrays.parallel and all(each.fit for each in windows) else [slice(None)]
    shared: list[Sequence[Sequence[int]]] = [groups] if len(tiles) > 1 else [[group] for group in groups]
    tasks = [(tile, members) for tile in tiles for members in shared]
    large = kernel.size >= PARALLEL_VALUES or not all(each.fit for each in windows)
    workers = threads() if arrays.parallel and large else 1
    at_once(_Windows.prepare, [(each,) for each in windows], workers)
    at_once(work, tasks, workers)
    return outputs


def multiplied(matrix: npt.NDArray[Any], image: npt.NDArray[Any], size: int, stride: int) -> npt.NDArray[Any]:
    """The maps of one image under a (height·width·in, out) matrix that is used as it is, in NumPy."""
    windows = _Windows(NumpyArrays(), [image], size, stride)
    outputs = windows.empty(matrix.shape[1])
    for block in windows.blocks():
        block.put(matrix.T @ block.columns, outputs, slice(None))
    return outputs[0]


def _alike(operands: Sequence[Operand]) -> list[list[int]]:
    """The operands for which a kernel has the same mean and variance, to the last bit, by their places."""
    groups: dict[tuple[Precision, int], list[int]] = {}
    for index, operand in enumerate(operands):
        groups.setdefault((operand.precision, id(operand.rows)), []).append(index)
    return list(groups.values())


def _tiles(shape: Sequence[int]) -> list[slice]:
    """Some output channels after the other."""
    *inner, channels = shape
    step = TILE_VALUES // int(np.prod(inner)) // TILE_CHANNELS * TILE_CHANNELS
    step = max(step, TILE_CHANNELS)
    return [slice(start, min(start + step, channels)) for start in range(0, channels, step)]


def _as_matrix(arrays: Arrays, kernel: Array, rows: npt.NDArray[Any] | None, precision: Precision) -> Array:
    """A kernel as a fresh (height·width·in, out) matrix; ``rows`` is an order of its input channels."""
    if rows is not None:
        kernel = arrays.take(kernel, rows, axis=2)
    return arrays.cast(kernel, precision).reshape(-1, kernel.shape[-1])


def _centred(arrays: Arrays, matrix: Array) -> tuple[Array, Array]:
    """w - mean over height, width and input channels, in place, and the biased variance of each output channel."""
    count = len(matrix)
    matrix -= _sum_rows(arrays, matrix) / count
    squares = []
    for start in range(0, count, SQUARED_ROWS):
        piece = matrix[start : start + SQUARED_ROWS]
        squares += _short_sums(piece * piece)
    return matrix, _sum_rows(arrays, _joined(arrays, squares)) / count


def _divided(arrays: Arrays, centred: Array, variance: Array, epsilon: float, in_place: bool) -> Array:
    """(w - mean) / sqrt(variance + epsilon): big_transfer, ``StdConv2d.forward``."""
    deviation = arrays.sqrt(variance + epsilon)
    if in_place:
        centred /= deviation
        return centred
    quotient: Array = centred / deviation
    return quotient


def _sum_rows(arrays: Arrays, matrix: Array) -> Array:
    """The sum of the rows: short sums of rows first, then the sum of those."""
    while len(matrix) > 1:
        matrix = _joined(arrays, _short_sums(matrix))
    return matrix.reshape(-1)


def _short_sums(matrix: Array) -> list[Array]:
    """The sums of SUMMED_ROWS rows each, (sums, columns), and of the rows that are left over."""
    whole = len(matrix) // SUMMED_ROWS * SUMMED_ROWS
    sums = [matrix[:whole].reshape(-1, SUMMED_ROWS, matrix.shape[1]).sum(axis=1)] if whole else []
    return [*sums, matrix[whole:].sum(axis=0)[None]] if whole < len(matrix) else sums


def _joined(arrays: Arrays, sums: Sequence[Array]) -> Array:
    return sums[0] if len(sums) == 1 else arrays.concatenate(sums)


@dataclass(frozen=True)
class _Block:
    """Windows of images of one size, as columns, and where their outputs go."""

    columns: Array
    """(height·width·in, images·rows·width')."""
    images: Sequence[int]
    rows: slice
    wide: int

    def put(self, product: Array, outputs: Sequence[Array], channels: slice) -> None:
        """Writes a product, (some channels, images·rows·width'), into the images' maps."""
        parts = product.reshape(-1, len(self.images), self.rows.stop - self.rows.start, self.wide)
        for place, image in enumerate(self.images):
            outputs[image][channels, self.rows] = parts[:, place]


class _Windows:
    """The windows of images under a convolution, in Google's order of a kernel's rows: (height, width, in)."""

    def __init__(self, arrays: Arrays, images: Sequence[Array], size: int, stride: int) -> None:
        self._arrays, self._images, self._size, self._stride = arrays, images, size, stride
        self._kept: list[_Block] | None = None
        self._sizes: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            self._sizes.setdefault((int(image.shape[1]), int(image.shape[2])), []).append(index)
        self.fit = all(self._rows_at_once(*key) >= self._output(key[0]) for key in self._sizes)
        """Whether the windows of images of one size are one block."""

    def empty(self, channels: int) -> list[Array]:
        shapes = [(channels, self._output(x.shape[1]), self._output(x.shape[2])) for x in self._images]
        return [self._arrays.empty(shape, x) for shape, x in zip(shapes, self._images, strict=True)]

    def prepare(self) -> None:
        """Makes the windows, where they are few enough to be kept."""
        self._kept = list(self._made()) if self.fit else None

    def blocks(self) -> Iterable[_Block]:
        return self._made() if self._kept is None else self._kept

    def _output(self, side: int) -> int:
        return (side - 1) // self._stride + 1

    def _rows_at_once(self, height: int, width: int) -> int:
        """The rows of output whose windows are made at once."""
        if self._size == 1:
            return height
        x = self._images[0]
        values = self._size**2 * x.shape[0] * len(self._sizes[height, width]) * self._output(width)
        size = BLOCK_BYTES if self._arrays.parallel else DEVICE_BYTES
        return max(1, size // (int(values) * int(x.itemsize)))

    def _made(self) -> Iterator[_Block]:
        for (height, width), members in self._sizes.items():
            images = [self._images[index] for index in members]
            parts: list[tuple[int | slice, Array]] = list(enumerate(images))
            if not self._arrays.parallel and len(images) > 1:  # one launch instead of one for each image
                parts = [(slice(None), self._arrays.stack(images, axis=1))]
            high, wide = self._output(height), self._output(width)
            step = self._rows_at_once(height, width)
            if self._size > 1:
                parts = [(place, self._arrays.pad(x, self._size // 2)) for place, x in parts]
            for top in range(0, high, step):
                rows = slice(top, min(top + step, high))
                yield _Block(self._columns(parts, len(images), rows, wide), members, rows, wide)

    def _columns(self, padded: Sequence[tuple[int | slice, Array]], images: int, rows: slice, wide: int) -> Array:
        """The windows of some rows of output; ``padded`` are images by their places, one or all at a time."""
        size, stride, high = self._size, self._stride, rows.stop - rows.start
        first = padded[0][1]
        channels = first.shape[0]
        if size == stride == len(padded) == 1:
            return first.reshape(channels, -1)
        columns = self._arrays.empty((size, size, channels, images, high, wide), first)
        for dy in range(size):
            for dx in range(size):
                y = rows.start * stride + dy
                down = slice(y, y + (high - 1) * stride + 1, stride)
                across = slice(dx, dx + (wide - 1) * stride + 1, stride)
                for place, x in padded:
                    columns[dy, dx, :, place] = x[..., down, across]
        return columns.reshape(size * size * channels, -1)
