"""The images that an audit runs on: noise that shows what photographs hide.

size, seed → ``default_images()`` or ``thorough_images()`` → (n, 3, height, width) float32 arrays → ``separate()``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

EXTREME = 1e3
"""Amplitude of the largest of the thorough images."""
DIM = 1e-3
"""Amplitude of the second default image: so dim that the group norms' epsilon shows."""
SIDE = 64
"""Pixels on a side of a default image: on 64 as on 224 every fault is found (docs/tolerance.md), for a twelfth of the
products."""
SMALLEST = 9
"""The fewest pixels on a side of an image: from 8 on down the last maps are of one pixel, and the group norms before
them of a few, whose floors are too large to judge by."""


def default_images(height: int = SIDE, width: int | None = None, seed: int = 0) -> list[Image]:
    """Returns N(0, 1) noise, and the same at amplitude 1e-3: two (1, 3, height, width) float32 arrays."""
    noise = np.random.default_rng(seed).standard_normal((1, 3, height, width or height), dtype=np.float32)
    return [noise, noise * np.float32(DIM)]


def thorough_images(height: int = 224, seed: int = 0) -> list[Image]:
    """Returns the default images, and those on which rarer faults show.

    They are as large as BiT's own. Two more seeds as a batch, impulses at the corners and borders, odd and non-square
    sizes, extreme values.
    """
    images = default_images(height, seed=seed)
    random = np.random.default_rng(seed + 1)
    batch = random.standard_normal((2, 3, height, height), dtype=np.float32)
    impulses = random.standard_normal((1, 3, height, height), dtype=np.float32) * np.float32(DIM)
    for y in (0, height // 2, height - 1):
        for x in (0, height // 2, height - 1):
            impulses[:, :, y, x] = 10 if (y, x) != (height // 2, height // 2) else 0
    odd = default_images(height // 2 + 1 - height // 2 % 2, height // 2 + 20, seed=seed + 2)[0]
    wide = default_images(height // 3, height, seed=seed + 3)[0]
    return [*images, batch, impulses, odd, wide, images[0] * np.float32(EXTREME)]


IMAGES: Mapping[str, Callable[[], list[Image]]] = {"default": default_images, "thorough": thorough_images}
"""Sets of images by the name that a user asks for."""


@dataclass(frozen=True)
class Images:
    """Every image by itself, (1, 3, height, width) float32, and which of them came in a batch."""

    singles: tuple[Image, ...]
    batches: tuple[range, ...]
    real: range
    """The images that are no noise."""

    @property
    def runs(self) -> int:
        """The number of times that one reader is run: on each image, and on each batch."""
        return len(self.singles) + len(self.batches)


def separate(images: Sequence[Array], real: Sequence[Array] = ()) -> Images:
    """Separates batches into images, the ``real`` ones last.

    Raises ValueError for an array that is no image, too small, or not finite.
    """
    singles: list[Image] = []
    batches: list[range] = []
    for batch in (*images, *real):
        _refuse_unusable(batch)
        if len(batch) > 1:
            batches.append(range(len(singles), len(singles) + len(batch)))
        singles += [np.ascontiguousarray(image[None]) for image in batch]
    return Images(tuple(singles), tuple(batches), range(len(singles) - sum(map(len, real)), len(singles)))


def _refuse_unusable(batch: Array) -> None:
    if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape or batch.dtype != np.float32:
        raise ValueError(f"an image is a (n, 3, height, width) float32 array, not {batch.shape} {batch.dtype}")
    if min(batch.shape[2:]) < SMALLEST:
        raise ValueError(f"an image of {batch.shape[2]} × {batch.shape[3]} is too small: give {SMALLEST} or more")
    if not np.isfinite(batch).all():
        raise ValueError("an image holds NaN or Inf")
