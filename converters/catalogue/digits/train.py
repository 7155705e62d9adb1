"""Trains the embedded checkpoint: scikit-learn's handwritten digits → BiT-digits.npz and heldout.npz, beside this file.

    python converters/catalogue/digits/train.py

The images are split once, by class, and the held-out ones are only used to print the accuracy at the end: the
recipe below was chosen by cross-validation within the training part. The network is bit_ref's, and it is saved as
Google saves its own: an uncompressed ``.npz`` of float32 under the released names, in their order and axes.
Needs scikit-learn. Runs from the same seeds give the same accuracy; the last bits depend on the machine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional

from bit_ref import BitConfig, BitForImageClassification, BitImageProcessor
from converters.mapping.architecture import Architecture
from converters.mapping.layouts import TRANSFORMERS
from converters.mapping.names import parameters

FOLDER = Path(__file__).parent
ARCHITECTURE = Architecture.regular(units=(1, 1, 1, 1), root_width=32, classes=10)
SIDE = 32
"""Pixels of the network's input: the smallest square that its five halvings take down to one feature."""
HELD_OUT = 360
SPLIT_SEED = 0

SEED = 0
EPOCHS = 40
BATCH = 64
LEARNING_RATE = 0.03
WARM_UP = 0.15
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1

MAX_ANGLE = math.radians(15)
MAX_ZOOM = 0.15
MAX_SHIFT = 4 / SIDE
"""Augmentation: rotation, relative change of size, and shift as a part of the side."""


def load_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, training labels, held-out images, held-out labels.

    Images are (n, 8, 8) uint8, scikit-learn's 0 … 16 stretched to 0 … 255; labels are int64.
    """
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    train, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=SPLIT_SEED
    )
    return images[train], labels[train], images[held_out], labels[held_out]


def make_pixels(images: np.ndarray) -> Tensor:
    """(n, 8, 8) uint8 → (n, 3, SIDE, SIDE) float32 in -1 … 1: stretched to the square, bilinear."""
    processor = BitImageProcessor(
        size={"height": SIDE, "width": SIDE},
        resample=2,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    colour = [np.repeat(image[..., None], 3, axis=-1) for image in images]
    pixels: Tensor = processor.preprocess(colour, return_tensors="pt")["pixel_values"]
    return pixels


def make_network() -> BitForImageClassification:
    return BitForImageClassification(
        BitConfig(
            embedding_size=ARCHITECTURE.root_width,
            hidden_sizes=[4 * width for width in ARCHITECTURE.widths],
            depths=list(ARCHITECTURE.units),
            num_labels=ARCHITECTURE.classes,
            weight_standardization_eps=1e-10,
        )
    )


def augment(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Each image turned, resized and shifted a little; what comes into view is background, -1."""

    def draw(limit: float) -> Tensor:
        return (torch.rand(len(pixels), generator=random) * 2 - 1) * limit

    angle, zoom = draw(MAX_ANGLE), 1 + draw(MAX_ZOOM)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    # affine_grid measures in half sides
    rows = [torch.stack(row, dim=1) for row in ((cos, -sin, draw(2 * MAX_SHIFT)), (sin, cos, draw(2 * MAX_SHIFT)))]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels + 1, grid, align_corners=False) - 1


def batches(count: int, epochs: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices of ``epochs`` passes over ``count`` images, each in an order of its own."""
    for _ in range(epochs):
        yield from torch.split(torch.randperm(count, generator=random), BATCH)


def train(network: BitForImageClassification, pixels: Tensor, labels: Tensor, epochs: int) -> None:
    """SGD with momentum, as BiT is trained, with a warm-up and a cosine decay."""
    random = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * math.ceil(len(labels) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARM_UP)
    network.train()
    for step, batch in enumerate(batches(len(labels), epochs, random), start=1):
        logits = network(augment(pixels[batch], random)).logits
        loss = functional.cross_entropy(logits, labels[batch], label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.4f}")


def count_correct(network: BitForImageClassification, pixels: Tensor, labels: Tensor) -> int:
    network.eval()
    with torch.inference_mode():
        return int((network(pixels).logits.argmax(dim=1) == labels).sum())


def to_google(network: BitForImageClassification) -> dict[str, np.ndarray]:
    """The network's parameters under the released names, in the released order, kernels HWIO."""
    state = network.state_dict()
    return {
        parameter.names["npz"]: np.ascontiguousarray(
            TRANSFORMERS.forms[parameter.kind].restore(state[TRANSFORMERS.parameter_name(parameter)].numpy())
        )
        for parameter in parameters(ARCHITECTURE)
    }


def main() -> None:
    options = argparse.ArgumentParser(description="Train the embedded checkpoint on scikit-learn's digits.")
    options.add_argument(
        "--epochs", type=int, default=EPOCHS, help="passes over the training images (default: %(default)s)"
    )
    options.add_argument(
        "--output", type=Path, default=FOLDER, help="folder for both files (default: beside the script)"
    )
    chosen = options.parse_args()

    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    train_images, train_labels, held_images, held_labels = load_split()
    network = make_network()
    train(network, make_pixels(train_images), torch.from_numpy(train_labels), chosen.epochs)
    np.savez(chosen.output / "BiT-digits.npz", allow_pickle=False, **to_google(network))
    np.savez(chosen.output / "heldout.npz", images=held_images, labels=held_labels)
    correct = count_correct(network, make_pixels(held_images), torch.from_numpy(held_labels))
    print(f"held-out: {correct} of {len(held_labels)} right ({correct / len(held_labels):.2%})")


if __name__ == "__main__":
    main()
