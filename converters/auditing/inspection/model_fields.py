"""config.json as transformers reads it: what a source demands of it, what redirects the loader, what changes nothing.

config.json, Plan → ``inspect_model()``, or of a layout that no library loads by itself ``inspect_plain()`` → Notes

File and function names are those of transformers 5.24; version 4 is named where it differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from converters.auditing.inspection.fates import ABSENT, Fields, is_int, shown
from converters.auditing.inspection.label_fields import inspect_labels
from converters.auditing.inspection.tables import idle_values, table, without_effect
from converters.folder.config import network_config, plain_config
from converters.folder.plan import Plan

DEFAULTS: Mapping[str, Any] = {
    "num_channels": 3,
    "embedding_size": 64,
    "depths": [3, 4, 6, 3],
    "layer_type": "preactivation",
    "hidden_act": "relu",
    "num_groups": 32,
    "global_padding": None,
    "embedding_dynamic_padding": False,
    "output_stride": 32,
    "pool_padding": "zeros",
}
"""The values of missing fields: models/bit/configuration_bit.py, and bit_ref for ``pool_padding``."""
HIDDEN_SIZES = [256, 512, 1024, 2048]
UNDECLARED_PROBLEM = "single_label_classification"
"""The problem type that libraries assume where labels are numbers of classes."""
PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")

SIZES = ("num_channels", "embedding_size", "depths")
"""Fields that say how large a network is built before its weights are looked at."""

_TABLE = table("model_fields")
REDIRECTS, FOLLOWED = idle_values(_TABLE["redirects"]), idle_values(_TABLE["followed"])
ATTRIBUTES = frozenset(_TABLE["attributes"].split())
MODEL_FIELDS = without_effect(_TABLE["no_effect"])

LABELS = ("id2label", "label2id", "num_labels")
DTYPES = {"float": "float32", "half": "float16"}
"""Other names that PyTorch has for what values are stored in."""


def inspect_model(fields: Fields, plan: Plan) -> None:
    """Notes every field of a config.json in the transformers layout."""
    follow_nothing(fields)
    _inspect_network(fields, plan)
    inspect_dtype(fields, plan.storage.dtype)
    inspect_declarations(fields, plan)
    inspect_labels(fields, plan)
    inspect_problem(fields, plan)
    fields.one_of("return_dict", [True])
    _inspect_stages(fields, plan)
    fields.rest(MODEL_FIELDS, ATTRIBUTES, "transformers' BitConfig")


def inspect_plain(fields: Fields, plan: Plan) -> None:
    """Notes every field of a config.json that no library reads: what it says must be right, and it need not say it.

    One that claims to be of transformers would load other names than are stored.
    """
    follow_nothing(fields)
    fields.none_of({"model_type": (), "architectures": (None,), "pretrained_cfg": ()}, "is followed by a loader")
    wanted = json.loads(json.dumps(plain_config(plan)))
    for name in sorted(wanted.keys() & fields.content.keys() - {*LABELS, "problem_type", "dtype"}):
        fields.equal(name, wanted[name])
    inspect_dtype(fields, plan.storage.dtype)
    if "problem_type" in fields:
        inspect_problem(fields, plan)
    if any(name in fields for name in LABELS):
        inspect_labels(fields, plan)
    fields.rest(MODEL_FIELDS)


def follow_nothing(fields: Fields) -> None:
    """Notes fields that send a loader elsewhere, in a config.json of any layout."""
    fields.none_of(REDIRECTS, "redirects its loader, or brings code")


def _inspect_network(fields: Fields, plan: Plan) -> None:
    wanted = network_config(plan)
    fields.equal("model_type", "bit")
    fields.one_of("architectures", [wanted["architectures"], None, []])
    fields.none_of(FOLLOWED, "is followed by a loader")
    sized = [fields.equal(name, wanted[name], DEFAULTS[name]) for name in SIZES]
    for name in sorted(DEFAULTS.keys() - {*SIZES, "pool_padding"}):
        fields.equal(name, wanted[name], DEFAULTS[name])
    sizes, factor = fields.take("hidden_sizes", HIDDEN_SIZES), fields.take("width_factor", 1)
    place = fields.place("hidden_sizes") + " × width_factor"
    sized.append(fields.notes.must(place, shown(wanted["hidden_sizes"]), shown(_product(sizes, factor))))
    sized.append(fields.must("width_factor", "1", shown(factor), "the last norm is not widened"))
    if not all(sized):
        fields.notes.mislead(f"{fields.file} describes another network than the weights are of")


def _product(sizes: Any, factor: Any) -> Any:
    """The widths that are built, as far as there are any."""
    if isinstance(sizes, list) and all(map(is_int, sizes)) and is_int(factor):
        return [size * factor for size in sizes]
    return sizes


def inspect_dtype(fields: Fields, stored: str) -> None:
    """Compares the loader's dtype: it must be the stored one, or for halves float32, which holds them exactly.

    Version 5 reads ``dtype`` first, version 4 ``torch_dtype`` alone: both must be right.
    """
    fitting = [None, *dict.fromkeys([stored, "float32"])]
    for name in ("dtype", "torch_dtype"):
        aliases = [alias for alias, dtype in DTYPES.items() if dtype in fitting]
        fields.one_of(name, [stored, *(each for each in [*fitting, *aliases] if each != stored)])


def inspect_declarations(fields: Fields, plan: Plan) -> None:
    """Compares the fields that bit_ref alone reads."""
    wanted = network_config(plan)
    if "weight_standardization_eps" in fields:
        fields.equal("weight_standardization_eps", wanted["weight_standardization_eps"])
    if "exact" in fields:
        fields.equal("exact", plan.storage.exact)
    fields.equal("pool_padding", wanted["pool_padding"], DEFAULTS["pool_padding"])


def inspect_problem(fields: Fields, plan: Plan) -> None:
    """Compares the loss, and how a pipeline makes scores of logits, where the catalogue knows the variant."""
    wanted = plan.variant.problem_type if plan.variant else None
    if wanted is None:
        fields.one_of("problem_type", PROBLEMS)
        return
    found = fields.take("problem_type", None)
    fields.must("problem_type", shown(wanted), shown(UNDECLARED_PROBLEM if found is None else found))


def _inspect_stages(fields: Fields, plan: Plan) -> None:
    """Compares the stages that a backbone gives; a classifier does not read them, but refuses what is none."""
    names = ["stem", *(f"stage{block + 1}" for block in range(len(plan.architecture.units)))]
    if "stage_names" in fields:
        fields.equal("stage_names", names)
    features, indices = fields.take("out_features"), fields.take("out_indices")
    if features not in (ABSENT, None):
        fields.fulfil("out_features", f"some of {shown(names)}", features, _ordered(features, names))
    if indices not in (ABSENT, None):
        places = (
            [index % len(names) if is_int(index) and -len(names) <= index < len(names) else -1 for index in indices]
            if isinstance(indices, list)
            else [-1]
        )
        chosen = [names[place] for place in places]
        agree = -1 not in places and _ordered(chosen, names) and features in (ABSENT, None, chosen)
        fields.fulfil("out_indices", "the numbers of stages", indices, agree)


def _ordered(chosen: Any, names: list[str]) -> bool:
    return isinstance(chosen, list) and chosen == [name for name in names if name in chosen]
