"""config.json as timm reads it: what a source demands of it, what redirects the loader, what changes nothing.

config.json, Plan → ``inspect_timm()`` → Notes

File and function names are those of timm 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.auditing.inspection.fates import Fields, is_int, is_number, short, shown
from converters.auditing.inspection.label_fields import fits, in_order, inspect_names
from converters.auditing.inspection.model_fields import (
    MODEL_FIELDS,
    follow_nothing,
    inspect_declarations,
    inspect_dtype,
    inspect_problem,
)
from converters.auditing.inspection.tables import table, without_effect
from converters.catalogue.labels import Label, labels
from converters.catalogue.variants import LARGEST, SMALLEST
from converters.errors import UsageError
from converters.folder.config import timm_architecture, timm_config
from converters.folder.plan import Plan
from converters.mapping.architecture import Architecture
from converters.mapping.storage import Storage

RECIPE: Mapping[str, Any] = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""The fields of image preparation, and the values of missing ones: models/_pretrained.py PretrainedCfg."""
UNDECLARED_CLASSES = 1000
ANOTHER = "is another network than the weights are of"
FILTERS = ("bilinear", "bicubic", "nearest", "box", "hamming", "lanczos", "random")
CROPS = ("center", "squash", "border")

SIX = ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
RENAMED = {
    **{f"resnetv2_{size}_bitm{tag}": f"resnetv2_{size}_bit" for size in SIX for tag in ("", "_in21k")},
    "resnetv2_50x1_bit_distilled": "resnetv2_50x1_bit",
    "resnetv2_152x2_bit_teacher": "resnetv2_152x2_bit",
    "resnetv2_152x2_bit_teacher_384": "resnetv2_152x2_bit",
}
"""Older names of an architecture: models/resnetv2.py register_model_deprecations."""

ARGUMENTS: Mapping[str, Any] = {
    "in_chans": 3,
    "global_pool": "avg",
    "output_stride": 32,
    "avg_down": False,
    "act_layer": "relu",
    "channels": [256, 512, 1024, 2048],
    "stem_chs": 64,
    "preact": True,
    "basic": False,
    "bottle_ratio": 0.25,
    "features_only": False,
    "pruned": False,
}
"""Fields of model_args that the network is built with, and their only values for a BiT: models/resnetv2.py ResNetV2."""
_TABLE = table("timm_fields")
ARGUMENT_FIELDS, RECIPE_FIELDS = without_effect(_TABLE["arguments"]), without_effect(_TABLE["recipe"])
TIMM_FIELDS = {"transformers_version": MODEL_FIELDS["transformers_version"], **without_effect(_TABLE["no_effect"])}

PARTS = {"first_conv": "stem.conv", "classifier": "head.fc"}
"""Layers that timm models/_builder.py load_pretrained adapts or leaves out for other channels, other classes or
features alone: of another layer, the weights would be lost."""
PROCESSORS = (None, "TimmWrapperImageProcessor")


def inspect_timm(fields: Fields, plan: Plan) -> None:
    """Notes every field of a config.json in timm's layout."""
    follow_nothing(fields)
    inspect_architecture(fields, plan.architecture)
    if "pretrained_cfg" not in fields:
        _inspect_flat(fields, plan)
        return
    inner = fields.inner("pretrained_cfg")
    holder = fields if "num_classes" in fields else inner
    _inspect_classes(holder, plan)
    if holder is fields and "num_classes" in inner:
        inner.take("num_classes")
        inner.harmless("num_classes", "timm models/_hub.py _parse_model_cfg replaces it")
    _inspect_names(fields, inner, plan)
    _inspect_arguments(fields, plan)
    _inspect_recipe(inner, plan)
    inspect_dtype(fields, plan.storage.dtype)
    inspect_declarations(fields, plan)
    inspect_problem(fields, plan)
    fields.one_of("model_type", ["timm_wrapper"])
    fields.one_of("image_processor_type", PROCESSORS)
    fields.rest(TIMM_FIELDS)


def inspect_architecture(fields: Fields, architecture: Architecture) -> None:
    """The name of the network, with any tag and in any of timm's spellings."""
    wanted = registered_name(architecture)
    found = fields.take("architecture")
    if isinstance(found, str):
        base = found.partition(".")[0]
        text = short(RENAMED.get(base, base))
    else:
        text = shown(found)
    fields.must("architecture", wanted, text, misleads=ANOTHER)


def registered_name(architecture: Architecture) -> str:
    """timm's name of a network, or that it has none."""
    try:
        return timm_architecture(Plan("", architecture, None, Storage("timm")))
    except UsageError:
        return "one of timm's, which the weights are not of"


def _inspect_flat(fields: Fields, plan: Plan) -> None:
    """Without pretrained_cfg, timm reads the whole file as one, which refuses what it does not know."""
    _inspect_classes(fields, plan)
    if "labels" in fields and "label_names" not in fields:
        _compare_names(fields, "labels", fields.take("labels"), plan)
    _inspect_names(fields, fields, plan)
    fields.take("num_features")
    _inspect_recipe(fields, plan)


def _inspect_classes(fields: Fields, plan: Plan) -> None:
    fields.equal("num_classes", plan.architecture.classes or 0, UNDECLARED_CLASSES, misleads=ANOTHER)


