"""config.json of layouts that no library loads by itself: what it says must be right, and it need not say anything.

config.json, Plan → ``inspect_plain()`` → Notes
"""

from __future__ import annotations

import json

from converters.auditing.inspection.fates import Fields
from converters.auditing.inspection.label_fields import inspect_labels
from converters.auditing.inspection.model_fields import MODEL_FIELDS, follow_nothing, inspect_dtype, inspect_problem
from converters.folder.config import plain_config
from converters.folder.plan import Plan

LABELS = ("id2label", "label2id", "num_labels")


def inspect_plain(fields: Fields, plan: Plan) -> None:
    """Notes every field. A config.json that claims to be of transformers would load other names than are stored."""
    follow_nothing(fields)
    fields.none_of({"model_type": (), "architectures": (None,), "pretrained_cfg": ()}, "is followed by a loader")
    wanted = json.loads(json.dumps(plain_config(plan)))
    for name in sorted(wanted.keys() & fields.content.keys() - {*LABELS, "problem_type", "dtype"}):
        fields.equal(name, wanted[name])
    inspect_dtype(fields, plan.storage.dtype)
    inspect_problem_where_said(fields, plan)
    if any(name in fields for name in LABELS):
        inspect_labels(fields, plan)
    fields.rest(MODEL_FIELDS)


def inspect_problem_where_said(fields: Fields, plan: Plan) -> None:
    if "problem_type" in fields:
        inspect_problem(fields, plan)
