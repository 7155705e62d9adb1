"""The Keras oracle: BiT in Keras's own layers, in float64, with weights in the order in which Keras keeps them.

Convolutions, padding, group norms, pooling and the head are Keras's; kernels are standardised inside the convolution.
Of an ``.h5`` file the weights are taken one after another, as its ``layer_names`` and ``weight_names`` have them and as
``load_weights`` deals them out: what they are called says nothing, the order in which a layer keeps its variables says
all. It is the order of Google's TensorFlow 2 code (google-research/big_transfer, bit_tf2/models.py), whose units make
their projection last; a Dense layer that stands elsewhere, as a user's new head may, comes last. A TF-Hub module keeps
its variables in one layer and in its own order: there names tell. Other sources give the same order by the npz names,
which are spelt here.

One layer at a time is built, filled, used on every image and dropped.

    .h5 file or source tensors → weights in order → Keras layers; images → ``layers()`` → Layer …
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.keras.file import StoredWeight, stored_weights
from verify.protocols import HeadBlock, Layer, OracleError, PoolPadding, Source
from verify.tensorflow import by_default, import_tensorflow

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

FORMAT = "keras-h5"
HEAD, BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"
ROOT = "root_block/standardized_conv2d/kernel"
FLOAT64 = {"dtype": "float64"}
WEIGHTS = {"kernel_initializer": "zeros", "dtype": "float64"}
"""Kernels are filled from the checkpoint: drawing them at random takes longer than all the rest."""


class KerasOracle:
    """Raises ImportError where Keras is not installed, OracleError where the weights make no BiT."""

    name = "Keras float64"

    def __init__(self, source: Source, pool_padding: PoolPadding = "zeros") -> None:
        self._keras = _import_keras()
        self._kinds = _kinds()
        self._source = source
        self._padding_value = -np.inf if pool_padding == "-inf" else 0.0
        self._weights: Iterator[Array] = iter(())

    @property
    def note(self) -> str:
        if self._source.format != FORMAT:
            return ""
        with _listed_weights(self._source) as weights:
            by_name = _by_name(_split(weights)[0], self._source)
        return "weights by their names in the file" if by_name else "weights in the file's own order"

    @property
    def classes(self) -> int | None:
        shape = self._source.shapes.get(HEAD)
        return None if shape is None else shape[-1]

    def layers(self, images: Sequence[Image]) -> Iterator[Layer]:
        """The trunk's tensors and the logits, image by image within a layer; ``runs`` are empty."""
        self._weights = (
            _weights_of_file(self._source) if self._source.format == FORMAT else _weights_by_name(self._source)
        )
        keras, kinds = self._keras, self._kinds
        states = [keras.ops.convert_to_tensor(x.transpose(0, 2, 3, 1).astype(np.float64)) for x in images]
        width = self._shape("resnet/root_block/standardized_conv2d/kernel")[-1]
        states = self._through(kinds.root(width, self._padding_value), states)
        yield from _layers("root", states)
        for number, name in enumerate(units := _units(self._source)):
            mid = self._shape(f"resnet/{name}/a/standardized_conv2d/kernel")[-1]
            first = number > 0 and not name.startswith(units[number - 1].split("/")[0] + "/")
            states = self._through(kinds.Unit(mid, 2 if first else 1, states[0].shape[-1]), states)
            yield from _layers(name, states)
        states = self._through(kinds.norm(), states)
        yield from _layers("norm", states)
        states = self._through(keras.layers.GlobalAveragePooling2D(**FLOAT64), states)
        yield from _layers("features", states)
        if self.classes is not None:
            yield from _layers("logits", self._through(keras.layers.Dense(self.classes, **WEIGHTS), states))
        if next(self._weights, None) is not None:
            raise OracleError("it holds more weights than Keras's layers")

    def head_blocks(self) -> Iterator[HeadBlock]:
        """Logits are among the layers."""
        yield from ()

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._source.shapes:
            raise OracleError(f"the source has no tensor {name}")
        return tuple(self._source.shapes[name])

    def _through(self, layer: Any, states: Sequence[Any]) -> list[Any]:
        """Every image through one layer, which takes the next weights."""
        with self._keras.device("cpu"):
            layer(self._keras.KerasTensor((1, *states[0].shape[1:]), dtype="float64"))  # makes its variables
            for variable in layer.weights:
                values = next(self._weights, None)
                if values is None:
                    raise OracleError("it holds fewer weights than Keras's layers")
                if values.shape != tuple(variable.shape):
                    raise OracleError(f"{variable.path} takes {tuple(variable.shape)}, and is given {values.shape}")
                variable.assign(values.astype(np.float64))
            return [layer(x) for x in states]


def _import_keras() -> Any:
    import_tensorflow()
    with by_default("KERAS_BACKEND", "tensorflow"):
        import keras

    return keras


