"""From a picture to pixel values, on arrays (C, H, W), in the arithmetic of transformers' ``BitImageProcessorPil``.

PIL or array → ``as_array`` → (C, H, W) → ``process``: resized by Pillow, cropped, rescaled, normalised → ``pad``
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

Array = npt.NDArray[Any]
Size = Mapping[str, int]

logger = logging.getLogger(__name__)


def as_array(picture: Any, options: Mapping[str, Any]) -> Array:
    """(C, H, W), of the picture's own dtype; three channels where ``do_convert_rgb``."""
    if isinstance(picture, PIL.Image.Image):
        array = np.array(_on_white(picture) if options["do_convert_rgb"] else picture)
        return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    array = np.moveaxis(picture, -1, 0) if _has_channels_last(picture, options["input_data_format"]) else picture
    return _to_rgb(array) if options["do_convert_rgb"] else array


def _on_white(picture: PIL.Image.Image) -> PIL.Image.Image:
    """RGB; what is transparent shows white."""
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return picture.convert("RGB")


def _has_channels_last(array: Array, given: str | None) -> bool:
    if given is not None:
        return given == "channels_last"
    first, last = (array.shape[axis] in (1, 3, 4) for axis in (0, 2))
    if first and last:
        logger.warning("shape %s has channels first or last: taken as first, see input_data_format", array.shape)
    if not first and not last:
        raise ValueError(f"Unable to infer channel dimension format: no 1, 3 or 4 channels in shape {array.shape}")
    return not first


def _to_rgb(array: Array) -> Array:
    """(1, 3 or 4, H, W) → (3, H, W); the fourth channel is opacity, over white."""
    if len(array) == 1:
        return np.repeat(array, 3, axis=0)
    if len(array) != 4:
        return array
    is_integer = np.issubdtype(array.dtype, np.integer)
    if not is_integer and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"RGBA must be in the range [0, 1], got [{array.min()}, {array.max()}]")
    white = 255 if is_integer else 1.0
    opacity = array[3:] / white
    mixed = opacity * array[:3] + (1 - opacity) * white
    return (np.round(mixed) if is_integer else mixed).astype(array.dtype)


def process(array: Array, options: Mapping[str, Any]) -> Array:
    """One picture, (C, H, W), through every step that is on."""
    if options["do_resize"]:
        array = _resize(array, _resized(array.shape[1:], options["size"]), options["resample"])
    if options["do_center_crop"]:
        array = _center_crop(array, options["crop_size"])
    if options["do_rescale"]:
        array = _rescale(array, options["rescale_factor"])
    if options["do_normalize"]:
        array = _normalize(array, options["image_mean"], options["image_std"])
    return array


def _resized(shape: Sequence[int], size: Size) -> tuple[int, int]:
    """Height and width after resizing."""
    height, width = shape
    if not (height and width):
        raise ValueError(f"a picture of {height}×{width} pixels cannot be resized")
    if size.get("shortest_edge"):
        return _by_shortest_edge(height, width, size["shortest_edge"], size.get("longest_edge"))
    if size.get("max_height") and size.get("max_width"):
        scale = min(size["max_height"] / height, size["max_width"] / width)
        return int(height * scale), int(width * scale)
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    raise ValueError(
        "Size must contain 'height' and 'width' keys, or 'max_height' and 'max_width', or 'shortest_edge' key. "
        f"Got {size}."
    )


def _by_shortest_edge(height: int, width: int, shortest: int, longest: int | None) -> tuple[int, int]:
    """Proportions kept, in this order of roundings: torchvision's."""
    short, long = sorted((height, width))
    wanted: float = shortest
    if longest and float(long) / float(short) * shortest > longest:
        wanted = longest * float(short) / float(long)
        shortest = round(wanted)
    if short == shortest:
        return height, width
    other = int(wanted * long / short)
    return (other, shortest) if width <= height else (shortest, other)


def _resize(array: Array, size: tuple[int, int], resample: Any) -> Array:
    """Resizes with Pillow, in uint8; values of 0 … 1 are stretched to 0 … 255 and back (float32)."""
    stretched = array.dtype != np.uint8 and _is_fraction(array)
    bytes_ = (_rescale(array, 255) if stretched else array).astype(np.uint8)
    image = PIL.Image.fromarray(bytes_[0] if len(bytes_) == 1 else np.ascontiguousarray(np.moveaxis(bytes_, 0, -1)))
    resized = np.array(image.resize((size[1], size[0]), resample=_filter(resample)))
    resized = resized[None] if resized.ndim == 2 else np.moveaxis(resized, -1, 0)
    return _rescale(resized, 1 / 255) if stretched else resized


def _is_fraction(array: Array) -> bool:
    """Whether values are 0 … 1 and not whole. Raises ValueError where they are no pixels at all."""
    whole = np.allclose(array, array.astype(int))
    limit = 255 if whole else 1
    if not (np.all(array >= 0) and np.all(array <= limit)):
        raise ValueError(
            f"The image to be converted to a PIL image contains values outside the range [0, {limit}], "
            f"got [{array.min()}, {array.max()}] which cannot be converted to uint8."
        )
    return not whole


def _filter(resample: Any) -> PIL.Image.Resampling:
    if isinstance(resample, int):
        return PIL.Image.Resampling(resample)
    try:  # torchvision's InterpolationMode has Pillow's names
        return PIL.Image.Resampling[resample.name.removesuffix("_EXACT")]
    except (AttributeError, KeyError):
        raise ValueError(f"resample={resample} is no filter of Pillow") from None


def _center_crop(array: Array, size: Size) -> Array:
    """Crops to (C, height, width); missing pixels are black, with the odd one before the image."""
    for axis, wanted in ((1, int(size["height"])), (2, int(size["width"]))):
        excess = array.shape[axis] - wanted
        if excess >= 0:
            array = array.take(range(excess // 2, excess // 2 + wanted), axis)
        else:
            around = [(0, 0)] * 3
            around[axis] = (math.ceil(-excess / 2), -excess // 2)
            array = np.pad(array, around)
    return array


def _rescale(array: Array, factor: float) -> Array:
    """Multiplied in float64, then float32."""
    return (array.astype(np.float64) * factor).astype(np.float32)


def _normalize(array: Array, mean: Any, std: Any) -> Array:
    """(x - mean) / std for each channel, in the array's precision, float32 for integers."""
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32)

    def of_channels(name: str, value: Any) -> Array:
        if isinstance(value, Collection) and len(value) != len(array):
            raise ValueError(f"{name} must have {len(array)} elements if it is an iterable, got {len(value)}")
        return np.broadcast_to(np.array(value, array.dtype), len(array))[:, None, None]

    return (array - of_channels("mean", mean)) / of_channels("std", std)


def pad(arrays: list[Array], size: Size | None) -> list[Array]:
    """Black below and to the right, up to ``size``, else up to the largest. Raises ValueError where one is larger."""
    largest = [max((array.shape[axis] for array in arrays), default=0) for axis in (1, 2)]
    height, width = largest if size is None else (size["height"], size["width"])
    if largest[0] > height or largest[1] > width:
        raise ValueError(
            "Padding dimensions are negative. Please make sure that the `pad_size` is larger than the image size: "
            f"{height}×{width} for {largest[0]}×{largest[1]}"
        )
    return [np.pad(a, ((0, 0), (0, height - a.shape[1]), (0, width - a.shape[2]))) for a in arrays]
