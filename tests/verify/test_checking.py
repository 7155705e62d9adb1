"""A report is checked from its own figures: every honest one holds, and an edited one does not, digest or no digest."""

import json
from importlib.resources import files

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint
from tests.verify.support import MemorySource, TorchModel, audited, target_of
from verify import AuditSettings, Report, audit, default_images
from verify.checking import changed_files, changed_tensors, contradictions
from verify.report.parity import content_digest, schema
from verify.verdict import derived_verdict


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 1), 32, 4, mids=(32, 64), kernel_std=1e-3)


@pytest.fixture(scope="module")
def report(tensors):
    return audited(tensors, size=48)


def honest_reports(tensors):
    source = MemorySource(tensors)
    held = tensors | {"resnet/head/conv2d/bias": np.zeros(4, np.float32)}
    yield audited(tensors, size=48)
    yield audited(tensors, TorchModel(tensors, epsilon=1e-8), size=48)
    yield audited(tensors, TorchModel(tensors, outputs=("logits",)), size=48)
    yield audit(target_of(source, held), source, AuditSettings(images=default_images(48)))
    yield audit(target_of(source), source, AuditSettings(images=[np.full((1, 3, 48, 48), -1, np.float32)]))
    yield audit(target_of(source), source, AuditSettings(images=[]))
    yield audited(tensors | {"resnet/group_norm/gamma": np.full(256, np.nan, np.float32)}, size=48)
    yield audited(tensors, TorchModel({**tensors, "resnet/group_norm/beta": np.full(256, np.nan, np.float32)}), size=48)


@pytest.mark.slow
def test_honest_reports_hold_whatever_their_verdict(tensors):
    verdicts = set()
    for report in honest_reports(tensors):
        assert contradictions(Report.from_json(report.to_json())) == []
        verdicts.add(report.verdict)
    assert verdicts == {"passed", "failed", "inconclusive"}


DIGITS = {
    "images": 9, "same": 9, "source_right": 8, "target_right": 8, "label": 7, "source_class": 7, "target_class": 7,
    "exact": True,
}  # fmt: skip
"""Of held-out images, as an honest report has them."""
EVALUATION = {
    "dataset": "val", "sha256": "ab" * 32, "images": 9, "classes": 3, "unreadable": 0, "unreadable_files": [],
    "oracle": "NumPy float32", "reader": "torch", "reason": "", "other_pixels": 0, "same": 8, "ties": 1, "exact": True,
    "source": {"preprocessing": "RGB", "top1": 8, "top5": 9}, "target": {"preprocessing": "RGB", "top1": 7, "top5": 9},
    "changed": [
        {"file": "1.png", "label": 1, "source_class": 1, "source_margin": 0.0, "target_class": 0, "target_margin": 1.0}
    ],
    "names": {},
}  # fmt: skip
"""Of a data set, as an honest report has them."""


def forged(report: Report, edit) -> Report:
    """An edited report whose digest was made to fit."""
    content = json.loads(report.to_json())
    edit(content)
    content["passed"] = content["verdict"] == "passed"
    content["digest"] = content_digest(content)
    return Report.from_json(json.dumps(content))


def set_path(*path):
    *way, last, value = path

    def edit(content):
        for key in way:
            content = content[key]
        content[last] = value

    return edit


