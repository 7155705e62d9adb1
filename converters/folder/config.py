"""The JSON files of a folder, for each layout.

Plan → config.json of transformers, of timm, or plain; preprocessor_config.json
"""

from __future__ import annotations

from typing import Any

from converters.catalogue.variants import RESAMPLE, Preprocessing
from converters.errors import UsageError
from converters.files import CONFIG, PREPROCESSOR
from converters.folder.plan import Plan
from converters.mapping.architecture import GROUPS, RELEASED_UNITS
from converters.mapping.layouts import STANDARDIZATION_EPSILON


def json_files(plan: Plan) -> dict[str, dict[str, Any]]:
    """File name → content. Raises UsageError where the layout cannot describe the network."""
    describe = {"transformers": model_config, "timm": timm_config}.get(plan.layout, plain_config)
    return {CONFIG: describe(plan), PREPROCESSOR: preprocessor_config(plan.preprocessing)}


def declarations(plan: Plan) -> dict[str, Any]:
    """Returns the fields of the stored values, which every config.json has in any layout."""
    return {
        "weight_standardization_eps": STANDARDIZATION_EPSILON[plan.storage.exact],
        "exact": plan.storage.exact,
        "pool_padding": plan.pool_padding,
    }


def model_config(plan: Plan) -> dict[str, Any]:
    """config.json in transformers' terms, and what bit_ref reads beyond them."""
    config, classes = network_config(plan), plan.architecture.classes
    if classes is not None:
        names = plan.labels or [f"LABEL_{index}" for index in range(classes)]
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
        if plan.variant and plan.variant.problem_type:
            config["problem_type"] = plan.variant.problem_type
    return config


def network_config(plan: Plan) -> dict[str, Any]:
    """The fields of config.json that say nothing of the classes.

    transformers multiplies only some of the widths by ``width_factor``, so they are given multiplied, with factor 1.
    """
    architecture = plan.architecture
    return {
        "model_type": "bit",
        "architectures": ["BitModel" if architecture.classes is None else "BitForImageClassification"],
        "dtype": plan.storage.dtype,
        "num_channels": 3,
        "embedding_size": architecture.root_width,
        "hidden_sizes": [4 * width for width in architecture.widths],
        "depths": list(architecture.units),
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "num_groups": GROUPS,
        "width_factor": 1,
        "output_stride": 32,
        "global_padding": None,
        "embedding_dynamic_padding": False,
        "drop_path_rate": 0.0,
        **declarations(plan),
    }


def plain_config(plan: Plan) -> dict[str, Any]:
    """config.json of layouts that no library loads by themselves: the same facts, and no claim to be transformers'."""
    claims = ("model_type", "architectures")
    return {"layout": plan.layout} | {key: value for key, value in model_config(plan).items() if key not in claims}


def timm_config(plan: Plan) -> dict[str, Any]:
    """config.json as timm writes it itself, with our declarations beside, which it ignores.

    Raises UsageError for a network that timm has not registered.
    """
    recipe, classes = plan.preprocessing, plan.architecture.classes or 0
    shortest = recipe.size.get("shortest_edge")
    config: dict[str, Any] = {
        "architecture": timm_architecture(plan),
        "num_classes": classes,
        "num_features": plan.architecture.features,
        "global_pool": "avg",
        "pretrained_cfg": {
            "tag": "bit_convert",
            "custom_load": False,
            "input_size": [3, *recipe.shape],
            "fixed_input_size": False,
            "interpolation": next(name for name, number in RESAMPLE.items() if number == recipe.resample),
            "crop_pct": recipe.shape[0] / shortest if shortest else 1.0,
            "crop_mode": "center" if shortest else "squash",
            "mean": list(recipe.mean),
            "std": list(recipe.std),
            "num_classes": classes,
            "pool_size": [(side + 31) // 32 for side in recipe.shape],
            "first_conv": "stem.conv",
            "classifier": "head.fc",
            "license": "apache-2.0",
        },
        **declarations(plan),
    }
    if plan.labels:
        config["label_names"] = plan.labels
    return config


def timm_architecture(plan: Plan) -> str:
    """timm's name of the network. Raises UsageError where it has none."""
    architecture = plan.architecture
    depth, factor = 3 * sum(architecture.units) + 2, architecture.root_width // 64
    registered = {(50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4)}
    released = architecture.is_regular and architecture.units == RELEASED_UNITS.get(depth)
    if not released or architecture.root_width % 64 or (depth, factor) not in registered:
        raise UsageError(f"{plan.name}: timm has only the six released shapes, not {architecture}. Leave out --layout.")
    return f"resnetv2_{depth}x{factor}_bit"


def preprocessor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """preprocessor_config.json: resize, crop, to −1 … 1."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": dict(preprocessing.size),
        "resample": preprocessing.resample,
        "do_center_crop": preprocessing.crop is not None,
        "crop_size": dict(zip(("height", "width"), preprocessing.shape, strict=True)),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }
