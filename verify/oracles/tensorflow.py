"""The TensorFlow oracle: BiT's forward pass on the raw tensors, in TensorFlow's operations and float64.

An oracle beside NumPy's: other people's convolutions, pooling and moments, in another layout (NHWC). It spells
Google's npz names itself; its order of operations follows the paper (arXiv:1912.11370) and Google's TensorFlow code
(google-research/big_transfer, bit_tf2/models.py).

    source tensors, images → ``layers()`` → Layer …, → ``head_blocks()`` → HeadBlock …
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.protocols import HeadBlock, Layer, OracleError, PoolPadding, Tensors
from verify.tensorflow import import_tensorflow

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

CLASSES_AT_ONCE = 4096


class TensorFlowOracle:
    """Raises ImportError where TensorFlow is not installed, OracleError where the tensors make no BiT."""

    name = "TensorFlow float64"
    note = ""

    def __init__(self, source: Tensors, *, pool_padding: PoolPadding = "zeros") -> None:
        self.tf = import_tensorflow()
        self.source = source
        self.padding_value = -np.inf if pool_padding == "-inf" else 0.0
        self._features: Array = np.zeros((0, 0))

    @property
    def classes(self) -> int | None:
        shape = self.source.shapes.get("resnet/head/conv2d/kernel")
        return None if shape is None else shape[3]

    def layers(self, images: Sequence[Image]) -> Iterator[Layer]:
        """The trunk's tensors, image by image within a layer; ``runs`` are empty."""
        with self.tf.device("CPU"):
            states = [self._root(image) for image in images]
            yield from _layers("root", states)
            for name in self._units():
                states = [self._unit(f"resnet/{name}/", x, 1 if name.startswith("block1/") else 2) for x in states]
                yield from _layers(name, states)
            states = [self._norm("resnet/group_norm/", x) for x in states]
            yield from _layers("norm", states)
            pooled = [self.tf.reduce_mean(x, axis=[1, 2]).numpy()[0] for x in states]
        self._features = np.array(pooled)
        for index, features in enumerate(pooled):
            yield Layer("features", index, features, ())

    def head_blocks(self) -> Iterator[HeadBlock]:
        kernel, bias = self._read("resnet/head/conv2d/kernel")[0, 0], self._read("resnet/head/conv2d/bias")
        for start in range(0, len(bias), CLASSES_AT_ONCE):
            columns = slice(start, min(start + CLASSES_AT_ONCE, len(bias)))
            exact, offset = kernel[:, columns].astype(np.float64), bias[columns].astype(np.float64)
            logits = self.tf.linalg.matmul(self._features, exact) + offset
            yield HeadBlock(columns, exact, offset, logits.numpy(), np.zeros((0, *logits.shape), np.float32))

    def _units(self) -> list[str]:
        names = {tuple(name.split("/")[1:3]) for name in self.source.shapes if name.startswith("resnet/block")}
        return ["/".join(parts) for parts in sorted(names)]

    def _root(self, image: Image) -> Any:
        x = self.tf.transpose(self.tf.constant(image, self.tf.float64), [0, 2, 3, 1])
        x = self._conv("resnet/root_block/", x, 2)
        x = self.tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=self.padding_value)
        return self.tf.nn.max_pool2d(x, ksize=3, strides=2, padding="VALID")

    def _unit(self, at: str, x: Any, stride: int) -> Any:
        stride = stride if "/unit01/" in at else 1
        activated = self._norm(at + "a/group_norm/", x)
        if at + "a/proj/standardized_conv2d/kernel" in self.source.shapes:
            x = self._conv(at + "a/proj/", activated, stride)
        y = self._conv(at + "a/", activated, 1)
        y = self._conv(at + "b/", self._norm(at + "b/group_norm/", y), stride)
        return x + self._conv(at + "c/", self._norm(at + "c/group_norm/", y), 1)

    def _conv(self, at: str, x: Any, stride: int) -> Any:
        kernel = self.tf.constant(self._read(at + "standardized_conv2d/kernel"), self.tf.float64)
        mean, variance = self.tf.nn.moments(kernel, axes=[0, 1, 2], keepdims=True)
        kernel = (kernel - mean) / self.tf.sqrt(variance + 1e-10)
        edge = kernel.shape[0] // 2
        x = self.tf.pad(x, [[0, 0], [edge, edge], [edge, edge], [0, 0]])
        return self.tf.nn.conv2d(x, kernel, strides=stride, padding="VALID")

    def _norm(self, at: str, x: Any) -> Any:
        _, height, width, channels = x.shape
        grouped = self.tf.reshape(x, [height, width, 32, channels // 32])
        mean, variance = self.tf.nn.moments(grouped, axes=[0, 1, 3], keepdims=True)
        normed = self.tf.reshape((grouped - mean) / self.tf.sqrt(variance + 1e-5), x.shape)
        scale, offset = (self.tf.constant(self._read(at + part), self.tf.float64) for part in ("gamma", "beta"))
        return self.tf.nn.relu(normed * scale + offset)

    def _read(self, name: str) -> Array:
        if name not in self.source.shapes:
            raise OracleError(f"the source has no tensor {name}")
        return self.source.read(name)


def _layers(name: str, states: Sequence[Any]) -> Iterator[Layer]:
    for index, x in enumerate(states):
        yield Layer(name, index, np.ascontiguousarray(x.numpy()[0].transpose(2, 0, 1)), ())
