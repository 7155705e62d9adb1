"""Google's preprocessing, written from its recipe and sharing nothing with bit_ref: what an image processor must give.

    uint8 image (height, width, 3) → resize by Pillow → centre crop → (x − 127.5) / 127.5 → (3, height, width) float32

Sources: google-research/big_transfer ``bit_pytorch/train.py`` (resize to a square, mean and std 0.5), ``bit_hyperrule``
(the sizes); google-research/big_vision ``pp/ops_image.py`` (``resize_small``, ``central_crop``, ``value_range``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

STEP = 1 / 127.5
"""One step of uint8, in −1 … 1."""
LIBRARY_LIMIT, LIBRARY_MEAN = 2.5 * STEP, 0.125 * STEP
"""The largest error of one pixel of a stock library, and of all in the mean: torchvision, which transformers resizes
with, works in fixed point as Pillow does, with other tables: 2 steps at most, 0.09 on average, were measured."""
LIMIT = 2.0**-20
"""The largest error of a pixel in −1 … 1: some roundings of float32, and less than a thousandth of a step of uint8."""


def google_pixels(
    image: npt.NDArray[np.uint8],
    size: Mapping[str, int],
    crop: tuple[int, int] | None,
    resample: int,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
) -> npt.NDArray[np.float32]:
    """``size`` is {"height", "width"} to stretch to, or {"shortest_edge"}; ``resample`` is Pillow's number.

    ``mean`` and ``std``, of values 0 … 1, are Google's unless a graph says otherwise.
    """
    high, wide = _resized(image, size, cut=False)
    return _prepared(image, (high, wide), crop, (0, 0), resample, (mean, std))


def _resized(image: npt.NDArray[Any], size: Mapping[str, int], cut: bool) -> tuple[int, int]:
    """Height and width; the longer side is rounded, or its fraction ``cut`` off."""
    height, width = image.shape[:2]
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    edge = size["shortest_edge"]
    whole = math.floor if cut else round
    return (edge, whole(edge * width / height)) if height <= width else (whole(edge * height / width), edge)


def _prepared(
    image: npt.NDArray[np.uint8],
    resized: tuple[int, int],
    crop: tuple[int, int] | None,
    shift: tuple[int, int],
    resample: int,
    scale: tuple[Sequence[float], Sequence[float]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
) -> npt.NDArray[np.float32]:
    """``shift`` is how much further down and right than the middle, rounded down, the crop begins, if it can."""
    from PIL import Image

    high, wide = resized
    pixels = np.asarray(Image.fromarray(image).resize((wide, high), Image.Resampling(resample)))
    if crop is not None:
        top, left = ((side - edge + extra) // 2 for side, edge, extra in zip(resized, crop, shift, strict=True))
        pixels = pixels[top : top + crop[0], left : left + crop[1]]
    values = np.arange(256.0)  # what each of them becomes is computed once, in float64
    tables = [((values - 255 * mean) / (255 * std)).astype(np.float32) for mean, std in zip(*scale, strict=True)]
    # none is beyond a table; that nothing has to be checked halves the time
    return np.stack([table.take(pixels[..., channel], mode="clip") for channel, table in enumerate(tables)])


def library_difference(
    found: npt.NDArray[Any], image: Image, size: Mapping[str, int], crop: tuple[int, int] | None, resample: int
) -> str:
    """Empty where a stock library's pixels are Google's, within what its resizing rounds otherwise.

    Libraries cut the fraction of the longer side off, where Google's code rounds, and one of them begins a crop of an
    odd margin one pixel later: any of these is what the library does, whatever the folder says.
    """
    array = np.asarray(image.convert("RGB"))
    wholes = {_resized(array, size, cut) for cut in (False, True)}
    shifts = [(0, 0), (0, 1), (1, 0), (1, 1)] if crop else [(0, 0)]
    errors = []
    for resized, shift in product(sorted(wholes), shifts):
        wanted = _prepared(array, resized, crop, shift, resample)
        if wanted.shape == found.shape:
            error = np.abs(found - wanted)
            worst, mean = float(error.max()), float(error.mean())
            if worst <= LIBRARY_LIMIT and mean <= LIBRARY_MEAN:
                return ""
            errors.append((worst, mean))
    if not errors:
        first = _prepared(array, min(wholes), crop, (0, 0), resample)
        return f"shape {found.shape}, not {first.shape}"
    worst, mean = min(errors)
    return f"off by up to {worst:.2g}, {mean:.2g} on average"


@cache
def kinds() -> tuple[tuple[str, Image], ...]:
    """Images as users have them, each with what it is called: in colour, grey, with a palette, of an odd size, ...

    What is transparent is opaque here: libraries differ in what they put behind it. Do not change them.
    """
    from PIL import Image

    wide, high = (Image.fromarray(pattern) for pattern in patterns())
    return (
        ("a wide image", wide),
        ("a high image", high),
        ("a grey image", wide.convert("L")),
        ("an image with an alpha channel", high.convert("RGBA")),
        ("an image with a palette", wide.convert("P")),
        ("an image of an odd size", Image.fromarray(_pattern(131, 97))),
        ("a very wide image", Image.fromarray(_pattern(40, 201))),
    )


@cache
def patterns() -> tuple[npt.NDArray[np.uint8], ...]:
    """Images to hold processors against, wide and high: slopes, edges and noise, in each channel others."""
    return _pattern(200, 300), _pattern(360, 240)


def _pattern(height: int, width: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(height).integers(0, 256, (height, width))
    channels = [255 * x // (width - 1), np.where((x // 16 + y // 16) % 2, 250, 5), (noise + y) % 256]
    pattern = np.stack(channels, axis=-1).astype(np.uint8)
    pattern.flags.writeable = False
    return pattern


def difference(found: npt.NDArray[Any], wanted: npt.NDArray[np.float32]) -> str:
    """Empty where a processor's pixels are Google's, else how they differ."""
    if found.shape != wanted.shape:
        return f"shape {found.shape}, not {wanted.shape}"
    worst = float(np.abs(found.astype(np.float64) - wanted).max())
    return "" if worst <= LIMIT else f"off by up to {worst:.2g}"
