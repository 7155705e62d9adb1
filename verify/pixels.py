"""Google's preprocessing, written from its recipe and sharing nothing with bit_ref: what an image processor must give.

    uint8 image (height, width, 3) → resize by Pillow → centre crop → (x − 127.5) / 127.5 → (3, height, width) float32

Sources: google-research/big_transfer ``bit_pytorch/train.py`` (resize to a square, mean and std 0.5), ``bit_hyperrule``
(the sizes); google-research/big_vision ``pp/ops_image.py`` (``resize_small``, ``central_crop``, ``value_range``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

LIMIT = 2.0**-20
"""How far a pixel in −1 … 1 may be off: some roundings of float32, and less than a thousandth of a step of uint8."""


def google_pixels(
    image: npt.NDArray[np.uint8], size: Mapping[str, int], crop: tuple[int, int] | None, resample: int
) -> npt.NDArray[np.float32]:
    """``size`` is {"height", "width"} to stretch to, or {"shortest_edge"}; ``resample`` is Pillow's number."""
    from PIL import Image

    height, width = image.shape[:2]
    if "shortest_edge" in size:
        factor = size["shortest_edge"] / min(height, width)
        high, wide = round(height * factor), round(width * factor)
    else:
        high, wide = size["height"], size["width"]
    pixels = np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling(resample)), np.float64)
    if crop is not None:
        top, left = (high - crop[0]) // 2, (wide - crop[1]) // 2
        pixels = pixels[top : top + crop[0], left : left + crop[1]]
    return np.ascontiguousarray(((pixels - 127.5) / 127.5).transpose(2, 0, 1), np.float32)


def patterns() -> list[npt.NDArray[np.uint8]]:
    """Images to hold processors against, wide and high: slopes, edges and noise, in each channel others."""
    return [_pattern(200, 300), _pattern(360, 240)]


def _pattern(height: int, width: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(height).integers(0, 256, (height, width))
    channels = [255 * x // (width - 1), np.where((x // 16 + y // 16) % 2, 250, 5), (noise + y) % 256]
    return np.stack(channels, axis=-1).astype(np.uint8)


def difference(found: npt.NDArray[Any], wanted: npt.NDArray[np.float32]) -> str:
    """Empty where a processor's pixels are Google's, else how they differ."""
    if found.shape != wanted.shape:
        return f"shape {found.shape}, not {wanted.shape}"
    worst = float(np.abs(found.astype(np.float64) - wanted).max())
    return "" if worst <= LIMIT else f"off by up to {worst:.2g}"
