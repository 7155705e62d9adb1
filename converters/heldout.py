"""The held-out digits: what Google's layout and the converted folder make of images that the network never saw.

held-out images → NumPy oracle on the checkpoint; bit_ref on the folder → HeldOut
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.folder import Folder, own_readers
from converters.sources import open_checkpoint
from verify.oracles.numpy import NumpyOracle

DATA = "digits/heldout.npz"


@dataclass(frozen=True)
class HeldOut:
    """Classes predicted for the held-out images, by the checkpoint and by the folder."""

    truth: list[str]
    source: list[str]
    folder: list[str]

    @property
    def correct(self) -> tuple[int, int]:
        """How many images the checkpoint and the folder get right."""
        right = [
            sum(a == b for a, b in zip(self.truth, guessed, strict=True)) for guessed in (self.source, self.folder)
        ]
        return right[0], right[1]

    @property
    def agreement(self) -> int:
        """On how many images both predict the same class."""
        return _matches(self.source, self.folder)


def _matches(first: list[str], second: list[str]) -> int:
    return sum(a == b for a, b in zip(first, second, strict=True))


def held_out(checkpoint: Path, folder: Path, names: list[str]) -> HeldOut:
    """Runs both on the 360 held-out images: Google's layout in the oracle, the folder in its declared reader."""
    from bit_ref import BitImageProcessor

    with files("converters").joinpath(DATA).open("rb") as file, np.load(file, allow_pickle=False) as data:
        images, targets = data["images"], data["labels"]
    processor: Any = BitImageProcessor.from_pretrained(folder)
    colour = [np.repeat(image[..., None], 3, axis=-1) for image in images]
    pixels: npt.NDArray[np.float32] = processor.preprocess(colour, return_tensors="np")["pixel_values"]
    with open_checkpoint(checkpoint) as source, Folder(folder, source, own_readers) as target:
        truth = NumpyOracle(source).forward(pixels)["logits"]
        logits = target.readers[0].run(pixels)["logits"]
    return HeldOut(*([names[int(index)] for index in found] for found in (targets, truth.argmax(1), logits.argmax(1))))
