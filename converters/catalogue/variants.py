"""Everything Google released of BiT, and the checkpoint that ships with this package.

released.csv → ``released.entries()`` → ``variants()`` → ``find()``, ``named()``, ``find_one()``
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal

from converters.catalogue.released import FOLDER, entries
from converters.errors import UsageError
from converters.mapping.architecture import Architecture

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?<!\.npz)(?<!\.h5)(?<!\.bin)(?<!\.gz)(?<!\.keras)(?<!\.safetensors)")
"""Matches what is written as a repository of the Hub, and not as a file."""

Format = Literal["npz", "h5", "saved_model"]

BUCKET = "https://storage.googleapis.com/bit_models/"
TFHUB = "https://tfhub.dev/"
KAGGLE_MODULES = "google/bit/"
"""The modules of tfhub.dev that are seen on Kaggle (docs/catalogue.md)."""

EMBEDDED_NAME = "BiT-digits"
EMBEDDED_FILE = Path(__file__).parent / "digits" / "BiT-digits.npz"
EMBEDDED_NETWORK = Architecture.regular((1, 1, 1, 1), root_width=32, classes=10)

RESAMPLE = {"bilinear": 2, "bicubic": 3}
"""The numbers of PIL.Image.Resampling."""
SMALLEST, LARGEST = 9, 4096
"""Sides of an image, in pixels: of a smaller one, little is left to judge; a larger one takes gigabytes."""

MULTI_LABEL_SETS = {"imagenet21k"}
"""Label sets whose heads were trained with a sigmoid (tensorflow/tfhub.dev@81fdea8, ``imagenet21k_classification``)."""


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input, in the terms of transformers' preprocessor_config.json.

    ``size`` is ``{"height", "width"}``, to stretch to, or ``{"shortest_edge"}``; ``crop`` the (height, width) of the
    centre crop; ``resample`` PIL's number; values 0 … 1 become (value − mean) / std, which is Google's
    (x − 127.5) / 127.5.
    """

    size: Mapping[str, int]
    crop: tuple[int, int] | None = None
    resample: int = RESAMPLE["bilinear"]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def shape(self) -> tuple[int, int]:
        """The (height, width) of what the network is given; of a square image, where that depends on the image."""
        side = self.size.get("shortest_edge", 0)
        return self.crop or (self.size.get("height", side), self.size.get("width", side))

    @property
    def in_words(self) -> str:
        """RGB, stretched to 480 × 480 (bilinear), scaled to -1 … 1"""
        edge = self.size.get("shortest_edge")
        resize = f"short side {edge}" if edge else f"stretched to {self.size['height']} × {self.size['width']}"
        crop = f", centre crop {self.crop[0]} × {self.crop[1]}" if self.crop else ""
        filters = {number: name for name, number in RESAMPLE.items()}
        return f"RGB, {resize} ({filters.get(self.resample, f'filter {self.resample}')}){crop}, scaled to {self._ends}"

    @property
    def _ends(self) -> str:
        """The values that black and white become."""
        pairs = list(zip(self.mean, self.std, strict=True))
        ends = [{f"{(colour - mean) / std if std else math.inf:.4g}" for mean, std in pairs} for colour in (0, 1)]
        return " … ".join(", ".join(sorted(values)) for values in ends)