def _inspect_names(outer: Fields, inner: Fields, plan: Plan) -> None:
    """label_names and label_descriptions: timm prefers those beside pretrained_cfg to those in it."""
    holder = outer if "label_names" in outer else inner
    names = holder.take("label_names", None)
    if names is not None:
        _compare_names(holder, "label_names", names, plan)
    if "id2label" in outer:  # transformers models/timm_wrapper from_dict, where there are no label_names
        _compare_names(outer, "id2label", outer.take("id2label"), plan)
    holder = outer if "label_descriptions" in outer else inner
    told = holder.take("label_descriptions", None)
    if told is None:
        return
    listed, variant = in_order(names), plan.variant
    if listed is None or variant is None or variant.labels is None or not isinstance(told, dict):
        holder.harmless("label_descriptions", RECIPE_FIELDS["label_descriptions"].reason)
        return
    classes = zip(listed, labels(variant.labels), strict=False)
    wrong = next((name for name, label in classes if name in told and not _describes(told[name], label, name)), None)
    right = "those of the classes"
    holder.must("label_descriptions", right, right if wrong is None else shown({wrong: told[wrong]}))


def _describes(text: Any, label: Label, name: str) -> bool:
    """timm's detailed descriptions are lemmas, a colon and the definition."""
    return isinstance(text, str) and (fits(text, label, name) or fits(text.partition(": ")[0], label, name))


def _compare_names(fields: Fields, key: str, names: Any, plan: Plan) -> None:
    listed = in_order(names)
    count = plan.architecture.classes or 0
    numbered = listed is not None and (len(listed) == count or not count)
    fields.notes.fulfil(f"{fields.place(key)} for each class", f"{count} texts", names, numbered)
    if listed is not None and count and plan.variant is not None and plan.variant.labels is not None:
        inspect_names(fields, key, listed, plan.variant.labels)


def _inspect_arguments(fields: Fields, plan: Plan) -> None:
    """model_args: what the network is built with instead of its defaults."""
    if "model_args" not in fields:
        return
    inner = fields.inner("model_args")
    before = len(fields.notes.expectations)
    for name, value in {**ARGUMENTS, "num_classes": plan.architecture.classes or 0}.items():
        inner.one_of(name, [value])
    inner.rest_refused(ARGUMENT_FIELDS, "timm's ResNetV2 takes no other")
    if not all(each.met for each in fields.notes.expectations[before:]):
        fields.notes.mislead(f"{fields.place('model_args')} {ANOTHER}")


def _inspect_recipe(fields: Fields, plan: Plan) -> None:
    """pretrained_cfg: how images are prepared, and how weights are taken."""
    fields.none_of({"hf_hub_filename": (None, "")}, "names another file of weights")
    fields.one_of("label_offset", [0, None])
    fields.one_of("fixed_input_size", [False, None])
    for name, layer in PARTS.items():
        fields.one_of(name, [layer, [layer], None])
    values = {name: _rounded(fields.take(name, default)) for name, default in RECIPE.items()}
    for name, default in RECIPE.items():
        if not values[name] and (name != "input_size" or values[name] is None):
            values[name] = _rounded(list(default) if isinstance(default, list) else default)
    wanted = _wanted_recipe(plan)
    for name in RECIPE:
        if name in wanted:
            fields.must(name, shown(wanted[name]), shown(values[name]))
    if plan.variant is None:
        _inspect_plausible(fields, values)
    size, share = fields.take("test_input_size", None), fields.take("test_crop_pct", None)
    for name, found, same in (("test_input_size", size, "input_size"), ("test_crop_pct", share, "crop_pct")):
        if found is not None:
            takes = shown(_rounded(found)) == shown(wanted[same]) if plan.variant else _plausible(same, _rounded(found))
            fields.fulfil(name, f"as {same}", found, takes)
    fields.rest_refused(RECIPE_FIELDS, "timm's PretrainedCfg has no such field")


def _wanted_recipe(plan: Plan) -> dict[str, Any]:
    """Mean and standard deviation of every BiT; size and crop of a variant."""
    architecture = Architecture.released("R50x1", plan.architecture.classes)  # the recipe is the same for every network
    recipe = timm_config(replace(plan, architecture=architecture))["pretrained_cfg"]
    return {name: _rounded(recipe[name]) for name in (RECIPE if plan.variant else ("mean", "std"))}


def _inspect_plausible(fields: Fields, values: Mapping[str, Any]) -> None:
    """Compares a recipe where the variant is not known: it must be possible with images of three channels."""
    for name in ("input_size", "interpolation", "crop_pct", "crop_mode"):
        expected = (
            f"3 channels and sides of {SMALLEST} to {LARGEST} pixels" if name == "input_size" else "one of timm's"
        )
        fields.fulfil(name, expected, values[name], _plausible(name, values[name]))


def _plausible(name: str, value: Any) -> bool:
    if name == "input_size":
        sides = value[1:] if isinstance(value, list) and len(value) == 3 and value[0] == 3 else []
        return len(sides) == 2 and all(is_int(side) and SMALLEST <= side <= LARGEST for side in sides)
    if name == "crop_pct":
        return is_number(value) and 0.05 < value <= 1.5
    return value in (FILTERS if name == "interpolation" else CROPS) if isinstance(value, str) else False


def _rounded(value: Any) -> Any:
    """Numbers to the digits that float32 keeps, in lists too."""
    if isinstance(value, list):
        return [_rounded(each) for each in value[:8]]
    return float(f"{value:.7g}") if isinstance(value, float) else value
