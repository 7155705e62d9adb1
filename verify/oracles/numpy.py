"""The NumPy oracle: BiT's forward pass on the raw tensors of a checkpoint, in float64 and in float32.

It walks the network tensor by tensor. Each tensor is read once, used for every run and every image, and dropped, so
that memory holds one kernel and the activations, never the network. A run is a precision and an order of channels:
one float64 run is the truth; float32 runs, one in Google's order and the others with the channels of every axis
permuted (groups of a group norm among themselves, and the channels within each), compute the same function with other
roundings, and so measure what float32 can be held to.

It spells Google's npz names itself, and its arithmetic is written from the paper (Kolesnikov et al., Big Transfer,
arXiv:1912.11370) and checked against Google's published code (google-research/big_transfer, bit_pytorch/models.py).

    source tensors, images → ``layers()`` → Layer …, → ``head_blocks()`` → HeadBlock …
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.protocols import HeadBlock, Layer, OracleError, Tensors

Array = npt.NDArray[Any]

NAME = "NumPy float64"
FLOAT32_RUNS = 4
"""One in Google's order and three permuted."""

IMAGE_ORDERS = ((1, 2, 0), (2, 0, 1), (2, 1, 0))
"""Orders of red, green and blue for the permuted runs; none is Google's."""

GROUPS = 32
NORM_EPSILON = 1e-5
STANDARDIZATION_EPSILON = 1e-10

BLOCK_BYTES = 1 << 25
"""About how large the pieces are in which columns of a convolution, and of the head, are made."""
SUMMED_ROWS = 64
"""Rows added one after another before their sums are; keeps float32 sums as exact as pairwise summation."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Arithmetic:
    """The constants of BiT's arithmetic. The defaults are Google's; a diagnosis tries others."""

    standardization_epsilon: float = STANDARDIZATION_EPSILON
    norm_epsilon: float = NORM_EPSILON
    groups: int = GROUPS
    pool_padding: str = "zeros"


@dataclass(frozen=True)
class _Maps:
    """The activations of one run: one (channels, ...) array an image, in this run's order of channels."""

    images: Sequence[Array]
    order: Array | None
    random: np.random.Generator | None

    @property
    def channels(self) -> int:
        return int(self.images[0].shape[0])

    def new_order(self, channels: int) -> Array | None:
        """An order of channels for the next activations; None is Google's."""
        return None if self.random is None else _grouped_order(channels, self.random)

    def restored(self, image: int) -> Array:
        """An image's activations in Google's order."""
        if self.order is None:
            return self.images[image]
        back = np.empty_like(self.images[image])
        back[self.order] = self.images[image]
        return back

    def __add__(self, other: _Maps) -> _Maps:
        sums = [a + b for a, b in zip(self.images, other.images, strict=True)]
        return _Maps(sums, self.order, self.random)


