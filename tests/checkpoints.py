"""Checkpoints in the layout of Google's released .npz files, with reproducible values, and their golden logits.

The names are spelt here by hand, so that the tests hold the code's table of names against an independent one.
``golden.npz`` holds what Google's published PyTorch code (google-research/big_transfer@140de6e,
``bit_pytorch/models.py``) gives for these checkpoints in float64, and how far the same code in float32 is from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.mapping.architecture import Architecture

GOLDEN_FILE = Path(__file__).with_name("golden.npz")


def tensor_shapes(
    units: tuple[int, ...], width: int, classes: int | None, mids: tuple[int, ...] | None = None
) -> dict[str, tuple[int, ...]]:
    """Name → shape (HWIO for kernels) in the order of the released files.

    ``width`` is the root's width, 64 × the width factor; ``mids`` the blocks' inner widths (default: doubling from
    ``width``); ``classes`` None leaves the head out.
    """
    shapes: dict[str, tuple[int, ...]] = {"resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, width)}
    channels = width
    for block, count in enumerate(units, start=1):
        mid = mids[block - 1] if mids else width * 2 ** (block - 1)
        for unit in range(1, count + 1):
            at = f"resnet/block{block}/unit{unit:02d}/"
            shapes[at + "a/group_norm/gamma"] = (channels,)
            shapes[at + "a/group_norm/beta"] = (channels,)
            shapes[at + "a/standardized_conv2d/kernel"] = (1, 1, channels, mid)
            if unit == 1:
                shapes[at + "a/proj/standardized_conv2d/kernel"] = (1, 1, channels, 4 * mid)
            shapes[at + "b/group_norm/gamma"] = (mid,)
            shapes[at + "b/group_norm/beta"] = (mid,)
            shapes[at + "b/standardized_conv2d/kernel"] = (3, 3, mid, mid)
            shapes[at + "c/group_norm/gamma"] = (mid,)
            shapes[at + "c/group_norm/beta"] = (mid,)
            shapes[at + "c/standardized_conv2d/kernel"] = (1, 1, mid, 4 * mid)
            channels = 4 * mid
    shapes["resnet/group_norm/gamma"] = (channels,)
    shapes["resnet/group_norm/beta"] = (channels,)
    if classes is not None:
        shapes["resnet/head/conv2d/kernel"] = (1, 1, channels, classes)
        shapes["resnet/head/conv2d/bias"] = (classes,)
    return shapes


def make_checkpoint(
    units: tuple[int, ...] = (1, 1, 1, 1),
    width: int = 64,
    classes: int | None = 10,
    seed: int = 0,
    kernel_std: float = 0.01,
    mids: tuple[int, ...] | None = None,
) -> dict[str, np.ndarray]:
    """A checkpoint as {name: float32 array}: one PCG64 stream, drawn tensor by tensor in file order."""
    rng = np.random.Generator(np.random.PCG64(seed))
    tensors = {}
    for name, shape in tensor_shapes(units, width, classes, mids).items():
        value = rng.standard_normal(shape, dtype=np.float32)  # changed in place: large ones take half the time
        if name.endswith("gamma"):
            value *= np.float32(0.2)
            value += 1
        elif name.endswith(("beta", "bias")):
            value *= np.float32(0.1)
        elif "head" in name:
            value *= np.float32(0.02)
        else:
            value *= np.float32(kernel_std)
        tensors[name] = value
    return tensors


def make_input(batch: int = 2, height: int = 224, width: int = 224, seed: int = 1234) -> np.ndarray:
    """Model input, (batch, 3, height, width) float32, already normalised."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.standard_normal((batch, 3, height, width), dtype=np.float32)


@dataclass(frozen=True)
class Golden:
    """One golden row: a checkpoint, an input, and what Google's code gives for them."""

    name: str
    units: tuple[int, ...]
    width: int
    classes: int
    seed: int
    kernel_std: float
    input: tuple[int, int, int, int]

    def __str__(self) -> str:
        return self.name

    def checkpoint(self) -> dict[str, np.ndarray]:
        return make_checkpoint(self.units, self.width, self.classes, self.seed, self.kernel_std)

    def images(self) -> np.ndarray:
        return make_input(*self.input)

    def logits(self) -> np.ndarray:
        """(batch, classes) float64, from Google's own code."""
        with np.load(GOLDEN_FILE) as file:
            return file[self.name]

    def google_f32_error(self) -> float:
        """The largest error of the same code in float32."""
        with np.load(GOLDEN_FILE) as file:
            return float(file[f"{self.name}/google_f32_error"])


GOLDEN = [
    Golden("tiny", (1, 1, 1, 1), 64, 10, 0, 0.01, (2, 64, 64, 1234)),
    Golden("tiny_odd_size", (1, 1, 1, 1), 64, 10, 0, 0.01, (1, 97, 131, 1234)),
    Golden("tiny_small_kernels", (1, 1, 1, 1), 64, 10, 7, 0.0005, (2, 64, 64, 1234)),
    Golden("R50x1", (3, 4, 6, 3), 64, 1000, 0, 0.01, (2, 224, 224, 1234)),
    Golden("R50x1_small_kernels", (3, 4, 6, 3), 64, 1000, 3, 0.001, (2, 224, 224, 1234)),
    Golden("R50x1_in21k", (3, 4, 6, 3), 64, 21843, 1, 0.01, (1, 224, 224, 1234)),
    Golden("R101x1", (3, 4, 23, 3), 64, 1000, 2, 0.01, (1, 224, 224, 1234)),
    Golden("R50x3", (3, 4, 6, 3), 192, 1000, 4, 0.01, (1, 224, 224, 1234)),
    Golden("R152x2", (3, 8, 36, 3), 128, 1000, 5, 0.01, (1, 224, 224, 1234)),
]
TINY = GOLDEN[:3]
"""The rows fast enough for every test run."""
LARGE = GOLDEN[3:]


def npz_bytes(architecture: Architecture) -> int:
    """The size of an uncompressed float32 npz of this network, as Google's files have it.

    Tensors are stored, sorted by name, each under a 128-byte npy header. A zip member costs 30 + 46 bytes and its name
    twice, the archive 22; offsets beyond 2³¹ − 1, as Python's zipfile does it, 12 more a member and 76 at the end.
    """
    limit = 2**31 - 1
    offset = directory = 0
    shapes = tensor_shapes(architecture.units, architecture.root_width, architecture.classes, architecture.widths)
    for name, shape in sorted(shapes.items()):
        directory += 46 + len(f"{name}.npy") + (12 if offset > limit else 0)
        offset += 30 + len(f"{name}.npy") + 128 + 4 * math.prod(shape)
    return offset + directory + 22 + (76 if offset > limit else 0)
