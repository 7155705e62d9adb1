"""Writes one network in every format, each with the library that the format belongs to.

The network is given as {npz name: array}. The libraries' own layers and savers make the files; the names are those of
Google's code (google-research/big_transfer, google-research/big_vision), spelt here by hand, so that the readers are
held against an independent writer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

Tensors = Mapping[str, np.ndarray]


def units_of(tensors: Tensors) -> tuple[int, ...]:
    """Units per block."""
    found = {tuple(name.split("/")[1:3]) for name in tensors if "/unit" in name}
    blocks = [block for block, _ in found]
    return tuple(blocks.count(f"block{b}") for b in range(1, len(set(blocks)) + 1))


def width_of(tensors: Tensors) -> int:
    return tensors["resnet/root_block/standardized_conv2d/kernel"].shape[-1]


def classes_of(tensors: Tensors) -> int | None:
    bias = tensors.get("resnet/head/conv2d/bias")
    return None if bias is None else len(bias)


# -- big_vision


def to_big_vision(tensors: Tensors, prefix: str = "") -> dict[str, np.ndarray]:
    """As big_vision's models/bit_paper.py has the parameters: norms with three leading axes, the head with two."""
    result = {}
    for name, value in tensors.items():
        path = name.removeprefix("resnet/")
        if "head" in path:
            path, value = path.replace("/conv2d", ""), value[0, 0] if value.ndim == 4 else value
        elif "group_norm" in path:
            value = value[None, None, None]
        for place, old in enumerate(("a", "b", "c"), start=1):
            path = path.replace(f"/{old}/standardized_conv2d/", f"/conv{place}/")
            path = path.replace(f"/{old}/group_norm/", f"/gn{place}/")
        path = path.replace("/a/proj/standardized_conv2d/", "/conv_proj/")
        path = path.replace("root_block/standardized_conv2d", "root_block/conv_root").replace("gamma", "scale")
        path = path.replace("beta", "bias").replace("group_norm", "norm-pre-head")
        result[prefix + path] = value
    return result


# -- Keras and TensorFlow 2 ------------------------------------------------------------------------------------------

NAMINGS: dict[str, Callable[[str, int], str]] = {
    "whole": lambda path, n: path,
    "short": lambda path, n: (
        path.removeprefix("resnet/").partition("/")[2] if "/unit" in path else path.rpartition("/")[2]
    ),
    "numbered": lambda path, n: f"{path.rpartition('/')[2]}_{n}",
}
"""What a layer is called, by its path in Google's network and its number: what Keras versions made of names."""


