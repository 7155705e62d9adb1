"""The graph oracle: a SavedModel's graph run on images, its outputs named as audits name them.

    source's folder → Program, variables;  images → colours as the graph takes them → logits, features → Layer …

A module takes colours in 0 … 1 or in -1 … 1, and its file does not say which. Its graph does: what stands before the
first convolution is an affine map v = a + b · p of the colours p, which three images of one colour tell. An audit's
images are v. A model fine-tuned on 0 … 255 has layers before the module that scale them, which are part of that map;
what the network is given in the end (v of the darkest and brightest colour) is what a folder's own preprocessing must
give it, ``GraphInput``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.graph.machine import Machine, Resizes
from verify.oracles.graph.program import Program, load
from verify.protocols import HeadBlock, Layer, OracleError, PoolPadding, Source
from verify.tensorflow import import_tensorflow

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

FORMAT = "saved-model"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
READINGS = {"0 … 1": (-1.0, 2.0), "-1 … 1": (0.0, 1.0), "0 … 255": (-1.0, 1 / 127.5)}
"""Range of the colours → the a and b that make it -1 … 1."""
BYTES = (1 / 512, 1 / 16)
"""A scale between these makes 0.5 to 16 of 255, and next to nothing of 1: the colours are 0 … 255, whatever is made."""
PROBES = (0.0, 1.0, 3.0)
SAME = 1e-6
SIZE = 64
"""Height and width of the probes where any will do."""


@dataclass(frozen=True)
class GraphInput:
    """The input of a graph, and of its network: ``(colour - mean) / std`` of colours brought to 0 … 1."""

    range: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int] | None
    """Height and width of the only images that it takes."""


def graph_input(source: Source) -> GraphInput | None:
    """Returns the input of a SavedModel's graph; None without a graph that can be run and that shows it."""
    if source.format != FORMAT:
        return None
    try:
        return GraphOracle(source).input
    except (OracleError, ImportError):
        return None


