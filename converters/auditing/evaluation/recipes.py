"""Preprocessing: from an image to the pixels that a network is given, as Google's recipe or a folder's own has it.

    Preprocessing → Google's arithmetic, independent of bit_ref;  folder → the processor of the library that reads it
    either → ``Recipe`` → ``preparer()`` → a function of an image

A recipe is plain data, so that it can be sent to another process and be a part of a key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from converters.catalogue.variants import LARGEST, SMALLEST, Preprocessing
from converters.files import PREPROCESSOR, PROCESSOR
from verify.readers import TimmReader
from verify.typed import decoded

if TYPE_CHECKING:
    from PIL.Image import Image

    Prepare = Callable[[Image], npt.NDArray[Any]]

Maker = Literal["google", "bit_ref", "transformers", "timm"]


@dataclass(frozen=True)
class Recipe:
    """The maker of pixels, and what it makes them by."""

    maker: Maker
    words: str
    """For a report."""
    folder: str = ""
    """The folder that a library's image processor is read from."""
    preprocessing: Preprocessing | None = None
    """Google's recipe."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        return decoded(text.encode(), cls)


def google(preprocessing: Preprocessing) -> Recipe:
    """Google's own evaluation, or what the graph of a SavedModel shows of it."""
    return Recipe("google", preprocessing.in_words, preprocessing=preprocessing)


def folders_own(folder: Path, layout: str, reader: str) -> Recipe | None:
    """The preprocessing of the library ``reader`` of a folder; None where the folder says nothing of it."""
    declared = (folder / PREPROCESSOR).is_file()
    if reader.startswith("transformers") and (declared or (folder / PROCESSOR).is_file()):
        return Recipe("transformers", _words(folder), str(folder))
    if reader.startswith("timm") or (layout == "timm" and not declared and TimmReader.available()):
        return Recipe("timm", "as timm makes it of config.json", str(folder))
    return Recipe("bit_ref", _words(folder), str(folder)) if declared else None


def declared_preprocessing(folder: Path) -> Preprocessing | None:
    """The recipe in preprocessor_config.json; None where it leaves images as they are, or is none of this kind."""
    from bit_ref import BitImageProcessor

    try:
        processor: Any = BitImageProcessor.from_pretrained(folder)
        size = {name: int(value) for name, value in dict(processor.size).items() if value is not None}
        edges = processor.crop_size["height"], processor.crop_size["width"]
        mean, std = (tuple(map(float, values)) for values in (processor.image_mean, processor.image_std))
    except (ValueError, TypeError, OSError, KeyError):
        return None  # said where its fields are compared
    if not processor.do_resize or not ({"shortest_edge"} == size.keys() or {"height", "width"} == size.keys()):
        return None
    crop = edges if processor.do_center_crop else None
    return Preprocessing(size, crop, int(processor.resample), mean, std)  # type: ignore[arg-type]


def _words(folder: Path) -> str:
    found = declared_preprocessing(folder)
    return found.in_words if found and len(found.mean) == len(found.std) == 3 else "as its image processor makes it"


def preparer(recipe: Recipe) -> Prepare:
    """A function from an RGB image to (3, height, width) float32 pixels. Raises whatever the library raises."""
    makers: Mapping[str, Callable[[Path], Prepare]] = {
        "bit_ref": bit_ref_pixels,
        "transformers": transformers_pixels,
        "timm": timm_pixels,
    }
    if recipe.preprocessing is not None:
        return google_preparer(recipe.preprocessing)
    return makers[recipe.maker](Path(recipe.folder))


def google_preparer(preprocessing: Preprocessing) -> Prepare:
    from verify.pixels import google_pixels

    def prepare(image: Image) -> npt.NDArray[np.float32]:
        recipe = preprocessing
        ends = recipe.mean, recipe.std
        return google_pixels(np.asarray(image.convert("RGB")), recipe.size, recipe.crop, recipe.resample, *ends)

    return prepare


def bit_ref_pixels(folder: Path) -> Prepare:
    """The image processor of bit_ref, which computes what transformers' does with Pillow."""
    from bit_ref import BitImageProcessor

    processor: Any = BitImageProcessor.from_pretrained(folder)
    sides = [*dict(processor.size or {}).values(), *dict(processor.crop_size or {}).values()]
    if not all(side is None or SMALLEST <= side <= LARGEST for side in sides):
        raise ValueError(f"sides must be of {SMALLEST} to {LARGEST} pixels, and are {sides}")
    return lambda image: processor.preprocess(image, return_tensors="np")["pixel_values"][0]


def transformers_pixels(folder: Path) -> Prepare:
    """The image processor that transformers makes of a folder, without the network and without the folder's code."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return lambda image: processor(image, return_tensors="np")["pixel_values"][0]


def timm_pixels(folder: Path, data: Mapping[str, Any] | None = None) -> Prepare:
    """The transform that timm makes of a folder's config.json; ``data`` are its settings, where they are known."""
    from timm.data import create_transform

    transform = create_transform(**(data or timm_data(folder)), is_training=False)
    return lambda image: transform(image.convert("RGB")).numpy()


def timm_data(folder: Path) -> dict[str, Any]:
    """The settings of images that timm resolves of a folder's config.json; no weight is needed."""
    import timm
    import torch
    from timm.data import resolve_data_config

    with torch.device("meta"):
        model = timm.create_model(f"local-dir:{folder}", pretrained=False)
    data: dict[str, Any] = resolve_data_config(model=model)
    return data
