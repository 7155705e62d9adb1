"""The walk of the oracle over a checkpoint: its tensors one by one, for every run and every image.

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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.numpy.ahead import ReadAhead
from verify.oracles.numpy.arrays import Array, Arrays, arrays_of
from verify.oracles.numpy.convolution import Operand, convolve
from verify.protocols import HeadBlock, Layer, OracleError, Tensors

FLOAT32_RUNS = 4
"""One in Google's order and three permuted."""

IMAGE_ORDERS = ((1, 2, 0), (2, 0, 1), (2, 1, 0))
"""Orders of red, green and blue for the permuted runs; none is Google's."""

HEAD_KERNEL = "resnet/head/conv2d/kernel"
HEAD_VALUES = 1 << 19
"""About how many values of the head's kernel are multiplied with at once: few enough for the processor's cache."""

GROUPS = 32
NORM_EPSILON = 1e-5
STANDARDIZATION_EPSILON = 1e-10

Shape = tuple[int, ...]
Order = npt.NDArray[np.intp]
"""An order of channels."""


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
    arithmetic: Arithmetic
    precision: str
    order: Order | None = None
    random: np.random.Generator | None = None

    @property
    def channels(self) -> int:
        return int(self.images[0].shape[0])

    def new_order(self, channels: int) -> Order | None:
        """An order of channels for the next activations; None is Google's."""
        return None if self.random is None else _grouped_order(channels, self.random)

    def __add__(self, other: _Maps) -> _Maps:
        return replace(self, images=[a + b for a, b in zip(self.images, other.images, strict=True)])


