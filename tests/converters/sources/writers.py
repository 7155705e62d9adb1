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


def keras_network(tensors: Tensors, naming: str = "whole", keras_norms: bool = False):
    """Google's bit_tf2 network in tf_keras layers, filled; by default its norms are computed in fewer operations than
    Keras's, which are what takes the time."""
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    counter = iter(range(1, 10_000))

    def called(path: str) -> str:
        return NAMINGS[naming](path, next(counter))

    class Standardized(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
            return super().convolution_op(inputs, (kernel - mean) / tf.sqrt(variance + 1e-10))

    class Norm(layers.GroupNormalization):
        def call(self, x):
            shape = tf.shape(x)
            grouped = tf.reshape(x, (shape[0], -1, 32, x.shape[-1] // 32))
            mean, variance = tf.nn.moments(grouped, [1, 3], keepdims=True)
            x = tf.reshape((grouped - mean) * tf.math.rsqrt(variance + 1e-5), shape)
            return x * self.gamma + self.beta

    def norm(name: str):
        return (layers.GroupNormalization if keras_norms else Norm)(32, epsilon=1e-5, name=name)

    def convolve(path: str, filters: int, size: int = 1, stride: int = 1, name: str | None = None):
        name = name or called(path + "/standardized_conv2d")
        return Standardized(filters, size, stride, use_bias=False, padding="valid", name=name)

    class Unit(layers.Layer):
        """Attributes in Google's order; the projection, if any, comes when the unit is built."""

        def __init__(self, path: str, mid: int, stride: int, name: str) -> None:
            super().__init__(name=name)
            self.path, self.mid, self.stride, self.projection = path, mid, stride, None
            self.unit_a = tf_keras.Sequential([norm(called(path + "/a/group_norm")), layers.ReLU()], name="a")
            self.unit_a_conv = convolve(path, mid, name="a/standardized_conv2d")
            self.unit_b = tf_keras.Sequential(
                [
                    norm(called(path + "/b/group_norm")),
                    layers.ReLU(),
                    layers.ZeroPadding2D(1),
                    convolve(path + "/b", mid, 3, stride),
                ],
                name="b",
            )
            self.unit_c = tf_keras.Sequential(
                [norm(called(path + "/c/group_norm")), layers.ReLU(), convolve(path + "/c", 4 * mid)], name="c"
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
                [
                    layers.ZeroPadding2D(3),
                    convolve("resnet/root_block", width_of(tensors), 7, 2),
                    layers.ZeroPadding2D(1),
                    layers.MaxPool2D(3, 2, "valid"),
                ],
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
            self.pre_head = [norm("group_norm"), layers.ReLU(), layers.GlobalAveragePooling2D()]
            self.head = layers.Dense(classes_of(tensors), name="head/dense") if classes_of(tensors) else None

        def call(self, x):
            x = self.root(x)
            for layer in (*self.blocks, *self.pre_head, *([self.head] if self.head else [])):
                x = layer(x)
            return x

        def variables_by_path(self) -> Iterator[tuple[str, object]]:
            yield "resnet/root_block/standardized_conv2d/kernel", self.root.layers[1].kernel
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


def saved_model(tensors: Tensors, folder: Path, layers_traced: bool = False, **how) -> Path:
    """``tf.saved_model.save`` of the Keras network, for images of any size in -1 … 1; with functions of every single
    layer beside it if ``layers_traced``, as Keras saves them unasked: they take most of the time."""
    from tf_keras.src.saving.legacy.saved_model.utils import keras_option_scope

    network = keras_network(tensors, **how)
    with keras_option_scope(save_traces=layers_traced):
        return _save(network, network, folder)


def tf2_module(
    tensors: Tensors,
    folder: Path,
    called: str = "signature",
    range_: tuple[float, float] = (-1, 1),
    change: Callable[..., object] | None = None,
    **network,
) -> Path:
    """The same of variables that all have one name, for colours in ``range_``; under a signature, or as the method
    ``called`` alone, which also has a form for training."""
    import tensorflow as tf

    module = tf.Module()
    module.variables_ = {name.replace("/", "."): tf.Variable(value, name="v") for name, value in tensors.items()}
    low, high = range_

    @tf.function(autograph=False)
    def compute(images):
        variables = {name: module.variables_[name.replace("/", ".")] for name in tensors}
        features, logits = tf1_network(variables, images, **network)
        result = features if logits is None else logits
        return change(result) if change else result

    def scaled(images):
        return compute(images if range_ == (-1, 1) else (images - low) * (2 / (high - low)) - 1)

    return _save(scaled, module, folder, called)


def _save(network: Callable[..., object], trackable: object, folder: Path, called: str = "signature") -> Path:
    import tensorflow as tf

    spec = tf.TensorSpec((None, None, None, 3), name="images")

    @tf.function(autograph=False)
    def call(images, training=False):
        return network(images) * (2.0 if training else 1.0)

    module = tf.Module()
    module.model = trackable
    if called == "signature":
        tf.saved_model.save(module, str(folder), signatures=call.get_concrete_function(spec))
    else:
        for training in (True, False):
            call.get_concrete_function(spec, training=training)
        setattr(module, called, call)
        tf.saved_model.save(module, str(folder), signatures={})
    return folder


def hub_module(tensors: Tensors, folder: Path, range_: tuple[float, float] = (0, 1), backwards: bool = False) -> Path:
    """As Google's modules are for TensorFlow 2: ``tf.train.Checkpoint`` with the lists of variables and the call that
    ``hub.KerasLayer`` wants, for colours in ``range_``; its variables ``backwards`` in the alphabet's order."""
    import tensorflow as tf

    made = {
        name: tf.Variable(value if value.ndim < 4 or "head" not in name else value[0, 0], name=name)
        for name, value in ((name, tensors[name]) for name in (sorted(tensors) if backwards else tensors))
    }
    low, high = range_

    @tf.function(autograph=False)
    def call(images, training=False):
        variables = {name: made[name] for name in tensors}
        if "resnet/head/conv2d/kernel" in variables:
            variables["resnet/head/conv2d/kernel"] = variables["resnet/head/conv2d/kernel"][None, None]
        features, logits = tf1_network(variables, (images - low) * (2 / (high - low)) - 1)
        return features if logits is None else logits

    module = tf.train.Checkpoint()
    module.variables = list(made.values())
    module.trainable_variables = list(made.values())
    module.regularization_losses = []
    for training in (True, False):
        call.get_concrete_function(tf.TensorSpec((None, None, None, 3)), training=training)
    module.__call__ = call
    tf.saved_model.save(module, str(folder))
    return folder


# -- TensorFlow 1 ----------------------------------------------------------------------------------------------------


def _tf1_variables(tensors: Tensors, use_resource: bool = False):
    import tensorflow as tf

    v1 = tf.compat.v1
    return [v1.get_variable(name, initializer=value, use_resource=use_resource) for name, value in tensors.items()]


def tf1_checkpoint(tensors: Tensors, prefix: Path, optimizer: str | None = None) -> Path:
    """``tf.compat.v1.train.Saver``; with an optimiser's slots and the global step."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = _tf1_variables(tensors)
        if optimizer:
            loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])
            options = {"momentum": 0.9} if "Momentum" in optimizer else {}
            options |= {"centered": True} if "RMSProp" in optimizer else {}
            train = getattr(v1.train, optimizer)(0.0, **options)
            train.minimize(loss, global_step=v1.train.get_or_create_global_step())
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix), write_meta_graph=False)
    return prefix


def tf1_network(variables: Mapping[str, object], images, epsilon: float = 1e-10, norm_epsilon: float = 1e-5):
    """Pooled features (n, channels), and logits of a head, of NHWC images in -1 … 1: TensorFlow 1's operations."""
    import tensorflow as tf

    v1 = tf.compat.v1

    def convolve(x, at: str, stride: int = 1):
        kernel = variables[f"{at}/standardized_conv2d/kernel"]
        mean, variance = v1.nn.moments(kernel, [0, 1, 2], keep_dims=True)
        edge = int(kernel.shape[0]) // 2
        x = tf.pad(x, [[0, 0], [edge, edge], [edge, edge], [0, 0]])
        return v1.nn.conv2d(x, (kernel - mean) / tf.sqrt(variance + epsilon), [1, stride, stride, 1], "VALID")

    def norm(x, at: str):
        shape = tf.shape(x)
        grouped = tf.reshape(x, tf.concat([shape[:3], [32, shape[3] // 32]], 0))
        mean, variance = v1.nn.moments(grouped, [1, 2, 4], keep_dims=True)
        x = tf.reshape((grouped - mean) * tf.math.rsqrt(variance + norm_epsilon), shape)
        return tf.nn.relu(x * variables[f"{at}/group_norm/gamma"] + variables[f"{at}/group_norm/beta"])

    x = convolve(images, "resnet/root_block", 2)
    x = v1.nn.max_pool(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), [1, 3, 3, 1], [1, 2, 2, 1], "VALID")
    for block, count in enumerate(units_of(variables), start=1):
        for unit in range(1, count + 1):
            at = f"resnet/block{block}/unit{unit:02d}"
            stride = 2 if block > 1 and unit == 1 else 1
            entry = norm(x, f"{at}/a")
            shortcut = convolve(entry, f"{at}/a/proj", stride) if unit == 1 else x
            y = norm(convolve(entry, f"{at}/a"), f"{at}/b")
            y = norm(convolve(y, f"{at}/b", stride), f"{at}/c")
            x = shortcut + convolve(y, f"{at}/c")
    x = tf.reduce_mean(norm(x, "resnet"), [1, 2], keepdims=True)
    features = tf.squeeze(x, [1, 2])
    if "resnet/head/conv2d/kernel" not in variables:
        return features, None
    logits = v1.nn.conv2d(x, variables["resnet/head/conv2d/kernel"], [1, 1, 1, 1], "SAME")
    return features, tf.squeeze(tf.nn.bias_add(logits, variables["resnet/head/conv2d/bias"]), [1, 2])


def tf1_hub_module(
    tensors: Tensors,
    folder: Path,
    with_graph: bool = False,
    size: int | None = None,
    output: str = "logits",
    use_resource: bool = False,
    change: Callable[..., object] | None = None,
    init_op: Callable[[], object] | None = None,
    **network,
) -> Path:
    """As hub.Module exported: ``tfhub_module.pb`` (its whole content is the format's number, 3) and ``variables/``.

    Its graph takes images of colours in 0 … 1 and gives ``output`` (of a headless network: features), which ``change``
    may alter; ``init_op`` makes an initialiser.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        made = _tf1_variables(tensors, use_resource)
        images = v1.placeholder(tf.float32, (None, size, size, 3), name="images")
        features, logits = tf1_network(dict(zip(tensors, made, strict=True)), images * 2.0 - 1.0, **network)
        result = features if logits is None or output == "features" else logits
        result = change(result) if change else result
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"images": images}, {"default": result})
        builder.add_meta_graph_and_variables(
            session, [], {"default": signature}, main_op=init_op() if init_op else None
        )
        builder.save()
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
