"""What the files of a folder must say, field by field, of a given source.

folder, Plan → ``expectations()`` → what each field must be and what it is

A field is compared as a library reads it, defaults filled in, so that a file which leaves a default out says the same.
Labels, problem type and preprocessing are compared where the catalogue knows the variant; a file that is not there is
not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.catalogue import Preprocessing
from converters.configs import model_config, preprocessor_config, timm_config
from converters.errors import UsageError
from converters.files import CONFIG, PARITY, PREPROCESSOR, model_files, read_json, sha256
from converters.plan import Plan
from verify.protocols import Expectation

ARCHITECTURE = (
    "num_channels",
    "embedding_size",
    "depths",
    "layer_type",
    "hidden_act",
    "num_groups",
    "global_padding",
    "embedding_dynamic_padding",
    "output_stride",
    "pool_padding",
)
"""Fields of config.json that follow from the source and the options."""

ALWAYS = ("do_convert_rgb", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
RECIPE = ("do_resize", "size", "resample", "do_center_crop")
"""Fields of preprocessor_config.json: the same for every BiT, and those of a variant."""
UNDECLARED_PROBLEM = "single_label_classification"
"""What libraries take a config without a problem type for, where labels are numbers of classes."""
MAX_TEXT = 80


def expectations(folder: Path, plan: Plan) -> list[Expectation]:
    """Every field that was compared. Raises CheckpointError where a file is not JSON."""
    compare = {"transformers": _config, "timm": _timm}.get(plan.layout, _plain)
    found = [*compare(read_json(folder / CONFIG), plan)]
    if (folder / PREPROCESSOR).is_file():
        found += _preprocessor(folder, plan)
    if (folder / PARITY).is_file():
        found += _report(folder)
    return found


def _field(file: str, name: str, expected: Any, found: Any) -> Expectation:
    return Expectation(f"{file} {name}", _text(expected), _text(found))


def _text(value: Any) -> str:
    """Canonical and short: what is long is known by its digest."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}… sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _config(config: Mapping[str, Any], plan: Plan) -> Iterator[Expectation]:
    from bit_ref import BitConfig

    wanted = BitConfig.from_dict(model_config(plan))
    try:
        actual = BitConfig.from_dict(config)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        yield _field(CONFIG, "values", "a BiT's", str(error))
        return
    for name in ARCHITECTURE:
        yield _field(CONFIG, name, getattr(wanted, name), getattr(actual, name))
    yield _field(CONFIG, "hidden_sizes × width_factor", wanted.hidden_sizes, _widths(actual))
    if "weight_standardization_eps" in config:
        name = "weight_standardization_eps"
        yield _field(CONFIG, name, getattr(wanted, name), getattr(actual, name))
    if plan.architecture.classes is not None:
        yield from _labels(config, actual, wanted, plan)


def _plain(config: Mapping[str, Any], plan: Plan) -> Iterator[Expectation]:
    """A config.json that no library reads: what it says must be right, and it need not say anything."""
    wanted = json.loads(json.dumps(model_config(plan)))
    for name in sorted(wanted.keys() & config.keys() - {"label2id", "id2label", "problem_type", "dtype"}):
        yield _field(CONFIG, name, wanted[name], config[name])
    if plan.labels is not None and "id2label" in config:
        yield _field(CONFIG, "id2label", wanted["id2label"], config["id2label"])


def _timm(config: Mapping[str, Any], plan: Plan) -> Iterator[Expectation]:
    try:
        wanted = json.loads(json.dumps(timm_config(plan)))
    except UsageError as error:
        yield _field(CONFIG, "architecture", "one of timm's", str(error))
        return
    names = ["architecture", "num_classes", "weight_standardization_eps", "pool_padding"]
    names += ["label_names"] if plan.labels else []
    for name in [name for name in names if name in config or name in ("architecture", "num_classes")]:
        yield _field(CONFIG, name, wanted[name], config.get(name))
    recipe, found = wanted["pretrained_cfg"], config.get("pretrained_cfg") or {}
    fields = ["mean", "std"] + (["input_size", "interpolation", "crop_pct", "crop_mode"] if plan.variant else [])
    for name in [name for name in fields if name in found]:
        yield _field(CONFIG, f"pretrained_cfg.{name}", _plain_value(recipe[name]), _plain_value(found[name]))


def _widths(config: Any) -> list[Any]:
    return [size * config.width_factor for size in config.hidden_sizes]


def _labels(config: Mapping[str, Any], actual: Any, wanted: Any, plan: Plan) -> Iterator[Expectation]:
    yield _field(CONFIG, "number of labels", wanted.num_labels, actual.num_labels)
    yield _field(CONFIG, "id2label's classes", "0 … n-1", _numbering(actual.id2label))
    if config.get("label2id") is not None:
        inverse = {label: index for index, label in actual.id2label.items()}
        back = {label: int(index) for label, index in config["label2id"].items()}
        yield _field(CONFIG, "label2id", inverse, back)
    if plan.labels is not None:
        yield _field(CONFIG, "id2label", plan.labels, [actual.id2label.get(i) for i in range(len(plan.labels))])
    if plan.variant is not None:
        yield _field(CONFIG, "problem_type", wanted.problem_type, actual.problem_type or UNDECLARED_PROBLEM)


def _numbering(id2label: Mapping[int, str]) -> str:
    return "0 … n-1" if sorted(id2label) == list(range(len(id2label))) else "others"


def _preprocessor(folder: Path, plan: Plan) -> Iterator[Expectation]:
    from bit_ref import BitImageProcessor

    try:
        actual = BitImageProcessor.from_pretrained(folder)
    except (ValueError, TypeError, OSError) as error:
        yield _field(PREPROCESSOR, "values", "an image processor's", str(error))
        return
    recipe = plan.preprocessing
    wanted = BitImageProcessor(**preprocessor_config(recipe))
    names: Sequence[str] = ALWAYS
    if plan.variant is not None:
        names = (*ALWAYS, *RECIPE, *(["crop_size"] if recipe.crop else []))
    for name in names:
        yield _field(PREPROCESSOR, name, _plain_value(getattr(wanted, name)), _plain_value(getattr(actual, name)))
    if plan.variant is not None:
        yield _pixels(actual, recipe)


def _plain_value(value: Any) -> Any:
    """Tuples, enumerations and floats as JSON has them; a factor to the digits that float32 keeps."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, Mapping):
        return {str(key): int(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _pixels(processor: Any, recipe: Preprocessing) -> Expectation:
    """What the processor makes of two images, against Google's preprocessing, written independently."""
    from PIL import Image

    from verify.pixels import difference, google_pixels, patterns

    found = "Google's"
    for image in patterns():
        wanted = google_pixels(image, recipe.size, recipe.crop, recipe.resample)
        try:
            values = processor.preprocess(Image.fromarray(image), return_tensors="np")["pixel_values"][0]
        except (ValueError, TypeError) as error:
            return _field(PREPROCESSOR, "pixels", "Google's", str(error))
        found = difference(values, wanted) or found
    return _field(PREPROCESSOR, "pixels", "Google's", found)


def _report(folder: Path) -> Iterator[Expectation]:
    """Whether the report in the folder is of the files in the folder."""
    recorded = read_json(folder / PARITY).get("files")
    if isinstance(recorded, dict):
        for name in model_files(folder):
            yield _field(PARITY, f"sha256 of {name}", sha256(folder / name), recorded.get(name))