class NumpyOracle:
    """A checkpoint's network. Raises OracleError where names or shapes are not those of a BiT.

    ``beside`` are other constants of arithmetic that the same tensors are computed with at the same time, in one
    float64 and one float32 run each. ``device`` is ``cpu``, where NumPy computes, or one of PyTorch's.
    ``reads_ahead`` has the source read in a thread of its own, the next kernel while one is computed with.
    """

    note = ""

    def __init__(
        self,
        source: Tensors,
        *,
        pool_padding: str = "zeros",
        float32_runs: int = FLOAT32_RUNS,
        arithmetic: Arithmetic | None = None,
        beside: Sequence[Arithmetic] = (),
        device: str = "cpu",
        reads_ahead: bool = False,
    ) -> None:
        self.arithmetic = arithmetic or Arithmetic(pool_padding=pool_padding)
        if self.arithmetic.pool_padding not in ("zeros", "-inf"):
            raise ValueError(f"pool_padding is 'zeros' or '-inf', not {pool_padding!r}")
        self.source = source
        self.float32_runs = float32_runs
        self.beside = tuple(beside)
        self.device = device
        self.concerns: dict[str, str] = {}
        """Tensor → why no verdict can rest on it; filled while the network is walked."""
        self.units = _units(source.shapes)
        self._arrays: Arrays = arrays_of(device)
        self._reads_ahead = reads_ahead
        self._read_values = source.read
        self._held: dict[str, npt.NDArray[Any]] = {}
        """Tensors that were read already."""
        self._features: list[_Maps] = []
        self._precision = "float64"

    @property
    def name(self) -> str:
        return self._arrays.name

    @property
    def layer_names(self) -> list[str]:
        """The named tensors of the trunk, in the order in which they are computed."""
        units = [f"block{b}/unit{u:02d}" for b, count in enumerate(self.units, 1) for u in range(1, count + 1)]
        return ["root", *units, "norm", "features"]

    @property
    def classes(self) -> int | None:
        """The number of logits that the head gives; None without a head."""
        shape = self.source.shapes.get(HEAD_KERNEL)
        return None if shape is None else shape[-1]

    def forward(self, images: Array | Sequence[Array], dtype: type[np.floating[Any]] = np.float64) -> dict[str, Array]:
        """The features and, with a head, the logits of (3, height, width) images, in one run of ``dtype``."""
        oracle = NumpyOracle(self.source, float32_runs=0, arithmetic=self.arithmetic, device=self.device)
        oracle._precision = np.dtype(dtype).name
        with np.errstate(all="ignore"):
            for _ in oracle.layers([image[None] for image in images]):
                pass
            outputs = {"features": np.stack([self._arrays.numpy(x) for x in oracle._features[0].images])}
            if self.classes is not None:
                outputs["logits"] = np.concatenate([block.truth for block in oracle.head_blocks()], axis=1)
        return outputs

    def layers(self, images: Sequence[Array]) -> Iterator[Layer]:
        """The trunk's tensors, layer by layer, for (1, 3, height, width) images: first every image's ``root``."""
        return (layers[0] for layers in self.walk(images))

    def walk(self, images: Sequence[Array]) -> Iterator[Sequence[Layer]]:
        """The same with every arithmetic: each tensor by the first, then by those ``beside``."""
        ahead = ReadAhead(self.source.read, self._kernels()) if self._reads_ahead else None
        self._held.clear()
        self._read_values = ahead.read if ahead else self.source.read
        try:
            streams = self._start(images)
            for name in self.layer_names:
                streams = self._step(name, streams)
                yield from self._layers(name, streams)
            if ahead and self.classes is not None:
                self._held[HEAD_KERNEL] = ahead.read(HEAD_KERNEL)
        finally:
            self._read_values = self.source.read
            if ahead:
                ahead.close()

    def layer(self, name: str, inputs: Sequence[Array]) -> list[Layer]:
        """One layer of the trunk by itself, on the (1, channels, height, width) inputs it is given."""
        return [layers[0] for layers in self._layers(name, self._step(name, self._start(inputs)))]

    def head_blocks(self) -> Iterator[HeadBlock]:
        """The head's columns, block by block, on the features of the last walk over ``layers``, by the first
        arithmetic."""
        channels, classes = self._features[0].channels, self.classes or 0
        kernel = self._read(HEAD_KERNEL, (1, 1, channels, classes)).reshape(channels, classes)
        bias = self._read("resnet/head/conv2d/bias", (classes,))
        step = max(1, HEAD_VALUES // channels)
        for start in range(0, classes, step):
            columns = slice(start, min(start + step, classes))
            block = np.ascontiguousarray(kernel[:, columns])
            exact = block.astype(np.float64)
            truth, *others = self._block_logits(exact, block, bias[columns])
            shape = (len(others), *truth.shape)
            yield HeadBlock(
                columns,
                exact,
                bias[columns].astype(np.float64),
                truth,
                np.array(others, np.float32).reshape(shape),
            )

    def _block_logits(
        self, exact: npt.NDArray[Any], kernel: npt.NDArray[Any], bias: npt.NDArray[Any]
    ) -> list[npt.NDArray[Any]]:
        """Each run's logits of some columns of the head, which are given in both precisions; one after the other, since
        the columns before are compared meanwhile."""
        runs = self._features[: 1 + self.float32_runs]
        return [_logits(self._arrays, features, exact, kernel, bias) for features in runs]

    def _start(self, images: Sequence[Array]) -> list[_Maps]:
        """The images in each run: those of the first arithmetic, then two of each other one."""
        runs: list[tuple[Arithmetic, int]] = [(self.arithmetic, run) for run in range(1 + self.float32_runs)]
        runs += [(arithmetic, run) for arithmetic in self.beside for run in (0, 1)]
        streams = []
        for arithmetic, run in runs:
            random = np.random.default_rng(run) if run > 1 else None
            order = None if random is None else _new_order(images[0].shape[1], run, random)
            precision = self._precision if run == 0 else "float32"
            ordered = [image[0] if order is None else image[0][order] for image in images]
            placed = [self._arrays.put(x, precision) for x in ordered]
            streams.append(_Maps(placed, arithmetic, precision, order, random))
        return streams

    def _layers(self, name: str, streams: list[_Maps]) -> Iterator[Sequence[Layer]]:
        first = 1 + self.float32_runs
        parts = [streams[:first], *(streams[start : start + 2] for start in range(first, len(streams), 2))]
        for image in range(len(streams[0].images)):
            values = [[self._restored(maps, image) for maps in part] for part in parts]
            yield [Layer(name, image, truth, runs) for truth, *runs in values]

    def _restored(self, maps: _Maps, image: int) -> npt.NDArray[Any]:
        """An image's activations in Google's order, as NumPy has them."""
        values = maps.images[image]
        if maps.order is not None:
            values = self._arrays.take(values, np.argsort(maps.order), axis=0)
        return self._arrays.numpy(values)

    def _step(self, name: str, streams: list[_Maps]) -> list[_Maps]:
        """One layer."""
        if name == "root":
            streams = self._conv("resnet/root_block/", streams, size=7, stride=2)
            return [_mapped(maps, partial(self._pool, pool_padding=maps.arithmetic.pool_padding)) for maps in streams]
        if name == "norm":
            return self._norm("resnet/", streams)
        if name == "features":
            self._features = [_mapped(maps, lambda x: x.reshape(len(x), -1).mean(axis=1)) for maps in streams]
            return self._features
        first_of_later_block = name.endswith("/unit01") and name != "block1/unit01"
        return self._unit(f"resnet/{name}/", streams, stride=2 if first_of_later_block else 1)

    def _pool(self, x: Array, pool_padding: str) -> Array:
        return _max_pool(self._arrays, x, pool_padding)

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
            gamma, beta = (self._arrays.put(values[order], maps.precision) for values in (scale, bias))
            images = [self._normed(x, gamma, beta, maps.arithmetic) for x in maps.images]
            normed.append(replace(maps, images=images))
        return normed

    def _normed(self, x: Array, scale: Array, bias: Array, arithmetic: Arithmetic) -> Array:
        y = _group_norm(self._arrays, x, scale, bias, arithmetic.groups, arithmetic.norm_epsilon)
        return self._arrays.larger(y, 0.0)

    def _conv(
        self, at: str, streams: list[_Maps], size: int = 1, stride: int = 1, like: list[_Maps] | None = None
    ) -> list[_Maps]:
        """A standardised convolution; ``like`` gives the order of the output's channels, else it is a new one."""
        name = at + "standardized_conv2d/kernel"
        kernel = self._read(name, (size, size, streams[0].channels, None))
        if not kernel.size or kernel.shape[-1] % GROUPS:
            raise OracleError(f"{name}: {kernel.shape[-1]} output channels do not make {GROUPS} groups")
        self._note_constant_channel(name, kernel)
        orders = [maps.order for maps in like] if like else [maps.new_order(kernel.shape[-1]) for maps in streams]
        convolved = self._convolved(kernel, streams, size, stride)
        return [self._ordered(*each) for each in zip(streams, convolved, orders, strict=True)]

    def _convolved(
        self, kernel: npt.NDArray[Any], streams: Sequence[_Maps], size: int, stride: int
    ) -> list[list[Array]]:
        """The outputs of each run's images, in Google's order."""
        operands = [
            Operand(maps.images, maps.order, maps.precision, maps.arithmetic.standardization_epsilon)
            for maps in streams
        ]
        return convolve(self._arrays, kernel, operands, size, stride)

    def _ordered(self, maps: _Maps, outputs: Sequence[Array], order: Order | None) -> _Maps:
        """The run with outputs in another order of channels."""
        if order is not None:
            outputs = [self._arrays.take(y, order, axis=0) for y in outputs]
        return replace(maps, images=outputs, order=order)

    def _kernels(self) -> list[str]:
        """The names of the kernels, in the order in which they are read."""
        units = [f"resnet/{name}/" for name in self.layer_names[1:-2]]
        places = ["resnet/root_block/", *(unit + part for unit in units for part in ("a/proj/", "a/", "b/", "c/"))]
        names = [*(place + "standardized_conv2d/kernel" for place in places), HEAD_KERNEL]
        return [name for name in names if name in self.source.shapes]

    def _read(self, name: str, shape: tuple[int | None, ...]) -> Array:
        actual = self.source.shapes.get(name)
        if actual is None:
            raise OracleError(f"the source has no tensor {name}")
        if len(actual) != len(shape) or any(e not in (None, a) for e, a in zip(shape, actual, strict=True)):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise OracleError(f"{name} has shape {tuple(actual)}, not ({wanted})")
        tensor = self._held.pop(name, None)
        if tensor is None:
            tensor = self._read_values(name)
        # a sum is finite where all of its terms are, unless it overflows itself: it takes half the time
        if not np.isfinite(tensor.sum()) and not np.isfinite(tensor).all():
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


def _mapped(maps: _Maps, change: Callable[[Array], Array]) -> _Maps:
    return replace(maps, images=[change(x) for x in maps.images])


def _grouped_order(channels: int, random: np.random.Generator) -> Order:
    """A random order of channels that keeps the groups of a group norm together."""
    size = channels // GROUPS
    within = random.permuted(np.tile(np.arange(size), (GROUPS, 1)), axis=1)
    order: Order = (random.permutation(GROUPS)[:, None] * size + within).reshape(-1)
    return order


def _new_order(channels: int, run: int, random: np.random.Generator) -> Order:
    """The order of the first activations: of the image's three channels, or of a trunk's."""
    return np.array(IMAGE_ORDERS[run % len(IMAGE_ORDERS)]) if channels == 3 else _grouped_order(channels, random)


def _max_pool(arrays: Arrays, x: Array, pool_padding: str) -> Array:
    """3×3 with stride 2, after one row and column of zeros (big_transfer) or −inf (big_vision) on every side."""
    padded = arrays.pad(x, 1, -np.inf if pool_padding == "-inf" else 0.0)
    high, wide = ((size - 1) // 2 + 1 for size in x.shape[1:])
    pooled = arrays.empty((len(x), high, wide), x)
    pooled[:] = padded[:, : 2 * high : 2, : 2 * wide : 2]
    for dy in range(3):
        for dx in range(3):
            arrays.larger(pooled, padded[:, dy : dy + 2 * high - 1 : 2, dx : dx + 2 * wide - 1 : 2])
    return pooled


def _group_norm(arrays: Arrays, x: Array, scale: Array, bias: Array, groups: int, epsilon: float) -> Array:
    """Group norm with the biased variance, sums over a contiguous axis; a fresh array."""
    grouped = x.reshape(groups, -1)
    centred = grouped - grouped.mean(axis=1, keepdims=True)
    variance = (centred * centred).mean(axis=1, keepdims=True)
    deviation = arrays.sqrt(variance + epsilon)
    y: Array = centred.reshape(len(x), -1)
    y *= (scale.reshape(groups, -1) / deviation).reshape(-1, 1)
    y += bias[:, None]
    return y.reshape(x.shape)


def _logits(
    arrays: Arrays, features: _Maps, exact: npt.NDArray[Any], kernel: npt.NDArray[Any], bias: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """(images, columns): the features of one run times some columns of the head, in that run's precision."""
    matrix = arrays.put(exact if features.precision == "float64" else kernel, features.precision)
    if features.order is not None:
        matrix = arrays.take(matrix, features.order, axis=0)
    with arrays.exactly():
        products = arrays.stack(features.images) @ matrix
    return arrays.numpy(products + arrays.put(bias, features.precision))