def evaluated(**changes):
    return set_path("evaluation", EVALUATION | changes)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_path("layers", 1, "error", 1.0), "the ratio"),
        (set_path("layers", 1, "ratio", 0.01), "block1/unit01: the ratio 0.01 is not"),
        (set_path("ratio", 0.1), "the ratio 0.1 is not the largest"),
        (set_path("readers", 0, "ratio", 0.1), "is not that of torch"),
        (set_path("readers", 0, "max_abs_error", 0.0), "the largest error of logits is"),
        (set_path("max_abs_error", 0.0), "the largest error of logits is"),
        (set_path("floor", 1e-9), "the floor of logits is 1e-09 and"),
        (set_path("rounding", 0.1), "values stored in float32 moved by 0.1"),
        (set_path("layers", 1, "image", 7), "block1/unit01 is of image 8 of 2"),
        (set_path("readers", 0, "top1", 3), "torch agrees on 3 of 2 images"),
        (set_path("readers", 0, "real_top1", 1), "torch agrees on 1 of 0 real images"),
        (set_path("readers", 0, "real_top1", None), "torch agrees on None of 0 real images"),
        (set_path("readers", 0, "exceeds_limit_at", "root"), "torch passed with the ratio"),
        (set_path("logits", 0, "model", 1e3), "logit 0 is"),
        (set_path("logits", 0, "index", 9), "the plotted logits are not in order"),
        (set_path("readers", 0, "verdict", "failed"), "its figures say 'failed'"),
        (set_path("tensors", "bit_exact", 20), "20 tensors are said to be bit-exact, 25 are listed"),
        (set_path("weights", 3, "bit_exact", False), "25 tensors are said to be bit-exact, 24 are listed"),
        (set_path("weights", 3, "sha256", "ab"), "'ab' is no sha256"),
        (set_path("source", "sha256", "none"), "'none' is no sha256"),
        (set_path("misfits", ["something"]), "1 misfits beside"),
        (set_path("feature_floor", 0.1), "its figures say 'inconclusive'"),
        (set_path("layers", []), "its figures say 'inconclusive'"),
        (set_path("images", []), "its figures say 'inconclusive'"),
        (set_path("readers", []), "its figures say 'inconclusive'"),
        (set_path("expectations", [{"place": "config.json x", "expected": "1", "found": "2"}]), "say 'failed'"),
        (set_path("faults", [{"kind": "stride", "place": "root", "detail": ""}]), "passed with faults"),
        (set_path("reason", "25 stored tensors bit-exact"), "the reason is '25 stored tensors bit-exact', its figures"),
        (set_path("held_out", DIGITS | {"target_class": 8}), "shows 7, and is taken for 7 and 8"),
        (
            set_path("held_out", DIGITS | {"label": 8, "source_right": 9, "target_right": 9}),
            "shows 8, and is taken for",
        ),
        (set_path("held_out", DIGITS | {"same": 0, "exact": False}), "shows 7, and is taken for 7 and 7"),
        (evaluated(ties=0), "its figures say 'failed'"),
        (evaluated(same=9), "of 9 evaluated images 9 get the same class"),
        (evaluated(same=9, ties=0, source=EVALUATION["target"]), "names 1 of 0 changed images"),
        (evaluated(changed=[]), "names 0 of 1 changed images"),
        (evaluated(ties=2), "of the others 2 are ties"),
        (evaluated(target=None), "has figures of a target that was not run"),
        (evaluated(target=None, same=None), "has figures of a target that was not run"),
        (evaluated(reason="no GPU"), "has figures of a target that was not run"),
        (evaluated(images=7), "the evaluation counts 8 and 9 and 7 and 9 of 7 images"),
        (evaluated(source={"preprocessing": "", "top1": 9, "top5": 8}), "the evaluation counts 9 and 8"),
        (evaluated(classes=0), "the evaluation is of 0 classes"),
        (evaluated(other_pixels=9), "demands the same classes of other values or pixels"),
        (evaluated(unreadable_files=["b/2.png"]), "names 1 of 0 unreadable files"),
        (evaluated(unreadable=2), "names 0 of 2 unreadable files"),
        (set_path("source", {"sha256": "ab" * 32, "format": "npz"}), "the source has no file"),
        (set_path("source", {"sha256": "ab" * 32, "file": "tiny.npz"}), "the source has no format"),
        (evaluated(sha256="none"), "'none' is no sha256"),
        (
            evaluated(changed=[EVALUATION["changed"][0] | {"label": 2}]),
            "the evaluation's changed images do not make its accuracies",
        ),
        (evaluated(changed=[EVALUATION["changed"][0] | {"target_class": 1}]), "1.png is no changed image"),
        (evaluated(changed=[EVALUATION["changed"][0] | {"source_margin": -1.0}]), "1.png is no changed image"),
        (set_path("verdict", "inconclusive"), "the verdict is 'inconclusive', its figures say 'passed'"),
    ],
)
def test_forged_reports_contradict_themselves(report, edit, message):
    found = contradictions(forged(report, edit))
    assert any(message in line for line in found), found