def keras_network(tensors: Tensors, naming: str = "whole"):
    """Google's bit_tf2 network (without its arithmetic, which no weight file knows) in tf_keras layers, filled."""
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    counter = iter(range(1, 10_000))

    def called(path: str) -> str:
        return NAMINGS[naming](path, next(counter))

    def norm(path: str):
        return layers.GroupNormalization(32, name=called(path + "/group_norm"))

    def convolve(path: str, filters: int, size: int = 1, stride: int = 1, name: str | None = None):
        name = name or called(path + "/standardized_conv2d")
        return layers.Conv2D(filters, size, stride, use_bias=False, padding="same", name=name)

    class Unit(layers.Layer):
        """Attributes in Google's order; the projection, if any, comes when the unit is built."""

        def __init__(self, path: str, mid: int, stride: int, name: str) -> None:
            super().__init__(name=name)
            self.path, self.mid, self.stride, self.projection = path, mid, stride, None
            self.unit_a = tf_keras.Sequential([norm(path + "/a"), layers.ReLU()], name="a")
            self.unit_a_conv = convolve(path, mid, name="a/standardized_conv2d")
            self.unit_b = tf_keras.Sequential(
                [norm(path + "/b"), layers.ReLU(), convolve(path + "/b", mid, 3, stride)], name="b"
            )
            self.unit_c = tf_keras.Sequential(
                [norm(path + "/c"), layers.ReLU(), convolve(path + "/c", 4 * mid)], name="c"
            )

        def build(self, shape) -> None:
            if self.stride > 1 or shape[-1] != 4 * self.mid:
                self.projection = convolve(self.path, 4 * self.mid, 1, self.stride, "a/proj/standardized_conv2d")
            self.built = True

        def call(self, x):
            entry = self.unit_a(x)
            shortcut = x if self.projection is None else self.projection(entry)
            return self.unit_c(self.unit_b(self.unit_a_conv(entry))) + shortcut

        def variables_by_path(self) -> Iterator[tuple[str, object]]:
            for part, group in (("a", self.unit_a), ("b", self.unit_b), ("c", self.unit_c)):
                yield f"{self.path}/{part}/group_norm/gamma", group.layers[0].gamma
                yield f"{self.path}/{part}/group_norm/beta", group.layers[0].beta
                conv = self.unit_a_conv if part == "a" else group.layers[-1]
                yield f"{self.path}/{part}/standardized_conv2d/kernel", conv.kernel
            if self.projection is not None:
                yield f"{self.path}/a/proj/standardized_conv2d/kernel", self.projection.kernel

    class Network(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__(name="resnet")
            self.root = tf_keras.Sequential(
                [convolve("resnet/root_block", width_of(tensors), 7, 2), layers.MaxPool2D(3, 2, "same")],
                name="root_block",
            )
            self.blocks = []
            for b, count in enumerate(units_of(tensors), start=1):
                units = []
                for u in range(1, count + 1):
                    path = f"resnet/block{b}/unit{u:02d}"
                    mid = tensors[path + "/a/standardized_conv2d/kernel"].shape[-1]
                    name = path if naming == "whole" else f"unit{u:02d}"
                    units.append(Unit(path, mid, 2 if b > 1 and u == 1 else 1, name))
                self.blocks.append(tf_keras.Sequential(units, name=f"block{b}"))
            self.pre_head = [layers.GroupNormalization(32, name="group_norm"), layers.GlobalAveragePooling2D()]
            self.head = layers.Dense(classes_of(tensors), name="head/dense") if classes_of(tensors) else None

        def call(self, x):
            x = self.root(x)
            for layer in (*self.blocks, *self.pre_head, *([self.head] if self.head else [])):
                x = layer(x)
            return x

        def variables_by_path(self) -> Iterator[tuple[str, object]]:
            yield "resnet/root_block/standardized_conv2d/kernel", self.root.layers[0].kernel
            for block in self.blocks:
                for unit in block.layers:
                    yield from unit.variables_by_path()
            yield "resnet/group_norm/gamma", self.pre_head[0].gamma
            yield "resnet/group_norm/beta", self.pre_head[0].beta
            if self.head is not None:
                yield "resnet/head/conv2d/kernel", self.head.kernel
                yield "resnet/head/conv2d/bias", self.head.bias

    network = Network()
    network(tf.zeros((1, 32, 32, 3)))
    for path, variable in network.variables_by_path():
        variable.assign(tensors[path].reshape(variable.shape))
    assert len(network.weights) == len(tensors)
    return network


def keras_h5(tensors: Tensors, path: Path, naming: str = "whole", inside: str | None = None) -> Path:
    """Keras's own ``save_weights``; ``inside`` puts them under a group, as ``model.save`` does."""
    keras_network(tensors, naming).save_weights(path, save_format="h5")
    if inside:
        import h5py

        with h5py.File(path, "a") as file:
            group = file.create_group(inside)
            for name in [name for name in file if name != inside]:
                file.move(name, f"{inside}/{name}")
            for name, value in file.attrs.items():
                group.attrs[name] = value
                del file.attrs[name]
    return path


def tf2_checkpoint(tensors: Tensors, folder: Path, optimizer: str | None = None, **also) -> Path:
    """``tf.train.Checkpoint``; ``optimizer`` (of tf_keras) takes a step of rate zero first, to have its slots."""
    import tensorflow as tf
    import tf_keras

    network = keras_network(tensors)
    tracked = {"model": network, **also}
    if optimizer:
        module, _, name = optimizer.rpartition(".")
        home = getattr(tf_keras.optimizers, module) if module else tf_keras.optimizers
        tracked["optimizer"] = getattr(home, name)(learning_rate=0.0, **({"momentum": 0.9} if name == "SGD" else {}))
        variables = network.trainable_variables
        tracked["optimizer"].apply_gradients([(tf.ones_like(v), v) for v in variables])
    return Path(tf.train.Checkpoint(**tracked).save(str(folder / "model.ckpt")))


def saved_model(tensors: Tensors, folder: Path) -> Path:
    """``tf.saved_model.save`` of the network."""
    import tensorflow as tf

    network = keras_network(tensors)
    serve = tf.function(lambda images: network(images), input_signature=[tf.TensorSpec((None, 32, 32, 3))])
    module = tf.Module()
    module.model, module.serve = network, serve
    tf.saved_model.save(module, str(folder), signatures=serve)
    return folder


# -- TensorFlow 1 ----------------------------------------------------------------------------------------------------


def _tf1_variables(tensors: Tensors):
    import tensorflow as tf

    v1 = tf.compat.v1
    return [v1.get_variable(name, initializer=value, use_resource=False) for name, value in tensors.items()]


def tf1_checkpoint(tensors: Tensors, prefix: Path, optimizer: str | None = None) -> Path:
    """``tf.compat.v1.train.Saver``; with an optimiser's slots and the global step."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = _tf1_variables(tensors)
        if optimizer:
            loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])
            options = {"momentum": 0.9} if "Momentum" in optimizer else {}
            train = getattr(v1.train, optimizer)(0.0, **options)
            train.minimize(loss, global_step=v1.train.get_or_create_global_step())
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix), write_meta_graph=False)
    return prefix


def tf1_hub_module(tensors: Tensors, folder: Path, with_graph: bool = False) -> Path:
    """As hub.Module exported: ``tfhub_module.pb`` (its whole content is the format's number, 3) and ``variables/``."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = _tf1_variables(tensors)
        images = v1.placeholder(tf.float32, (None, 32, 32, 3))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"images": images}, {"bias": variables[-1] + 0})
    (folder / "tfhub_module.pb").write_bytes(b"\x08\x03")
    if not with_graph:
        (folder / "saved_model.pb").unlink()
    return folder