@dataclass(frozen=True)
class Variant:
    """A released checkpoint.

    ``name`` is what ``--variant`` takes: the path in Google's bucket without ``.npz`` for npz files; ``h5/…`` and
    ``tfhub/…`` for the other formats. ``url`` is where it was published: a file, a folder (ends in ``/``) or a TF-Hub
    handle; None for the checkpoint in this package, whose ``file`` is set instead. ``bytes`` is its size where a source
    gives it. ``classes`` is None without a head, ``labels`` a set of ``catalogue.labels`` or None. ``datasets`` and
    ``base_model`` are ids of the Hugging Face Hub. ``top1`` is in percent, as ``top1_source`` says. ``source`` says
    where all of this stands, ``note`` what is uncertain. ``defect`` is what the file is instead of the model, and
    ``instead`` the name of the right one.
    """

    name: str
    format: Format
    url: str | None
    file: Path | None
    bytes: int | None
    architecture: str
    classes: int | None
    labels: str | None
    preprocessing: Preprocessing
    datasets: tuple[str, ...]
    base_model: str | None
    top1: float | None
    top1_source: str | None
    source: str
    note: str | None
    defect: str | None
    instead: str | None

    @property
    def embedded(self) -> bool:
        return self.file is not None

    @property
    def network(self) -> Architecture:
        return EMBEDDED_NETWORK if self.embedded else Architecture.released(self.architecture, self.classes)

    @property
    def problem_type(self) -> str | None:
        """transformers' word for the loss the head was trained with."""
        if self.classes is None:
            return None
        kind = "multi" if self.labels in MULTI_LABEL_SETS else "single"
        return f"{kind}_label_classification"

    @property
    def published_as(self) -> str:
        """The path in Google's bucket, or the handle on TF-Hub: ``vtab/….npz``, ``google/bit/m-r50x1/1``."""
        return (self.url or f"{BUCKET}{self.name}.npz").removeprefix(BUCKET).removeprefix(TFHUB).rstrip("/")

    @property
    def repository_name(self) -> str:
        """The name as one word, for a repository or folder."""
        return self.name.replace("/", "-")

    def refuse_defect(self) -> None:
        """Raises UsageError, with the reason and the right file, where the released file is broken."""
        if self.defect:
            raise UsageError(f"{self.name}: Google's {self.published_as} is {self.defect}.\nTake {self.instead}.")

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON types; the embedded file as its path in the package."""
        file = self.file and str(self.file.relative_to(FOLDER))
        return {**asdict(self), "file": file, "problem_type": self.problem_type}


@cache
def variants() -> tuple[Variant, ...]:
    """Every released checkpoint, in the order of the data file: the embedded one first."""
    return tuple(map(_variant, entries()))


def find(pattern: str) -> tuple[Variant, ...]:
    """The variants of a name, a glob of names, or a published file's path, handle or URL; at least one.

    Defective ones are among them; see ``Variant.refuse_defect``. Raises UsageError, with the nearest names, where
    nothing matches.
    """
    everything = variants()
    for matches in (
        [v for v in everything if v.name == pattern],
        [v for v in everything if pattern in (v.url, v.published_as)],
        [v for v in everything if fnmatchcase(v.name, pattern)],
    ):
        if matches:
            return tuple(matches)
    from difflib import get_close_matches

    by_lower = {v.name.lower(): v.name for v in everything}
    near = [by_lower[name] for name in get_close_matches(pattern.lower(), by_lower, cutoff=0.5)]
    nearest = f"; nearest: {', '.join(near)}" if near else ""
    if _REPOSITORY.fullmatch(pattern) and not any(
        name.startswith(pattern.partition("/")[0] + "/") for name in by_lower
    ):
        nearest = f"; as a repository of the Hub it is hf://{pattern}"
    raise UsageError(f"no released checkpoint is called {pattern}{nearest}.\n`bit-convert --list` shows all names.")


def is_glob(pattern: str) -> bool:
    """Whether it is a pattern of names, and no name."""
    return named(pattern) is None and any(sign in pattern for sign in "*?[")


def named(word: str) -> Variant | None:
    """The variant that is called exactly so; such a name wins over a path, which is written ``./NAME``."""
    return next((variant for variant in variants() if variant.name == word), None)


def find_one(pattern: str) -> Variant:
    """As ``find``, where one variant is meant. Raises UsageError where the pattern names several."""
    found = find(pattern)
    if len(found) > 1:
        raise UsageError(f"{pattern} names {len(found)} variants, but one is meant. Name one: {found[0].name}, …")
    return found[0]


def _variant(cells: Mapping[str, str]) -> Variant:
    from verify.typed import converted

    height, _, width = cells["size"].partition("x")
    fields: dict[str, Any] = {column: text or None for column, text in cells.items()}
    fields["file"] = EMBEDDED_FILE if cells["name"] == EMBEDDED_NAME else None
    fields["datasets"] = cells["datasets"].split()
    fields["preprocessing"] = {
        "size": {"height": height, "width": width} if width else {"shortest_edge": height},
        "crop": [cells["crop"]] * 2 if cells["crop"] else None,
        "resample": RESAMPLE[cells["resample"]],
    }
    return converted(fields, Variant, strict=False)


def kaggle_handle(url: str) -> str | None:
    """Returns the handle of a module of tfhub.dev on Kaggle; None for other addresses.

    ``google/bit/m-r50x1/ilsvrc2012_classification/1`` is ``google/bit/tensorFlow2/m-r50x1-ilsvrc2012-classification/1``
    there; whether the experts moved is not known.
    """
    if not url.startswith(TFHUB + KAGGLE_MODULES):
        return None
    *variation, last = url.partition("?")[0].removeprefix(TFHUB + KAGGLE_MODULES).strip("/").split("/")
    version = [last] if variation and last.isdecimal() else []
    name = "-".join([*variation, *([] if version else [last])]).replace("_", "-")
    return "/".join([f"{KAGGLE_MODULES}tensorFlow2", name, *version])