def test_held_out_images_that_agree_with_their_counts_are_no_contradiction(report):
    assert contradictions(forged(report, set_path("held_out", DIGITS))) == []
    assert contradictions(forged(report, evaluated())) == []
    not_run = evaluated(target=None, same=None, ties=0, changed=[], reason="no GPU", exact=False)
    assert contradictions(forged(report, not_run)) == []


def test_failed_report_that_was_made_to_pass_contradicts_itself(tensors):
    failed = audited(tensors, TorchModel(tensors, epsilon=1e-5), size=48)

    def pass_it(content):
        content["verdict"] = content["readers"][0]["verdict"] = "passed"
        content["faults"] = []

    assert derived_verdict(forged(failed, pass_it))[0] == "failed"
    assert "the verdict is 'passed', its figures say 'failed'" in contradictions(forged(failed, pass_it))


def test_any_edit_without_its_digest_is_refused(report):
    content = json.loads(report.to_json())
    for name, value in [("release", "9"), ("max_abs_error", 0.0), ("unknown", 1), ("reason", "all is well")]:
        with pytest.raises(ValueError, match="was edited"):
            Report.from_json(json.dumps(content | {name: value}))


def test_files_and_tensors_are_held_against_the_report(report):
    digests = {weight.name: weight.sha256 for weight in report.weights}
    assert changed_files(report, report.files.get) == []
    assert changed_tensors(report, digests) == []
    name = report.weights[4].name
    assert changed_tensors(report, digests | {name: "00" * 32}) == [
        f"{name} holds other values than the report recorded"
    ]
    assert changed_files(report, lambda _: None) == ["model.safetensors is missing"]
    assert changed_files(report, lambda _: "ee" * 32)[0].startswith("model.safetensors is another file")


def test_shipped_schema_is_that_of_the_report(report):
    shipped = json.loads(files("verify.report").joinpath("parity.schema.json").read_text(encoding="utf-8"))
    assert shipped == schema()
    assert shipped["properties"]["verdict"] == {"enum": ["failed", "inconclusive", "passed"]}
    assert set(shipped["required"]) == set(json.loads(report.to_json()))
    assert shipped["properties"]["layers"] == {"type": "array", "items": {"$ref": "#/$defs/LayerReport"}}
    layer = shipped["$defs"]["LayerReport"]
    assert layer["properties"]["floor"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert {"name", "floor", "limit"} <= set(layer["required"])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_path("ratio", "small"), r"got `str` - at `\$.ratio`"),
        (set_path("layers", 0, "image", 0.5), r"Expected `int`, got `float` - at `\$.layers\[0\].image`"),
        (set_path("layers", 0, "image", True), r"Expected `int`, got `bool` - at `\$.layers\[0\].image`"),
        (set_path("verdict", "fine"), r"'fine' - at `\$.verdict`"),
        (set_path("files", ["a"]), r"got `array` - at `\$.files`"),
        (set_path("tensors", None), r"got `null` - at `\$.tensors`"),
        (set_path("weights", 0, {"name": "x"}), r"missing required field `source` - at `\$.weights\[0\]`"),
        (lambda content: content.pop("weights"), "it has no `weights`"),
        (set_path("passed", True), None),
    ],
)
def test_what_does_not_fit_the_schema_is_named(report, edit, message):
    content = json.loads(report.to_json())
    edit(content)
    if message is None:
        assert Report.from_json(json.dumps(content)) == report
    else:
        with pytest.raises(ValueError, match=message):
            Report.from_json(json.dumps(content))
