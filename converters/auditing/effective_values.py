"""Values that the library which loads a folder gets from its files: labels, and the pixels of prepared images.

    folder, Plan → the library's own config and processor → Expectation …

Only what a user of the library sees is compared here; fields, and files that shadow others, are judged elsewhere. What
a plain load computes in, its reader says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from converters.auditing.evaluation.recipes import declared_preprocessing, timm_data, timm_pixels, transformers_pixels
from converters.catalogue.variants import Preprocessing
from converters.files import CONFIG, PREPROCESSOR, PROCESSOR, read_json
from converters.folder.plan import Plan
from verify.pixels import kinds, library_difference
from verify.protocols import Expectation
from verify.readers import ALONE, TimmReader, TransformersReader, quiet

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]

MAX_ERROR = 120


def effective(folder: Path, plan: Plan) -> list[Expectation]:
    """Asks the library of the folder's layout; returns nothing where it is not installed, or there is none."""
    libraries = {"transformers": (TransformersReader, _transformers), "timm": (TimmReader, _timm)}
    reader, compare = libraries.get(plan.layout, (None, None))
    if reader is None or compare is None or not reader.available():
        return []
    with ALONE:
        return list(compare(folder, plan))


def _transformers(folder: Path, plan: Plan) -> Iterator[Expectation]:
    from transformers import AutoConfig

    options = {"local_files_only": True, "trust_remote_code": False}

    def labels() -> str:
        found = dict(AutoConfig.from_pretrained(folder, **options).id2label)
        wanted = read_json(folder / CONFIG).get("id2label") or {}
        wrong = [index for index, name in wanted.items() if found.get(int(index)) != name]
        if wrong:
            return f"{wrong[0]} is {found.get(int(wrong[0]))!r}"
        return "config.json's" if len(found) == plan.architecture.classes else f"{len(found)} labels"

    recipe = plan.preprocessing if plan.variant else declared_preprocessing(folder)

    def pixels() -> str:
        assert recipe is not None
        return _pixels(transformers_pixels(folder), recipe)

    with quiet():
        if plan.architecture.classes is not None:
            yield _expected("transformers: labels", "config.json's", labels)
        if recipe and any((folder / name).is_file() for name in (PREPROCESSOR, PROCESSOR)):
            yield _expected("transformers: pixels of the folder's processor", "Google's", pixels)


def _timm(folder: Path, plan: Plan) -> Iterator[Expectation]:
    """timm prepares images with what its config resolves to; without a variant the size is free, the range is not."""

    @cache
    def resolved() -> dict[str, Any]:
        return timm_data(folder)

    def shown() -> str:
        data = resolved()
        return f"{data['input_size'][0]} channels, mean {_plain(data['mean'])}, std {_plain(data['std'])}"

    def pixels() -> str:
        return _pixels(timm_pixels(folder, resolved()), plan.preprocessing)

    mean, std = _plain(plan.preprocessing.mean), _plain(plan.preprocessing.std)
    yield _expected("timm: what images become", f"3 channels, mean {mean}, std {std}", shown)
    if plan.variant is not None:
        yield _expected("timm: pixels of its transform", "Google's", pixels)


def _expected(place: str, wanted: str, found: Callable[[], str]) -> Expectation:
    """Returns a library's result, or the error that a user would get."""
    try:
        return Expectation(place, wanted, found())
    except Exception as error:
        return Expectation(place, wanted, f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_ERROR]}")


def _pixels(prepare: Callable[[Image], Array], recipe: Preprocessing) -> str:
    for kind, image in kinds():
        found = library_difference(np.asarray(prepare(image)), image, recipe.size, recipe.crop, recipe.resample)
        if found:
            return f"{kind}: {found}"
    return "Google's"


def _plain(values: Any) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