# -- PyTorch layouts


def torch_names(tensors: Tensors, layout: str) -> dict[str, np.ndarray]:
    """The state dict of a layout, spelt by hand: kernels OIHW; the head 2-D in transformers, 4-D elsewhere."""
    head = "resnet/head/conv2d/kernel" in tensors
    result = {}
    for name, value in tensors.items():
        parts = name.split("/")
        leaf = {"gamma": "weight", "kernel": "weight", "beta": "bias", "bias": "bias"}[parts[-1]]
        bit = "bit." if head else ""
        if parts[1] == "root_block":
            names = {"original": "root.conv", "transformers": bit + "embedder.convolution", "timm": "stem.conv"}
        elif parts[1] == "group_norm":
            names = {"original": "head.gn", "transformers": bit + "norm", "timm": "norm"}
        elif parts[1] == "head":
            names = {"original": "head.conv", "transformers": "classifier.1", "timm": "head.fc"}
        else:
            block, unit, place = int(parts[1][5:]), int(parts[2][4:]), "abc".index(parts[3]) + 1
            kind = "downsample" if "proj" in parts else f"norm{place}" if "group_norm" in parts else f"conv{place}"
            down = ".conv" if kind == "downsample" else ""
            names = {
                "original": f"body.{parts[1]}.{parts[2]}.{kind.replace('norm', 'gn')}",
                "transformers": f"{bit}encoder.stages.{block - 1}.layers.{unit - 1}.{kind}{down}",
                "timm": f"stages.{block - 1}.blocks.{unit - 1}.{kind}{down}",
            }
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
            if parts[1] == "head" and layout == "transformers":
                value = value[:, :, 0, 0]
        result[f"{names[layout]}.{leaf}"] = np.ascontiguousarray(value)
    return result
