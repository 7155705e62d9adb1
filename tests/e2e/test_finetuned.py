"""Networks fine-tuned as Google's TensorFlow colab does it, saved in every way Keras has, through the command line.

A TF-Hub module in a ``hub.KerasLayer``, a new Dense head on it, by tf_keras and tensorflow_hub themselves; the truth
are the variables' own values, the npz of the same tensors, and the logits of the model that was saved.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import pytest

from bit_ref import BitForImageClassification
from converters.sources import open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.command_line import converted, refused
from tests.converters.sources import writers

UNITS, WIDTH, MIDS, CLASSES = (1, 2), 32, (64, 32), 5
FEATURES = 4 * MIDS[-1]
KERNEL, BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"
SIZE = 33


@pytest.fixture(scope="module")
def trunk() -> dict[str, np.ndarray]:
    return make_checkpoint(UNITS, WIDTH, None, seed=21, mids=MIDS)


@pytest.fixture(scope="module")
def module(trunk, tmp_path_factory) -> Path:
    """Features of images in 0 … 1."""
    return writers.hub_module(trunk, tmp_path_factory.mktemp("hub") / "module")


@pytest.fixture(scope="module")
def module_of_both_signs(trunk, tmp_path_factory) -> Path:
    """Features of images in -1 … 1."""
    return writers.hub_module(trunk, tmp_path_factory.mktemp("hub") / "module", (-1, 1))


def layers():
    import tf_keras

    return tf_keras.layers


def hub_layer(module: Path, **options):
    import tensorflow_hub as hub

    return hub.KerasLayer(str(module), trainable=True, **options)


def dense(classes: int = CLASSES, **options):
    """Zeros that were trained, as it were."""
    import tf_keras

    draw = tf_keras.initializers.RandomNormal(stddev=0.02, seed=1)
    return layers().Dense(classes, kernel_initializer=draw, bias_initializer=draw, **options)


def subclassed(module: Path):
    """The colab's own."""
    import tf_keras

    class MyBiTModel(tf_keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.head = dense()
            self.bit_model = hub_layer(module)

        def call(self, images):
            return self.head(self.bit_model(images))

    return MyBiTModel()


def sequential(module: Path):
    import tf_keras

    return tf_keras.Sequential([layers().InputLayer((None, None, 3)), hub_layer(module), dense(activation="softmax")])


def functional(module: Path):
    import tf_keras

    images = layers().Input((SIZE, SIZE, 3))
    x = hub_layer(module, name="bit")(layers().Rescaling(1 / 255)(images))
    x = dense(name="predictions")(layers().Dropout(0.2)(layers().Flatten()(x)))
    return tf_keras.Model(images, layers().Activation("sigmoid")(x))


def nested(module: Path):
    import tf_keras

    images = layers().Input((None, None, 3))
    inner = tf_keras.Model(images, hub_layer(module)(images), name="backbone")
    outer = tf_keras.Sequential([inner, tf_keras.Sequential([layers().Dropout(0.1), dense()], name="top")])
    outer.build((None, None, None, 3))
    return outer


MODELS: dict[str, Callable] = {f.__name__: f for f in (subclassed, sequential, functional, nested)}


def checkpoint(model, folder: Path, **also) -> Path:
    import tensorflow as tf

    return Path(tf.train.Checkpoint(model=model, optimizer=model.optimizer, **also).save(str(folder / "ckpt")))


def managed(model, folder: Path) -> Path:
    import tensorflow as tf

    tracked = tf.train.Checkpoint(net=model, step=tf.Variable(3), best=tf.Variable(0.5))
    tf.train.CheckpointManager(tracked, str(folder), max_to_keep=1).save()
    return folder


def saved(name: str, call: Callable) -> Callable:
    def save(model, folder: Path) -> Path:
        call(model, str(folder / name))
        return folder / name

    return save


def tf_save(model, path: str) -> None:
    import tensorflow as tf

    tf.saved_model.save(model, path)


WAYS: dict[str, Callable] = {
    "model.save": saved("saved", lambda model, path: model.save(path, save_format="tf")),
    "tf.saved_model.save": saved("module", tf_save),
    "export": saved("export", lambda model, path: model.export(path)),
    "save_weights": saved("weights", lambda model, path: model.save_weights(path)),
    "weights .h5": saved("weights.h5", lambda model, path: model.save_weights(path)),
    "whole .h5": saved("whole.h5", lambda model, path: model.save(path)),
    ".weights.h5": saved("model.weights.h5", lambda model, path: model.save_weights(path)),
    ".keras": saved("model.keras", lambda model, path: model.save(path)),
    "tf.train.Checkpoint": checkpoint,
    "CheckpointManager": managed,
}


def trained(model):
    """With an optimiser's slots and metrics, made as ``fit`` makes them, whose gradients take most of its time."""
    import tensorflow as tf
    import tf_keras

    model.compile(tf_keras.optimizers.SGD(0.0, momentum=0.9), "mse", metrics=["accuracy"])
    model.evaluate(np.zeros((2, SIZE, SIZE, 3), "f4"), np.zeros((2, CLASSES), "f4"), verbose=0)
    model.optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    return model


def head_of(model) -> dict[str, np.ndarray]:
    """Of the new layer, by its shape."""
    kernel, *bias = (v.numpy() for v in model.weights if v.shape[-1] == CLASSES and v.shape.rank < 4)
    return {KERNEL: kernel.reshape(1, 1, -1, CLASSES), BIAS: bias[0] if bias else np.zeros(CLASSES, "f4")}


@pytest.fixture(scope="module")
def models(module):
    """kind → the trained model, made once."""
    made: dict[str, object] = {}

    def make(kind: str):
        if kind not in made:
            made[kind] = trained(MODELS[kind](module))
        return made[kind]

    return make


@pytest.fixture(scope="module")
def stacks(module):
    """kind → a network with the layers that a function of that name makes of the module's layer, made once."""
    made: dict[str, object] = {}

    def make(kind: str, layers_of: Callable):
        import tf_keras

        if kind not in made:
            made[kind] = tf_keras.Sequential([layers().InputLayer((None, None, 3)), *layers_of(hub_layer(module))])
        return made[kind]

    return make


def same(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, str]:
    """All tensors are read, bit for bit; returns what is left out."""
    with open_checkpoint(path) as source:
        assert list(source.shapes) == list(tensors)
        for name, value in tensors.items():
            np.testing.assert_array_equal(source.read(name), value, err_msg=name, strict=True)
        return dict(source.dropped)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_model_saved_in_every_way_gives_the_same_tensors(kind: str, way: str, models, trunk, tmp_path) -> None:
    model = models(kind)
    if (kind, way) == ("subclassed", "whole .h5"):
        pytest.skip("Keras cannot")
    dropped = same(WAYS[way](model, tmp_path), trunk | head_of(model))
    assert all(dropped.values())
    if way == "tf.train.Checkpoint":
        assert sum("slot" in why for why in dropped.values()) == len(trunk) + 2
    if way == "CheckpointManager":
        assert sum("counter" in why for why in dropped.values()) >= 2


def npz_of(tensors: dict[str, np.ndarray], folder: Path) -> bytes:
    """model.safetensors of the same tensors in Google's npz."""
    np.savez(folder / "model.npz", **tensors)
    converted(folder / "model.npz", folder / "from-npz")
    return (folder / "from-npz/model.safetensors").read_bytes()


def pixels_of(folder: Path) -> tuple[list[float], list[float]]:
    content = json.loads((folder / "preprocessor_config.json").read_text())
    return content["image_mean"], content["image_std"]


@pytest.mark.parametrize(
    ("kind", "brightest", "says"),
    [("sequential", 1, "takes colours in 0 … 1"), ("functional", 255, "takes images of 33 × 33, colours in 0 … 255")],
)
def test_saved_models_convert_to_the_same_bytes_and_logits(
    kind: str, brightest: int, says: str, models, trunk, tmp_path
) -> None:
    """The graph ends in probabilities: it is compared before them."""
    import torch

    model = models(kind)
    report = converted(WAYS["model.save"](model, tmp_path), tmp_path / "model")["report"]
    (other,) = report["other_oracles"]
    assert (other["verdict"], other["reason"]) == ("agrees", says)
    assert (tmp_path / "model/model.safetensors").read_bytes() == npz_of(trunk | head_of(model), tmp_path)
    assert pixels_of(tmp_path / "model") == ([0.5] * 3, [0.5] * 3)
    colours = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
    theirs = model(colours * brightest).numpy()
    images = torch.from_numpy((colours * 2 - 1).transpose(0, 3, 1, 2).copy())
    ours = BitForImageClassification.from_pretrained(tmp_path / "model").eval()(images).logits.detach()
    ours = (ours.softmax(-1) if kind == "sequential" else ours.sigmoid()).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", ["weights .h5", ".keras"])
def test_keras_files_convert_and_keras_s_layers_agree(way: str, models, trunk, tmp_path) -> None:
    model = models("subclassed")
    report = converted(WAYS[way](model, tmp_path), tmp_path / "model", "--oracle", "keras")["report"]
    assert [each["verdict"] for each in report["other_oracles"]] == ["agrees"]
    assert (tmp_path / "model/model.safetensors").read_bytes() == npz_of(trunk | head_of(model), tmp_path)


@pytest.mark.parametrize(
    ("scale", "offset", "taking", "pixels"),
    [
        (1 / 255, 0.0, "module_of_both_signs", ([0.0] * 3, [1.0] * 3)),
        (1 / 127.5, -1.0, "module_of_both_signs", ([0.5] * 3, [0.5] * 3)),
        (1 / 127.5, -1.0, "module", ([0.75] * 3, [0.25] * 3)),
        (0.3, 0.1, "module_of_both_signs", ([0.5] * 3, [0.5] * 3)),
    ],
    ids=["0 … 1", "-1 … 1", "twice", "unknown"],
)
def test_the_recipe_gives_the_network_what_layers_before_it_gave(
    scale, offset, taking, pixels, request, tmp_path
) -> None:
    """A range that a graph does not tell leaves the recipe as it is, and is said."""
    import tf_keras

    hub = hub_layer(request.getfixturevalue(taking))
    stack = [layers().InputLayer((None, None, 3)), layers().Rescaling(scale, offset), hub, dense()]
    tf_save(tf_keras.Sequential(stack), str(tmp_path / "saved"))
    (other,) = converted(tmp_path / "saved", tmp_path / "model")["report"]["other_oracles"]
    assert pixels_of(tmp_path / "model") == pixels
    known = scale < 0.1
    assert (other["verdict"], "colours" in other["reason"]) == ("agrees" if known else "not run", True)


def head_kinds() -> dict[str, Callable]:
    import tf_keras

    return {
        "no bias": lambda hub: [hub, dense(use_bias=False)],
        "1×1 convolution": lambda hub: [
            hub,
            layers().Reshape((1, 1, FEATURES)),
            layers().Conv2D(CLASSES, 1, kernel_initializer=tf_keras.initializers.RandomNormal(seed=2)),
            layers().Flatten(),
            layers().Softmax(),
        ],
        "half precision": lambda hub: [
            hub,
            dense(dtype="mixed_float16"),
            layers().Activation("linear", dtype="float32"),
        ],
        "as many classes as features": lambda hub: [hub, dense(FEATURES)],
    }


@pytest.mark.parametrize("kind", ["no bias", "1×1 convolution", "half precision", "as many classes as features"])
@pytest.mark.parametrize("way", ["tf.saved_model.save", "weights .h5"])
def test_other_heads(kind: str, way: str, stacks, trunk, tmp_path) -> None:
    model = stacks(kind, head_kinds()[kind])
    path = WAYS[way](model, tmp_path)
    values = [v.numpy() for v in model.layers[-1 if kind[0] in "na" else 2 if kind[0] == "1" else 1].weights]
    head = {KERNEL: values[0].reshape(1, 1, FEATURES, -1), BIAS: np.zeros(CLASSES, "f4")} | dict(
        zip([KERNEL, BIAS], [values[0].reshape(1, 1, FEATURES, -1), *values[1:]], strict=False)
    )
    dropped = same(path, trunk | head)
    assert ("the head's bias" in dropped) == (kind == "no bias")
    if way == "tf.saved_model.save" and kind != "as many classes as features":
        (other,) = converted(path, tmp_path / "model")["report"]["other_oracles"]
        assert other["verdict"] == "agrees"


@pytest.mark.parametrize(("kernel", "bias"), [("head_w", "head_b"), ("W", "b"), ("kernel_matrix", "fc_bias")])
def test_a_module_s_own_head_is_told_by_parts_of_its_names(kernel: str, bias: str, module, trunk, tmp_path) -> None:
    import tensorflow as tf
    import tensorflow_hub as hub

    network = tf.Module()
    network.parts = [hub.load(str(module))]
    made = {kernel: np.full((FEATURES, CLASSES), 0.5, "f4"), bias: np.arange(CLASSES, dtype="f4")}
    for name, value in made.items():
        setattr(network, name, tf.Variable(value))
    path = Path(tf.train.Checkpoint(network).save(str(tmp_path / "ckpt")))
    same(path, trunk | {KERNEL: made[kernel][None, None], BIAS: made[bias]})
    (tmp_path / "ckpt-1.meta").touch()
    same(tmp_path / "ckpt-1.meta", trunk | {KERNEL: made[kernel][None, None], BIAS: made[bias]})


def test_a_layer_s_seed_is_left_out_of_an_h5_file(models, trunk, tmp_path) -> None:
    """Older Keras keeps the seeds of its random layers among the weights."""
    import h5py

    model = models("sequential")
    path = WAYS["whole .h5"](model, tmp_path)
    with h5py.File(path, "a") as file:
        weights = file["model_weights"]
        weights.create_group("random_flip").create_dataset("StateVar:0", data=np.arange(3))
        weights["random_flip"].attrs["weight_names"] = [b"StateVar:0"]
        weights.attrs["layer_names"] = [b"random_flip", *(name.encode() for name in weights.attrs["layer_names"])]
    assert "random_flip/StateVar:0" in same(path, trunk | head_of(model))


# -- what is no BiT


def stranger(kind: str) -> Callable:
    tail = {
        "second Dense": lambda: [layers().Dense(16, name="hidden"), layers().Dense(CLASSES)],
        "BatchNormalization": lambda: [layers().BatchNormalization(name="hidden"), dense()],
        "Dense on other features": lambda: [
            layers().Reshape((2, -1)),
            layers().Flatten(),
            dense(),
            dense(name="hidden"),
        ],
    }
    return lambda hub: [hub, *tail[kind]()]


@pytest.mark.parametrize("kind", ["second Dense", "BatchNormalization", "Dense on other features"])
@pytest.mark.parametrize("way", ["tf.saved_model.save", "save_weights", "weights .h5"])
def test_what_bit_has_not_is_refused_by_name(kind: str, way: str, stacks, tmp_path) -> None:
    path = WAYS[way](stacks(kind, stranger(kind)), tmp_path)
    message = refused(3, "--checkpoint", path, "--output", tmp_path / "model", "--quiet")
    assert "hidden/" in message
    assert "one Dense head" in message


@pytest.fixture(scope="module")
def dense_on_logits(tmp_path_factory):
    import tf_keras

    own = make_checkpoint(UNITS, WIDTH, 7, seed=21, mids=MIDS)
    module = writers.hub_module(own, tmp_path_factory.mktemp("own") / "module")
    assert same(module, own).keys() == {"save_counter"}
    return tf_keras.Sequential([layers().InputLayer((None, None, 3)), hub_layer(module), dense(name="on_top")])


@pytest.mark.parametrize("way", ["tf.saved_model.save", "weights .h5"])
def test_a_dense_layer_on_the_logits_of_another_head_is_refused(way: str, dense_on_logits, tmp_path) -> None:
    path = WAYS[way](dense_on_logits, tmp_path)
    message = refused(3, "--checkpoint", path, "--output", tmp_path / "model", "--quiet")
    assert "on_top/kernel" in message
    assert "7×5" in message


@pytest.mark.parametrize("way", ["whole .h5", ".keras"])
def test_code_is_never_run(way: str, stacks, tmp_path) -> None:
    model = stacks("code", lambda hub: [layers().Lambda(lambda x: x / 255, name="my_code"), hub, dense()])
    message = refused(3, "--checkpoint", WAYS[way](model, tmp_path), "--output", tmp_path / "model", "--quiet")
    assert "my_code is a Lambda, Python code that is never run" in message


# -- where names say nothing


def test_variables_of_google_s_own_code_are_told_by_its_attributes(trunk, tmp_path) -> None:
    """Today's Keras calls the norms of all units alike; what leads to them are the attributes of bit_tf2/models.py."""
    import tensorflow as tf

    def at(place, path: str, value) -> None:
        *way, last = path.split("/")
        for attribute in way:
            if not hasattr(place, attribute):
                setattr(place, attribute, tf.Module())
            place = getattr(place, attribute)
        setattr(place, last, tf.Variable(value, name=last))

    paths = {"a/standardized_conv2d": "_unit_a_conv", "a/proj/standardized_conv2d": "_proj"}
    for branch in "abc":
        paths[f"{branch}/group_norm"] = f"_unit_{branch}/layer_with_weights-0"
        paths.setdefault(f"{branch}/standardized_conv2d", f"_unit_{branch}/layer_with_weights-1")
    network = tf.Module()
    tensors = trunk | {KERNEL: np.ones((1, 1, FEATURES, 3), "f4"), BIAS: np.ones(3, "f4")}
    for name, value in tensors.items():
        _, *middle, leaf = name.split("/")
        if middle[0].startswith("block"):
            block, unit = int(middle[0][5:]) - 1, int(middle[1][4:]) - 1
            place = f"_blocks/{block}/layer_with_weights-{unit}/{paths['/'.join(middle[2:])]}"
        else:
            place = {"root_block": "_root/layer_with_weights-0", "group_norm": "_pre_head/0", "head": "_head"}[
                middle[0]
            ]
        at(network, f"{place}/{leaf}", value[0, 0] if middle[0] == "head" and value.ndim == 4 else value)
    assert not same(
        Path(tf.train.Checkpoint(deep=tf.train.Checkpoint(model=network)).write(str(tmp_path / "c"))), tensors
    )


def test_numbered_variables_are_told_by_their_order_or_refused(trunk, tmp_path) -> None:
    """In a .keras archive variables have numbers alone: what shapes bear out, values must bear out too."""
    import h5py
    import tf_keras

    module = writers.hub_module(trunk, tmp_path / "module", backwards=True)
    model = tf_keras.Sequential([layers().InputLayer((None, None, 3)), hub_layer(module), dense()])
    model.build((None, SIZE, SIZE, 3))
    path = WAYS[".weights.h5"](model, tmp_path)
    same(path, trunk | head_of(model))
    with h5py.File(path, "a") as file:
        file["layers/random_flip/vars/0"] = np.arange(3)
    assert "layers/random_flip/0" in same(path, trunk | head_of(model))
    with h5py.File(path, "a") as file:
        variables = file["layers/keras_layer/vars"]
        norms = [name for name in variables if variables[name].ndim == 1]
        for beta, gamma in zip(*[iter(sorted(norms, key=int))] * 2, strict=True):
            values = variables[beta][()], variables[gamma][()]
            variables[beta][:], variables[gamma][:] = values[1], values[0]
    message = refused(3, "--checkpoint", path, "--output", tmp_path / "model", "--quiet")
    assert "not in the order of Google's network" in message
    assert "save_format='tf'" in message


def test_an_archive_that_holds_no_bit_is_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"junk")
    assert "damaged" in refused(3, "--checkpoint", tmp_path / "model.keras", "--output", tmp_path / "m", "--quiet")