def _kinds() -> SimpleNamespace:
    """The kinds of layer that BiT is made of. A layer keeps its variables in the order of its attributes."""
    from keras import layers, ops

    class Standardized(layers.Conv2D):  # type: ignore[misc]
        def __init__(self, filters: int, size: int, stride: int = 1) -> None:
            super().__init__(filters, size, stride, use_bias=False, padding="valid", **WEIGHTS)

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            mean, variance = ops.moments(kernel, axes=[0, 1, 2], keepdims=True)
            return super().convolution_op(inputs, (kernel - mean) / ops.sqrt(variance + 1e-10))

    class Surround(layers.Layer):  # type: ignore[misc]
        """ZeroPadding2D for any value."""

        def __init__(self, value: float) -> None:
            super().__init__(**FLOAT64)
            self.value = value

        def call(self, x: Any) -> Any:
            return ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=self.value)

    class Chain(layers.Layer):  # type: ignore[misc]
        def __init__(self, *chained: Any) -> None:
            super().__init__(**FLOAT64)
            self.chained = list(chained)

        def call(self, x: Any) -> Any:
            for layer in self.chained:
                x = layer(x)
            return x

    def norm(*then: Any) -> Any:
        return Chain(layers.GroupNormalization(32, epsilon=1e-5, **FLOAT64), layers.ReLU(**FLOAT64), *then)

    def root(width: int, padding_value: float) -> Any:
        around = layers.ZeroPadding2D(1, **FLOAT64) if padding_value == 0 else Surround(padding_value)
        pool = layers.MaxPool2D(3, 2, "valid", **FLOAT64)
        return Chain(layers.ZeroPadding2D(3, **FLOAT64), Standardized(width, 7, 2), around, pool)

    class Unit(layers.Layer):  # type: ignore[misc]
        def __init__(self, mid: int, stride: int, channels: int) -> None:
            super().__init__(**FLOAT64)
            self.norm_a, self.convolution_a = norm(), Standardized(mid, 1)
            self.branch_b = norm(layers.ZeroPadding2D(1, **FLOAT64), Standardized(mid, 3, stride))
            self.branch_c = norm(Standardized(4 * mid, 1))
            if stride > 1 or channels != 4 * mid:
                self.projection = Standardized(4 * mid, 1, stride)

        def call(self, x: Any) -> Any:
            entry = self.norm_a(x)
            shortcut = self.projection(entry) if hasattr(self, "projection") else x
            return self.branch_c(self.branch_b(self.convolution_a(entry))) + shortcut

    return SimpleNamespace(root=root, norm=norm, Unit=Unit)


def _units(source: Source) -> list[str]:
    names = {tuple(name.split("/")[1:3]) for name in source.shapes if name.startswith("resnet/block")}
    return ["/".join(parts) for parts in sorted(names)]


def _weights_of_file(source: Source) -> Iterator[Array]:
    """The weights in the order of Google's network: the file's own, but for a head that stands elsewhere; by name where
    one layer holds them all."""
    with _listed_weights(source) as weights:
        body, head = _split(weights)
        for weight in (*(_by_name(body, source) or body), *head):
            yield weight.read()
    if len(head) == 1 and BIAS in source.shapes:
        yield source.read(BIAS)  # of zeros, which stand for the bias that the file has not


def _listed_weights(source: Source) -> AbstractContextManager[list[StoredWeight]]:
    size = sum(math.prod(shape) for shape in source.shapes.values()) * np.dtype(np.float64).itemsize
    return stored_weights(source.location, size)


def _split(weights: Sequence[StoredWeight]) -> tuple[list[StoredWeight], list[StoredWeight]]:
    """The weights below the head, and the head's: the only matrix, and the bias after it."""
    matrices = [place for place, weight in enumerate(weights) if len(weight.shape) == 2]
    if len(matrices) != 1:
        return list(weights), []
    (start,) = matrices
    kernel = weights[start]
    end = start + 1
    if end < len(weights) and weights[end].layer == kernel.layer and weights[end].shape == kernel.shape[1:]:
        end += 1
    return [*weights[:start], *weights[end:]], list(weights[start:end])


def _by_name(body: Sequence[StoredWeight], source: Source) -> list[StoredWeight]:
    """Orders weights by the npz names, where one layer holds all of them under the whole of such names."""
    found = {weight.name.removesuffix(":0"): weight for weight in body}
    root = next((name for name in found if name.endswith(ROOT)), "")
    wanted = [root.removesuffix(ROOT) + name for name in _trunk_names(source)]
    one_layer = len({weight.layer for weight in body}) == 1
    return [found[name] for name in wanted] if one_layer and found.keys() == set(wanted) else []


def _trunk_names(source: Source) -> list[str]:
    """The source's tensors below the head in the order of Google's Keras network, without ``resnet/``."""
    names = [ROOT]
    parts = ("group_norm/gamma", "group_norm/beta", "standardized_conv2d/kernel")
    for unit in _units(source):
        names += [f"{unit}/{branch}/{part}" for branch in "abc" for part in parts]
        names.append(f"{unit}/a/proj/standardized_conv2d/kernel")
    names += ["group_norm/gamma", "group_norm/beta"]
    return [name for name in names if f"resnet/{name}" in source.shapes]


def _weights_by_name(source: Source) -> Iterator[Array]:
    """The source's tensors in the order of Google's Keras network."""
    for name in _trunk_names(source):
        yield source.read(f"resnet/{name}")
    for name in (HEAD, BIAS):
        if name in source.shapes:
            values = source.read(name)
            yield values[0, 0] if values.ndim == 4 else values


def _layers(name: str, states: Sequence[Any]) -> Iterator[Layer]:
    for index, x in enumerate(states):
        values = np.asarray(x)[0]
        yield Layer(name, index, values if values.ndim == 1 else np.ascontiguousarray(values.transpose(2, 0, 1)), ())