class NumpyOracle:
    """A checkpoint's network. Raises OracleError where names or shapes are not those of a BiT."""

    name = NAME
    note = ""

    def __init__(
        self,
        source: Tensors,
        *,
        pool_padding: str = "zeros",
        float32_runs: int = FLOAT32_RUNS,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self.arithmetic = arithmetic or Arithmetic(pool_padding=pool_padding)
        if self.arithmetic.pool_padding not in ("zeros", "-inf"):
            raise ValueError(f"pool_padding is 'zeros' or '-inf', not {pool_padding!r}")
        self.source = source
        self.float32_runs = float32_runs
        self.concerns: dict[str, str] = {}
        """Tensor → why no verdict can rest on it; filled while the network is walked."""
        self.units = _units(source.shapes)
        self._features: list[_Maps] = []
        self._dtype: type[np.floating[Any]] = np.float64

    @property
    def layer_names(self) -> list[str]:
        """The named tensors of the trunk, in the order in which they are computed."""
        units = [f"block{b}/unit{u:02d}" for b, count in enumerate(self.units, 1) for u in range(1, count + 1)]
        return ["root", *units, "norm", "features"]

    @property
    def classes(self) -> int | None:
        """The number of logits that the head gives; None without a head."""
        shape = self.source.shapes.get("resnet/head/conv2d/kernel")
        return None if shape is None else shape[-1]

    def forward(self, images: Array | Sequence[Array], dtype: type[np.floating[Any]] = np.float64) -> dict[str, Array]:
        """The features and, with a head, the logits of (3, height, width) images, in one run of ``dtype``."""
        oracle = NumpyOracle(self.source, float32_runs=0, arithmetic=self.arithmetic)
        oracle._dtype = dtype
        with np.errstate(all="ignore"):
            for _ in oracle.layers([image[None] for image in images]):
                pass
            outputs = {"features": np.stack(oracle._features[0].images)}
            if self.classes is not None:
                outputs["logits"] = np.concatenate([block.truth for block in oracle.head_blocks()], axis=1)
        return outputs

    def layers(self, images: Sequence[Array]) -> Iterator[Layer]:
        """The trunk's tensors, layer by layer, for (1, 3, height, width) images: first every image's ``root``."""
        streams = self._start(images)
        for name in self.layer_names:
            streams = self._step(name, streams)
            yield from _layer(name, streams)

    def layer(self, name: str, inputs: Sequence[Array]) -> list[Layer]:
        """One layer of the trunk by itself, on the (1, channels, height, width) inputs it is given."""
        return list(_layer(name, self._step(name, self._start(inputs))))

    def head_blocks(self) -> Iterator[HeadBlock]:
        """The head's columns, block by block, on the features of the last walk over ``layers``."""
        channels, classes = self._features[0].channels, self.classes or 0
        kernel = self._read("resnet/head/conv2d/kernel", (1, 1, channels, classes)).reshape(channels, classes)
        bias = self._read("resnet/head/conv2d/bias", (classes,))
        step = max(1, BLOCK_BYTES // (8 * channels))
        for start in range(0, classes, step):
            columns = slice(start, min(start + step, classes))
            exact = kernel[:, columns].astype(np.float64)
            truth, *runs = (_logits(m, exact, kernel[:, columns], bias[columns]) for m in self._features)
            shape = (len(runs), *truth.shape)
            yield HeadBlock(
                columns,
                exact,
                bias[columns].astype(np.float64),
                truth,
                np.array(runs, np.float32).reshape(shape),
            )

    def _start(self, images: Sequence[Array]) -> list[_Maps]:
        streams = []
        for run in range(1 + self.float32_runs):
            random = np.random.default_rng(run) if run > 1 else None
            order = None if random is None else _new_order(images[0].shape[1], run, random)
            dtype = self._dtype if run == 0 else np.float32
            ordered = [image[0] if order is None else image[0][order] for image in images]
            streams.append(_Maps([x.astype(dtype) for x in ordered], order, random))
        return streams

    def _step(self, name: str, streams: list[_Maps]) -> list[_Maps]:
        """One layer."""
        if name == "root":
            streams = self._conv("resnet/root_block/", streams, size=7, stride=2)
            return _mapped(streams, self._pool)
        if name == "norm":
            return self._norm("resnet/", streams)
        if name == "features":
            self._features = _mapped(streams, lambda x: x.reshape(len(x), -1).mean(axis=1))
            return self._features
        first_of_later_block = name.endswith("/unit01") and name != "block1/unit01"
        return self._unit(f"resnet/{name}/", streams, stride=2 if first_of_later_block else 1)

    def _pool(self, x: Array) -> Array:
        return _max_pool(x, self.arithmetic.pool_padding)

    def _unit(self, at: str, streams: list[_Maps], stride: int) -> list[_Maps]:
        """A pre-activation bottleneck, the stride on its 3×3 convolution; the shortcut is projected where it can be."""
        preactivated = self._norm(at + "a/", streams)
        if at + "a/proj/standardized_conv2d/kernel" in self.source.shapes:
            streams = self._conv(at + "a/proj/", preactivated, stride=stride)
        branch = self._conv(at + "a/", preactivated)
        del preactivated
        branch = self._conv(at + "b/", self._norm(at + "b/", branch), size=3, stride=stride)
        branch = self._conv(at + "c/", self._norm(at + "c/", branch), like=streams)
        if branch[0].images[0].shape != streams[0].images[0].shape:
            raise OracleError(f"{at}c/standardized_conv2d/kernel: its output does not fit the shortcut's")
        return [b + s for b, s in zip(branch, streams, strict=True)]

    def _norm(self, at: str, streams: list[_Maps]) -> list[_Maps]:
        """Group norm and ReLU."""
        channels = streams[0].channels
        scale = self._read(at + "group_norm/gamma", (channels,))
        bias = self._read(at + "group_norm/beta", (channels,))
        normed = []
        for maps in streams:
            order = slice(None) if maps.order is None else maps.order
            images = [self._normed(x, scale[order], bias[order]) for x in maps.images]
            normed.append(_Maps(images, maps.order, maps.random))
        return normed

    def _normed(self, x: Array, scale: Array, bias: Array) -> Array:
        y = _group_norm(x, scale, bias, self.arithmetic.groups, self.arithmetic.norm_epsilon)
        return np.maximum(y, 0, out=y)

    def _conv(
        self, at: str, streams: list[_Maps], size: int = 1, stride: int = 1, like: list[_Maps] | None = None
    ) -> list[_Maps]:
        """A standardised convolution; ``like`` gives the order of the output's channels, else it is a new one."""
        name = at + "standardized_conv2d/kernel"
        kernel = self._read(name, (size, size, streams[0].channels, None))
        if not kernel.size or kernel.shape[-1] % GROUPS:
            raise OracleError(f"{name}: {kernel.shape[-1]} output channels do not make {GROUPS} groups")
        self._note_constant_channel(name, kernel)

        def convolve(maps: _Maps, order: Array | None) -> _Maps:
            with np.errstate(all="ignore"):  # which a thread does not inherit
                matrix = self._matrix(kernel, maps.order, maps.images[0].dtype)
                outputs = self._convolved(maps.images, matrix, size, stride)
            return _Maps(outputs if order is None else [y[order] for y in outputs], order, maps.random)

        orders = [maps.order for maps in like] if like else [maps.new_order(kernel.shape[-1]) for maps in streams]
        return _at_once(convolve, streams, orders)

    def _convolved(self, images: Sequence[Array], matrix: Array, size: int, stride: int) -> list[Array]:
        """Images of one size make one product, for which the matrix is read once."""
        if len({x.shape for x in images}) == 1:
            return _convolve(images, matrix, size, stride)
        return [y for x in images for y in _convolve([x], matrix, size, stride)]

    def _matrix(self, kernel: Array, rows: Array | None, dtype: Any) -> Array:
        """The standardised kernel, (height·width·in, out); ``rows`` is the order of its input channels."""
        return _standardized(_as_matrix(kernel, rows, dtype), self.arithmetic.standardization_epsilon)

    def _read(self, name: str, shape: tuple[int | None, ...]) -> Array:
        actual = self.source.shapes.get(name)
        if actual is None:
            raise OracleError(f"the source has no tensor {name}")
        if len(actual) != len(shape) or any(e not in (None, a) for e, a in zip(shape, actual, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise OracleError(f"{name} has shape {tuple(actual)}, not ({wanted})")
        tensor = self.source.read(name)
        if not np.isfinite(tensor).all():
            self.concerns.setdefault(name, "holds NaN or Inf")
        return tensor

    def _note_constant_channel(self, name: str, kernel: Array) -> None:
        """A channel whose values are all the same, and not zero, has no variance: float32 then standardises noise."""
        flat = kernel.reshape(-1, kernel.shape[-1])
        first = flat[0]
        candidates = np.flatnonzero((first == flat[-1]) & (first == flat[len(flat) // 2]) & (first != 0))
        constant = [channel for channel in candidates if (flat[:, channel] == first[channel]).all()]
        if constant:
            self.concerns.setdefault(
                name,
                f"has no variance in output channel {constant[0]}, where every value is {first[constant[0]]!s}",
            )


def _units(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """The number of units of each block, counted from the names."""
    units: list[int] = []
    while f"resnet/block{len(units) + 1}/unit01/a/standardized_conv2d/kernel" in shapes:
        block, count = len(units) + 1, 1
        while f"resnet/block{block}/unit{count + 1:02d}/a/standardized_conv2d/kernel" in shapes:
            count += 1
        units.append(count)
    if not units:
        raise OracleError("the source has no tensor resnet/block1/unit01/a/standardized_conv2d/kernel")
    return tuple(units)


def _layer(name: str, streams: list[_Maps]) -> Iterator[Layer]:
    for image in range(len(streams[0].images)):
        truth, *runs = (maps.restored(image) for maps in streams)
        yield Layer(name, image, truth, runs)


def _mapped(streams: list[_Maps], change: Callable[[Array], Array]) -> list[_Maps]:
    return [_Maps([change(x) for x in maps.images], maps.order, maps.random) for maps in streams]


def _grouped_order(channels: int, random: np.random.Generator) -> Array:
    """A random order of channels that keeps the groups of a group norm together."""
    size = channels // GROUPS
    within = random.permuted(np.tile(np.arange(size), (GROUPS, 1)), axis=1)
    order: Array = (random.permutation(GROUPS)[:, None] * size + within).reshape(-1)
    return order


def _new_order(channels: int, run: int, random: np.random.Generator) -> Array:
    """The order of the first activations: of the image's three channels, or of a trunk's."""
    return np.array(IMAGE_ORDERS[run % len(IMAGE_ORDERS)]) if channels == 3 else _grouped_order(channels, random)


def _at_once(function: Callable[..., _Maps], *arguments: Sequence[Any]) -> list[_Maps]:
    """Like ``map``, on as many threads as NumPy's own products take: NumPy computes without the interpreter's lock."""
    threads = _threads()
    if threads == 1:
        return list(map(function, *arguments))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, *arguments))


def _threads() -> int:
    """The number that OMP_NUM_THREADS asks of every library, or else the number of processors this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal():
        return max(1, int(asked))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _as_matrix(kernel: Array, rows: Array | None, dtype: Any) -> Array:
    """A kernel as a fresh (height·width·in, out) matrix; ``rows`` is an order of its input channels."""
    if rows is not None:
        kernel = kernel.take(rows, axis=2)
    matrix: Array = kernel.reshape(-1, kernel.shape[-1]).astype(dtype, copy=rows is None)
    return matrix


def _standardized(matrix: Array, epsilon: float) -> Array:
    """(w - mean) / sqrt(variance + epsilon) over height, width and input channels, in place.

    Source of the formula: big_transfer, ``StdConv2d.forward``; the variance is the biased one.
    """
    count = np.asarray(len(matrix), matrix.dtype)
    mean = _sum_rows(matrix) / count
    squares = []
    for piece in _pieces(matrix):
        piece -= mean
        squares.append(np.add.reduce(piece * piece, axis=0))
    variance = _sum_rows(np.stack(squares)) / count
    matrix /= np.sqrt(variance + np.asarray(epsilon, matrix.dtype))
    return matrix


def _sum_rows(matrix: Array) -> Array:
    """The sum of the rows: short sums of rows first, then the sum of those."""
    while True:
        sums = [np.add.reduce(piece, axis=0) for piece in _pieces(matrix)]
        if len(sums) == 1:
            return np.asarray(sums[0])
        matrix = np.stack(sums)


def _pieces(matrix: Array) -> Iterator[Array]:
    """Yields views of a few rows each."""
    return (matrix[start : start + SUMMED_ROWS] for start in range(0, len(matrix), SUMMED_ROWS))


def _convolve(images: Sequence[Array], matrix: Array, size: int, stride: int) -> list[Array]:
    """(in, height, width) → (out, height', width'), padded by size // 2 zeros, for images of one size.

    The columns of all images make one product, some rows of the output at a time.
    """
    count, (channels, height, width) = len(images), images[0].shape
    high, wide = (height - 1) // stride + 1, (width - 1) // stride + 1
    if size == 1:
        columns = np.stack([x[:, ::stride, ::stride] for x in images], axis=1)
        flat = (matrix.T @ columns.reshape(channels, -1)).reshape(-1, count, high, wide)
        return [np.ascontiguousarray(flat[:, index]) for index in range(count)]
    padding = size // 2
    padded = [np.pad(x, ((0, 0), (padding, padding), (padding, padding))) for x in images]
    out = [np.empty((matrix.shape[1], high, wide), matrix.dtype) for _ in images]
    step = max(1, BLOCK_BYTES // (len(matrix) * count * wide * matrix.itemsize))
    for top in range(0, high, step):
        rows = min(step, high - top)
        columns = np.empty((size, size, channels, count, rows, wide), matrix.dtype)
        for dy in range(size):
            for dx in range(size):
                y = top * stride + dy
                down = slice(y, y + (rows - 1) * stride + 1, stride)
                across = slice(dx, dx + (wide - 1) * stride + 1, stride)
                for index, x in enumerate(padded):
                    columns[dy, dx, :, index] = x[:, down, across]
        product = (matrix.T @ columns.reshape(len(matrix), -1)).reshape(-1, count, rows, wide)
        for index, part in enumerate(out):
            part[:, top : top + rows] = product[:, index]
    return out


def _max_pool(x: Array, pool_padding: str) -> Array:
    """3×3 with stride 2, after one row and column of zeros (big_transfer) or −inf (big_vision) on every side."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf if pool_padding == "-inf" else 0)
    high, wide = ((size - 1) // 2 + 1 for size in x.shape[1:])
    pooled: Array = padded[:, : 2 * high : 2, : 2 * wide : 2].copy()
    for dy in range(3):
        for dx in range(3):
            np.maximum(pooled, padded[:, dy : dy + 2 * high - 1 : 2, dx : dx + 2 * wide - 1 : 2], out=pooled)
    return pooled


def _group_norm(x: Array, scale: Array, bias: Array, groups: int, epsilon: float) -> Array:
    """Group norm with the biased variance, sums over a contiguous axis; a fresh array."""
    grouped = x.reshape(groups, -1)
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    variance = (centred * centred).mean(axis=1, keepdims=True)
    deviation = np.sqrt(variance + np.asarray(epsilon, x.dtype))
    y: Array = centred.reshape(len(x), -1)
    y *= (scale.astype(x.dtype).reshape(groups, -1) / deviation).reshape(-1, 1)
    y += bias.astype(x.dtype)[:, None]
    return y.reshape(x.shape)


def _logits(features: _Maps, exact: Array, kernel: Array, bias: Array) -> Array:
    """(images, columns): the features of one run times some columns of the head, in that run's precision."""
    stacked = np.stack(features.images)
    matrix = exact if stacked.dtype == np.float64 else kernel.astype(stacked.dtype)
    if features.order is not None:
        matrix = matrix[features.order]
    return np.asarray(stacked @ matrix + bias.astype(stacked.dtype))
