"""preprocessor_config.json, and processor_config.json that may shadow it: what a source demands of an image processor.

JSON, Plan → ``inspect_processors()`` → Notes

File and function names are those of transformers 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.auditing.inspection.fates import ABSENT, BOOLEAN, Fields, Notes, is_int, is_number, shown
from converters.auditing.inspection.tables import idle_values, table, without_effect
from converters.catalogue.variants import LARGEST, RESAMPLE, SMALLEST, Preprocessing
from converters.files import PREPROCESSOR, PROCESSOR, read_json
from converters.folder.config import preprocessor_config
from converters.folder.plan import Plan

NESTED = "image_processor"
"""The field of processor_config.json that is read instead of preprocessor_config.json."""
TRIED = 1024
"""The largest side that pixels are computed of."""

DEFAULTS: Mapping[str, Any] = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""The values of missing fields: models/bit/image_processing_bit.py."""
ALWAYS = ("do_convert_rgb", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""Fields that are the same for every BiT; the others are of a variant."""

RANGE = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
"""Fields that say together what a value of a pixel becomes."""

_TABLE = table("processor_fields")
IDLE = idle_values(_TABLE["idle"])
ATTRIBUTES = frozenset(_TABLE["attributes"].split())
PROCESSOR_FIELDS = without_effect(_TABLE["no_effect"])

SIZE_KEYS = ({"height", "width"}, {"shortest_edge"})


def inspect_processors(notes: Notes, folder: Path, plan: Plan) -> None:
    """Notes every field of the files that an image processor is read from. Raises CheckpointError for broken JSON."""
    if (folder / PROCESSOR).is_file():
        outer = Fields(notes, PROCESSOR, read_json(folder / PROCESSOR))
        nested = outer.take(NESTED)
        outer.none_of({"auto_map": ({},)}, "brings code")
        outer.one_of("processor_class", [None])
        if isinstance(nested, dict):
            inspect_processor(Fields(notes, PROCESSOR, nested, f"{NESTED}."), plan)
        elif nested is not ABSENT:
            notes.must(outer.place(NESTED), "an image processor", shown(nested))
        outer.rest({})
    if (folder / PREPROCESSOR).is_file():
        inspect_processor(Fields(notes, PREPROCESSOR, read_json(folder / PREPROCESSOR)), plan)


def inspect_processor(fields: Fields, plan: Plan) -> None:
    """Notes every field of one image processor."""
    fields.none_of({"auto_map": ({},)}, "brings code")
    for name, idle in IDLE.items():
        fields.one_of(name, idle)
    wanted = {name: canonical(name, value) for name, value in preprocessor_config(plan.preprocessing).items()}
    read = {name: canonical(name, fields.content.get(name, default)) for name, default in DEFAULTS.items()}
    values = _in_words_of(wanted, read)
    for name in ALWAYS:
        _equal(fields, name, wanted[name], values[name])
    sized = [_is_size(values[name]) for name in ("size", "crop_size")]
    _inspect_recipe(fields, plan, wanted, values)
    fields.rest(PROCESSOR_FIELDS, ATTRIBUTES, "transformers' BitImageProcessor")
    if plan.variant is not None and all(sized) and _is_usable(values):
        fields.notes.must(f"{fields.file} pixels", "Google's", _pixels(values, plan.preprocessing))


def _in_words_of(wanted: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an image processor; where other ones do the same to every pixel, those that are ``wanted``."""
    found = dict(values)
    if found["do_center_crop"] is False and found["crop_size"] is None:
        found["crop_size"] = dict(DEFAULTS["crop_size"])
    resized = found["do_resize"] is True and found["size"] == found["crop_size"]
    if found["do_center_crop"] is True and resized and wanted["do_center_crop"] is False:
        found["do_center_crop"] = False  # the whole of an image
    if _slopes(found) == _slopes(wanted) is not None:
        found |= {name: wanted[name] for name in RANGE}
    return found


def _slopes(values: Mapping[str, Any]) -> list[float] | None:
    """Returns the factor and the offset of a pixel for each channel; None where the fields are odd."""
    factor, means, stds = (values[name] for name in ("rescale_factor", "image_mean", "image_std"))
    numbers = [factor, *means, *stds]
    plain = isinstance(values["do_rescale"], bool) and isinstance(values["do_normalize"], bool)
    if not plain or not len(means) == len(stds) == 3 or not all(map(is_number, numbers)) or not all(stds):
        return None
    factor = factor if values["do_rescale"] else 1.0
    pairs = zip(means, stds, strict=True) if values["do_normalize"] else [(0.0, 1.0)] * 3
    return [float(f"{each:.6g}") for mean, std in pairs for each in (factor / std, -mean / std)]


def _equal(fields: Fields, name: str, wanted: Any, found: Any) -> None:
    fields.take(name)
    fields.must(name, shown(wanted), shown(found))


def _inspect_recipe(fields: Fields, plan: Plan, wanted: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Resize and crop: those of the variant, or where it is not known, something that can be done."""
    known = plan.variant is not None
    crops = values["do_center_crop"] is not False
    for name in ("do_resize", "size", "resample", "do_center_crop"):
        if known:
            _equal(fields, name, wanted[name], values[name])
    cropped = crops and (not known or plan.preprocessing.crop is not None)
    if known and cropped:
        _equal(fields, "crop_size", wanted["crop_size"], values["crop_size"])
    for name, used in (("size", values["do_resize"] is not False), ("crop_size", cropped)):
        if name not in fields:
            continue
        fields.take(name)
        fits = used and _is_size(values[name], SMALLEST)
        if not used and _is_size(values[name]):
            fields.harmless(name, "transformers image_processing_backends.py: the step is left out")
        elif not (known and fits):
            fields.fulfil(name, f"sides of {SMALLEST} to {LARGEST} pixels", values[name], fits)
    if not known:
        for name in ("do_resize", "do_center_crop"):
            if name in fields:
                fields.fulfil(name, BOOLEAN.name, fields.take(name), BOOLEAN.takes(values[name]))
        fields.one_of("resample", [2, 0, 1, 3, 4, 5, *RESAMPLE])


def canonical(name: str, value: Any) -> Any:
    """A value as the library reads it: sizes as dictionaries, means of all channels; anything odd as it is."""
    if name in ("size", "crop_size"):
        if is_int(value):
            return {"shortest_edge": value} if name == "size" else {"height": value, "width": value}
        if isinstance(value, list) and len(value) == 2:
            return {"height": value[0], "width": value[1]}
    if name == "resample" and isinstance(value, str):
        return RESAMPLE.get(value, value)  # version 5 takes the names, too
    if name in ("image_mean", "image_std"):
        listed = list(value) if isinstance(value, list | tuple) else [value] * 3
        return [float(f"{each:.7g}") if is_number(each) else each for each in listed]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _is_size(value: Any, smallest: int = 1) -> bool:
    if not isinstance(value, dict) or value.keys() not in SIZE_KEYS:
        return False
    return all(is_int(side) and smallest <= side <= LARGEST for side in value.values())


def _is_usable(values: Mapping[str, Any]) -> bool:
    """Whether pixels can be computed in little time."""
    plain = all(isinstance(values[name], bool) for name in DEFAULTS if name.startswith("do_"))
    filters = is_int(values["resample"]) and 0 <= values["resample"] <= 5
    sides = [*values["size"].values(), *values["crop_size"].values()]
    return plain and _slopes(values) is not None and filters and max(sides) <= TRIED


def _pixels(values: Mapping[str, Any], recipe: Preprocessing) -> str:
    """Compares the processor's pixels of two images with Google's preprocessing, written independently."""
    from PIL import Image

    from bit_ref import BitImageProcessor
    from verify.pixels import difference, google_pixels, patterns

    processor: Any = BitImageProcessor(**values)
    found = "Google's"
    for image in patterns():
        wanted = google_pixels(image, recipe.size, recipe.crop, recipe.resample)
        try:
            with np.errstate(all="ignore"):  # of numbers that overflow, the pixels say enough
                pixels = processor.preprocess(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        except (ValueError, TypeError) as error:
            return shown(str(error))
        found = difference(pixels, wanted) or found
    return found