class GraphOracle:
    """An oracle of logits, of pooled features, or of both: whatever the graph gives."""

    name = "the SavedModel's graph in float64"

    def __init__(self, source: Source, pool_padding: PoolPadding = "zeros") -> None:
        """``pool_padding`` is the graph's own affair. Raises OracleError where there is no graph, or none to run."""
        if source.format != FORMAT:
            raise OracleError(f"a checkpoint of the format {source.format} has no graph")
        folder = Path(source.location)
        self._tf = import_tensorflow()
        self._features = _channels(source)
        self._classes = source.shapes.get("resnet/head/conv2d/kernel", (0,))[-1] or None
        with _blame():
            self._program, self._machine = _opened(self._tf, folder)
            sizes = self._program.shape[1:3] or (None, None)
            self._size: tuple[int | None, ...] = tuple(sizes)
            self._offset, self._scale = self._colours()

    @property
    def classes(self) -> int | None:
        return self._classes

    @property
    def note(self) -> str:
        low, high = (", ".join(sorted({f"{value:.4g}" for value in ends})) for ends in (self._dark, self._bright))
        made = "" if (low, high) == ("-1", "1") else f", of which it makes {low} … {high}"
        size = f"images of {self._size[0]} × {self._size[1]}, " if all(self._size) else ""
        return f"takes {size}colours in {self._range}{made}"

    @property
    def input(self) -> GraphInput:
        """The graph's input."""
        std = 1 / (self._bright - self._dark)
        height, width = self._size
        size = (height, width) if height and width else None
        return GraphInput(self._range, _plain(-self._dark * std), _plain(std), size)

    def layers(self, images: Sequence[Image]) -> Iterator[Layer]:
        """The features of every image that fits the signature, then the logits."""
        fitting = [index for index, image in enumerate(images) if self._fits(image)]
        if not fitting:
            height, width = (size or "any" for size in self._size)
            raise OracleError(f"it takes images of {height} × {width} alone, and there is none")
        found: dict[str, dict[int, Array]] = {"features": {}, "logits": {}}
        for index in fitting:
            for name, values in self._outputs(images[index]).items():
                found[name][index] = values
        for name, by_image in found.items():
            for index, values in by_image.items():
                yield Layer(name, index, values, ())

    def head_blocks(self) -> Iterator[HeadBlock]:
        """Logits are among the layers, where the graph gives any."""
        yield from ()

    def _fits(self, image: Image) -> bool:
        return all(size in (None, actual) for size, actual in zip(self._size, image.shape[2:], strict=True))

    def _outputs(self, image: Image) -> dict[str, Array]:
        colours = (image.transpose(0, 2, 3, 1).astype(np.float64) - self._offset) / self._scale
        with _blame():
            outputs = [values.reshape(-1) for values in self._machine.run(colours) if values.shape[:1] == (1,)]
        named = {self._name(values): values for values in reversed(outputs)}
        found = {name: values for name, values in named.items() if name}
        if not found:
            sizes = " and ".join(str(len(values)) for values in outputs) or "nothing"
            raise OracleError(f"its signature gives {sizes}, neither logits nor pooled features")
        return found

    def _name(self, values: Array) -> str:
        """Returns the name of an output, by its size: logits before features, should both have it."""
        if values.dtype != np.float64:
            return ""
        return "logits" if len(values) == self._classes else "features" if len(values) == self._features else ""

    def _colours(self) -> tuple[Array, Array]:
        """The a and b of each channel. Raises OracleError where they are of no known range."""
        zero, one, three = (self._seen(value) for value in PROBES)
        offset, scale = zero, one - zero
        if not np.allclose(three, offset + PROBES[2] * scale, rtol=SAME, atol=SAME):
            raise OracleError("it changes colours before its first convolution in a way that is no scaling")
        for name, (a, b) in READINGS.items():
            if np.allclose(offset, a, rtol=SAME, atol=SAME) and np.allclose(scale, b, rtol=SAME, atol=0):
                self._range, self._dark, self._bright = name, np.full(3, -1.0), np.full(3, 1.0)
                return offset, scale
        if all(BYTES[0] <= b <= BYTES[1] for b in scale):
            self._range, self._dark, self._bright = "0 … 255", offset, offset + 255 * scale
            return offset, scale
        raise OracleError(f"it takes colours that it scales by {scale.tolist()} and moves by {offset.tolist()}")

    def _seen(self, colour: float) -> Array:
        """Returns the first convolution's input in the middle of an image of one colour."""
        height, width = (size or SIZE for size in self._size)
        try:
            self._machine.run(np.full((1, height, width, 3), colour), _stop_at_convolution)
        except _FirstConvolution as found:
            return found.middle
        except Resizes as stretched:
            if self._size != stretched.size:
                self._size = stretched.size
                return self._seen(colour)
            raise
        raise OracleError("its outputs come of no convolution of the images")


def _plain(values: Array) -> tuple[float, float, float]:
    """Rounds to the digits that a constant of the graph confirms."""
    red, green, blue = (float(f"{value:.6g}") + 0.0 for value in values)
    return red, green, blue


@contextmanager
def _blame() -> Iterator[None]:
    """A file of unknown origin can be wrong in any way."""
    try:
        yield
    except OracleError:
        raise
    except Exception as error:
        raise OracleError(f"its graph is damaged: {type(error).__name__}") from error


class _FirstConvolution(Exception):
    """The run has come to the first convolution."""

    def __init__(self, middle: Array) -> None:
        super().__init__()
        self.middle = middle


def _stop_at_convolution(operation: str, inputs: Sequence[Any]) -> None:
    if operation == "Conv2D":
        images = np.asarray(inputs[0])
        raise _FirstConvolution(images[0, images.shape[1] // 2, images.shape[2] // 2])


def _opened(tensorflow: Any, folder: Path) -> tuple[Program, Machine]:
    """The program, and a machine that reads the variables beside it."""
    reader = tensorflow.train.load_checkpoint(str(folder / "variables" / "variables"))
    has_objects = reader.has_tensor(OBJECT_GRAPH)
    program = load(folder, reader.get_tensor(OBJECT_GRAPH) if has_objects else None)

    def read(key: str) -> Array:
        if not reader.has_tensor(key):
            raise OracleError(f"its variable {key} is missing")
        values: Array = reader.get_tensor(key)
        return values

    return program, Machine(tensorflow, program, read)


def _channels(source: Source) -> int:
    """Returns the number of the pooled features."""
    return source.shapes.get("resnet/group_norm/gamma", (0,))[0]
