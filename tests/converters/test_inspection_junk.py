"""Junk in any field of a folder's JSON: a configuration fault or a fate, in little time, and never a traceback."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from converters.auditing.inspection.fates import Fields, Notes
from converters.auditing.inspection.model_fields import (
    ATTRIBUTES,
    FOLLOWED,
    MODEL_FIELDS,
    REDIRECTS,
    inspect_model,
    inspect_plain,
)  # fmt: skip
from converters.auditing.inspection.processor_fields import IDLE, PROCESSOR_FIELDS, inspect_processor
from converters.auditing.inspection.timm_fields import ARGUMENTS, RECIPE_FIELDS, TIMM_FIELDS, inspect_timm
from converters.catalogue.variants import find
from converters.errors import CheckpointError
from converters.files import read_json
from converters.folder.config import model_config, plain_config, preprocessor_config, timm_config
from converters.folder.plan import Plan
from converters.mapping.architecture import Architecture
from converters.mapping.storage import Storage

TINY = Architecture.regular((1, 1), 32, 10)
PLANS = {layout: Plan("tiny", TINY, None, Storage(layout)) for layout in ("transformers", "original")}
PLANS["timm"] = Plan("timm", Architecture.released("R50x1", 10), None, Storage("timm"))
WRITERS = {
    "transformers": (model_config, inspect_model), "original": (plain_config, inspect_plain),
    "timm": (timm_config, inspect_timm),
}  # fmt: skip
JUNK = [
    10**13, -1, 0, 1.5, float("nan"), float("inf"), True, None, "", "text", "\ud800", "x" * 10**6, [], [10**9], [[]],
    {}, {"a": 1}, {"0": 10**12}, [None] * 1000, [10**12, {"b": []}], "\x1b[31m", "1", 10**400,
]  # fmt: skip
FIELDS = sorted(
    {*MODEL_FIELDS, *ATTRIBUTES, *FOLLOWED, *REDIRECTS, *TIMM_FIELDS, "num_labels", "id2label", "label2id", "depths",
     "hidden_sizes", "width_factor", "embedding_size", "num_channels", "num_groups", "out_features", "out_indices",
     "stage_names", "return_dict", "problem_type", "dtype", "torch_dtype", "architectures", "model_type",
     "architecture", "num_classes", "model_args", "pretrained_cfg", "label_names", "label_descriptions",
     "__class__", "a b", "\n", "é"}
)  # fmt: skip
INNER = sorted({*RECIPE_FIELDS, "input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "label_offset",
                "num_classes", "test_input_size", "test_crop_pct", "hf_hub_filename", "fixed_input_size"})  # fmt: skip


def noted(inspect, file: str, content: dict, plan: Plan) -> Notes:
    notes = Notes()
    start = time.thread_time()
    inspect(Fields(notes, file, content), plan)
    assert time.thread_time() - start < 2
    for each in notes.expectations:
        assert len(str(each).encode()) < 1000
    return notes


def written(layout: str) -> dict:
    return json.loads(json.dumps(WRITERS[layout][0](PLANS[layout])))


@pytest.mark.parametrize(
    "values", [{"image_std": [1e-320] * 3}, {"rescale_factor": 1e308}], ids=lambda values: next(iter(values))
)
def test_numbers_that_overflow_are_a_fault_and_no_warning(values):
    (variant,) = find("BiT-M-R50x1")
    plan = Plan("tiny", variant.network, variant, Storage("transformers"))
    content = preprocessor_config(plan.preprocessing) | values
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = noted(inspect_processor, "preprocessor_config.json", content, plan)
    wrong = [each.place for each in notes.expectations if not each.met]
    assert wrong == [f"preprocessor_config.json {name}" for name in (*values, "pixels")]


@pytest.mark.parametrize("layout", sorted(WRITERS))
@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(FIELDS) | st.text(max_size=20), value=st.sampled_from(JUNK))
@example(name="architecture", value="x" * 10**6)
@example(name="architecture", value="\ud800")
def test_junk_in_config_json(layout, name, value):
    config = {**written(layout), name: copy.deepcopy(value)}
    notes = noted(WRITERS[layout][1], "config.json", config, PLANS[layout])
    unmet = [each for each in notes.expectations if not each.met]
    if layout != "timm" and name in MODEL_FIELDS and MODEL_FIELDS[name].kind.name == "anything":
        assert unmet == []
        assert any(each.place.endswith(name) and each.fate == "no effect" for each in notes.inspected)
    if not unmet and name not in written(layout):
        assert sum(each.fate == "unknown" for each in notes.inspected) <= 1


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([*INNER, *(f"model_args/{name}" for name in [*ARGUMENTS, "num_classes", "x"])]),
    value=st.sampled_from(JUNK),
)
def test_junk_inside_timms_config(name, value):
    config = written("timm")
    outer, _, last = name.rpartition("/")
    config.setdefault(outer or "pretrained_cfg", {})[last] = copy.deepcopy(value)
    noted(inspect_timm, "config.json", config, PLANS["timm"])


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(["id2label", "label2id"]), key=st.sampled_from(["0", "3", "-1", "٣", "1e3", ""]),
       value=st.sampled_from(JUNK))  # fmt: skip
def test_junk_inside_labels(name, key, value):
    config = written("transformers")
    config[name][key] = copy.deepcopy(value)
    noted(inspect_model, "config.json", config, PLANS["transformers"])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(
        sorted({*preprocessor_config(PLANS["timm"].preprocessing), *IDLE, *PROCESSOR_FIELDS, "resize"})
    ),
    value=st.sampled_from(JUNK),
    known=st.booleans(),
)
def test_junk_in_the_preprocessor(name, value, known):
    plan = Plan("tiny", TINY, find("BiT-M-R50x1-ILSVRC2012")[0] if known else None, Storage())
    recipe = {**json.loads(json.dumps(preprocessor_config(plan.preprocessing))), name: copy.deepcopy(value)}
    noted(inspect_processor, "preprocessor_config.json", recipe, plan)


def test_means_and_deviations_of_other_numbers_of_channels():
    recipe = json.loads(json.dumps(preprocessor_config(PLANS["transformers"].preprocessing)))
    recipe |= {"image_mean": [0.5] * 2, "image_std": [0.5] * 4}
    notes = noted(inspect_processor, "preprocessor_config.json", recipe, PLANS["transformers"])
    assert not all(each.met for each in notes.expectations)


@pytest.mark.parametrize("levels", [65, 900, 1000, 100_000])
def test_what_no_library_can_read_is_refused(levels, tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"mine": ' + "[" * levels + "]" * levels + "}")
    with pytest.raises(CheckpointError, match="levels deep"):
        read_json(file)


def test_many_unknown_fields_are_counted():
    config = {**written("transformers"), **{f"field{i}": i for i in range(100_000)}}
    notes = noted(inspect_model, "config.json", config, PLANS["transformers"])
    unknown = [each for each in notes.inspected if each.fate == "unknown"]
    assert len(unknown) == 201
    assert unknown[-1].reason == "99800 more fields"


ORDER = """
import json
from tests.converters.test_inspection_junk import PLANS, WRITERS, inspect_processor, noted, preprocessor_config, written
for layout, (_, inspect) in WRITERS.items():
    plan = PLANS[layout]
    recipe = json.loads(json.dumps(preprocessor_config(plan.preprocessing)))
    for notes in (
        noted(inspect, "config.json", written(layout), plan),
        noted(inspect_processor, "preprocessor_config.json", recipe, plan),
    ):
        print(*map(str, notes.expectations), *map(str, notes.inspected), sep="\\n")
"""


@pytest.mark.slow
def test_the_order_of_what_is_noted_is_no_accident():
    """Texts have other hashes in each process, and so sets of them another order."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", ORDER],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(outputs) == 1
    assert outputs.pop().count("\n") > 50
