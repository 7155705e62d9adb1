"""The embedded checkpoint: Google's layout to the letter, a network worth converting, and the accuracy it claims."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import converters
from tests.checkpoints import tensor_shapes

FOLDER = Path(converters.__file__).parent / "catalogue" / "digits"
SIDE = 32
MAX_BYTES = 10_000_000
FEW = 1e-3
"""Kernel deviation per output channel below which stock libraries' 1e-8 would show (1e-6 of variance: 1 %)."""


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "BiT-digits.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "heldout.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


@pytest.fixture(scope="module")
def claimed() -> int:
    """Held-out images right, as the README has it."""
    found = re.search(r"(\d+) of 360 held-out images right", (FOLDER / "README.md").read_text("utf-8"))
    assert found
    return int(found[1])


@pytest.fixture(scope="module")
def features(tensors: dict[str, np.ndarray], held_out: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(360, 1024) pooled features of the held-out images."""
    return pooled_features(tensors, make_pixels(held_out[0]))


def make_pixels(images: np.ndarray) -> np.ndarray:
    """(n, 8, 8) uint8 → (n, 32, 32, 3) float32 in -1 … 1."""
    pictures = [
        Image.fromarray(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in images
    ]
    return (np.stack(pictures).astype(np.float32) - 127.5) / 127.5


def pooled_features(tensors: dict[str, np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """BiT in TensorFlow's own operations, straight on Google's names; one unit a block."""
    import tensorflow as tf

    def convolve(x, name: str, stride: int = 1):
        kernel = tensors[f"resnet/{name}standardized_conv2d/kernel"]
        mean, variance = tf.nn.moments(tf.constant(kernel), [0, 1, 2])
        margin = kernel.shape[0] // 2
        x = tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
        return tf.nn.conv2d(x, (kernel - mean) / tf.sqrt(variance + 1e-10), stride, "VALID")

    def normalise(x, name: str):
        n, height, width, channels = x.shape
        groups = tf.reshape(x, [n, height, width, 32, channels // 32])
        mean, variance = tf.nn.moments(groups, [1, 2, 4], keepdims=True)
        x = tf.reshape((groups - mean) / tf.sqrt(variance + 1e-5), x.shape)
        return tf.nn.relu(x * tensors[f"resnet/{name}group_norm/gamma"] + tensors[f"resnet/{name}group_norm/beta"])

    x = convolve(tf.constant(pixels), "root_block/", stride=2)
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    for block in (1, 2, 3, 4):
        at, stride = f"block{block}/unit01/", 1 if block == 1 else 2
        entry = normalise(x, at + "a/")
        inner = normalise(convolve(entry, at + "a/"), at + "b/")
        inner = normalise(convolve(inner, at + "b/", stride), at + "c/")
        x = convolve(inner, at + "c/") + convolve(entry, at + "a/proj/", stride)
    return tf.reduce_mean(normalise(x, ""), [1, 2]).numpy()


def test_names_order_and_shapes_are_those_of_the_released_files(tensors: dict[str, np.ndarray]) -> None:
    expected = tensor_shapes((1, 1, 1, 1), width=32, classes=10)
    assert [(name, tensor.shape) for name, tensor in tensors.items()] == list(expected.items())


def test_values_are_finite_float32(tensors: dict[str, np.ndarray]) -> None:
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("<f4")}
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def test_no_kernel_has_a_channel_near_zero_variance(tensors: dict[str, np.ndarray]) -> None:
    deviations = {
        name: tensor.std(axis=(0, 1, 2)).min() for name, tensor in tensors.items() if "standardized_conv2d" in name
    }
    assert len(deviations) == 17
    assert min(deviations.values()) > FEW


def test_features_are_alive(features: np.ndarray) -> None:
    """A trained ReLU network has a dead feature here and there, not many."""
    assert features.shape == (360, 1024)
    assert np.isfinite(features).all()
    assert (features.std(axis=0) > 0).mean() > 0.99


def test_held_out_images_are_recognised_as_the_readme_claims(
    tensors: dict[str, np.ndarray], held_out: tuple[np.ndarray, np.ndarray], features: np.ndarray, claimed: int
) -> None:
    logits = features @ tensors["resnet/head/conv2d/kernel"][0, 0] + tensors["resnet/head/conv2d/bias"]
    assert claimed >= 0.99 * 360
    assert (logits.argmax(axis=1) == held_out[1]).sum() >= claimed


def test_held_out_images_are_those_of_the_split_and_no_training_image_is_among_them(
    held_out: tuple[np.ndarray, np.ndarray],
) -> None:
    images, labels = held_out
    digits = load_digits()
    shown, hidden = train_test_split(np.arange(1797), test_size=360, stratify=digits.target, random_state=0)
    everything = np.round(digits.images * 255 / 16).astype(np.uint8)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, everything[hidden])
    np.testing.assert_array_equal(labels, digits.target[hidden])
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in everything[shown]}


@pytest.mark.slow
def test_script_makes_both_files(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Two of its forty epochs, which reach some 92 %; the whole takes two minutes."""
    script = [sys.executable, FOLDER / "train.py", "--epochs", "2", "--output", tmp_path]
    result = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, check=True)
    with np.load(tmp_path / "BiT-digits.npz") as made:
        assert [(name, made[name].shape) for name in made] == [(name, t.shape) for name, t in tensors.items()]
        assert not np.array_equal(made["resnet/head/conv2d/bias"], tensors["resnet/head/conv2d/bias"])
    assert (tmp_path / "heldout.npz").read_bytes() == (FOLDER / "heldout.npz").read_bytes()
    found = re.search(r"held-out: (\d+) of 360 right", result.stdout)
    assert found
    assert int(found[1]) > 0.8 * 360


def test_repository_stays_small() -> None:
    assert (FOLDER / "BiT-digits.npz").stat().st_size <= MAX_BYTES
    assert (FOLDER / "heldout.npz").stat().st_size <= 50_000
