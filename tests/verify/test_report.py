"""parity.json: its keys, its strictness, and what must not be in it."""

import dataclasses
import html
import json
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt

from tests.checkpoints import make_checkpoint
from tests.verify.support import MemorySource, TorchModel, audited, target_of
from verify import AuditSettings, Expectation, Report, audit, default_images
from verify.checking import contradictions
from verify.compare import FACTOR
from verify.faults import Fault, Kind
from verify.protocols import Inspected
from verify.report.markdown import summary
from verify.report.meaning import meaning
from verify.verdict import derived_verdict


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 1), 32, 4, mids=(32, 64))


@pytest.fixture(scope="module")
def report(tensors):
    return audited(tensors, version="0.1.0", size=48)


def test_keys_of_parity_json(report):
    content = json.loads(report.to_json())
    assert content["passed"] is True
    assert content["verdict"] == "passed"
    assert 0 < content["max_abs_error"] < 4 * content["floor"]
    assert 0 < content["ratio"] < FACTOR
    assert content["tensors"] == {"source": 25, "used": 25, "target": 25, "filled": 25, "bit_exact": 25}
    names = ["root", "block1/unit01", "block2/unit01", "norm", "features", "logits"]
    assert [layer["name"] for layer in content["layers"]] == names
    assert all({"name", "max_abs_error", "floor"} <= set(layer) for layer in content["layers"])
    assert content["oracle"] == "NumPy float64"
    assert content["source"] == {"file": "tiny.npz", "format": "npz", "sha256": "ab" * 32}
    assert content["files"] == {"model.safetensors": "cd" * 32}
    assert content["release"] == "0.1.0"
    assert content["exact"] == "bits"
    assert content["readers"][0]["name"] == "torch"


def test_report_is_frozen_and_truthy_when_passed(report, tensors):
    assert report
    assert report.passed
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.verdict = "failed"
    assert not audited(tensors, TorchModel(tensors, groups=16), size=48)


@pytest.mark.parametrize(
    ("target", "title"),
    [
        ({}, "a folder in the layout of transformers against tiny.npz"),
        ({"name": "port"}, "port against tiny.npz"),
        ({"name": "google/bit-50", "revision": "0123456789abcdef"}, "google/bit-50@0123456789ab against tiny.npz"),
    ],
)
def test_titles_tell_reports_of_two_ports_apart(report, target, title):
    named = dataclasses.replace(report, target=target)
    assert named.title == title
    assert Report.from_json(named.to_json()).title == title


def test_round_trip(report, tensors):
    assert Report.from_json(report.to_json()) == report
    assert Report.from_json(report.to_json()).to_json() == report.to_json()
    failed = audited(tensors, TorchModel(tensors, pool_padding=-np.inf), size=48)
    assert Report.from_json(failed.to_json()) == failed
    assert not Report.from_json(failed.to_json())


def test_figures_that_are_not_finite_are_null(tensors):
    broken = TorchModel({**tensors, "resnet/group_norm/gamma": np.full(256, np.nan, np.float32)})
    text = audited(tensors, broken, size=48).to_json()
    assert "NaN" not in text.replace("nan", "")
    content = json.loads(text, parse_constant=lambda token: pytest.fail(token))
    assert content["ratio"] is None
    assert content["max_abs_error"] is None
    norm = next(layer for layer in content["layers"] if layer["name"] == "norm")
    assert norm["max_abs_error"] is None
    assert norm["floor"] > 0
    assert norm["limit"] > 0


def test_same_audit_writes_the_same_bytes_and_no_path(report, tensors):
    assert audited(tensors, version="0.1.0", size=48).to_json() == report.to_json()
    assert "/somewhere" not in report.to_json()
    assert "/tmp" not in report.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "[]", "no object"),
        (lambda text: "{", "Expecting"),
        (lambda text: "{}", "schema"),
        (lambda text: text.replace('"passed": true', '"passed": false'), "says passed: False beside"),
        (lambda text: text.replace('"verdict": "passed"', '"verdict": "failed"', 1), "says passed: True beside"),
        (lambda text: text.replace('"reason": "', '"because": "', 1), "not a parity.json"),
        (lambda text: text.replace('"ratio": ', '"ratio": NaN, "x": ', 1), "not strict JSON: NaN"),
        (lambda text: text.replace('"ratio": ', '"ratio": 1e999, "x": ', 1), "not strict JSON: 1e999"),
    ],
)
def test_other_texts_are_refused(report, change, message):
    with pytest.raises(ValueError, match=message):
        Report.from_json(change(report.to_json()))


PHOTOGRAPHS = [np.random.default_rng(seed).uniform(-1, 1, (1, 3, 48, 40)).astype(np.float32) for seed in (5, 6, 7)]


def other_classes(logits):
    return logits.roll(1, dims=1)


@pytest.mark.parametrize(
    ("model", "real", "sentence"),
    [
        ({}, [], "Identical within rounding: the folder computes what the checkpoint computes."),
        ({}, PHOTOGRAPHS, "Identical within rounding: .*; none of 3 real images get another class."),
        ({"norm_epsilon": 1e-4}, [], "Beyond rounding; whether predictions change is not known, .* no real image .*"),
        ({"norm_epsilon": 1e-4}, PHOTOGRAPHS, "Beyond rounding, but no prediction changed on 3 real images."),
        ({"finish": other_classes}, [], "Beyond rounding; whether predictions change is not known, .*"),
        ({"finish": other_classes}, PHOTOGRAPHS, "Predictions change: 3 of 3 real images get another class .*"),
    ],
)
def test_a_report_says_how_much_its_verdict_matters(tensors, model, real, sentence):
    report = audited(tensors, TorchModel(tensors, **model), size=48, real_images=real)
    assert re.fullmatch(sentence, meaning(report)), meaning(report)
    assert [image.real for image in report.images] == [False, False, *(True for _ in real)]
    assert contradictions(Report.from_json(report.to_json())) == []


def test_wrong_files_alone_are_said_to_be_that(tensors):
    source = MemorySource(tensors)
    target = target_of(source)
    target.expectations = (Expectation("preprocessor_config.json size", "480", "448"),)
    report = audit(target, source, AuditSettings(images=default_images(48)))
    assert report.verdict == "failed"
    assert meaning(report).startswith("Only files are wrong")


@pytest.mark.parametrize(
    ("others", "said"), [(0, "not 448"), (1, "not 448; and 1 more field"), (2, "not 448; and 2 more fields")]
)
def test_one_thing_is_said_in_the_singular(others, said, report):
    wrong = tuple(Expectation(f"config.json {number}", "448", "480") for number in range(1 + others))
    assert derived_verdict(dataclasses.replace(report, expectations=wrong))[1].endswith(said)


def test_what_cannot_be_judged_or_run_is_said_to_be_that(tensors):
    source = MemorySource(tensors)
    nothing = audit(target_of(source), source, AuditSettings(images=[]))
    assert meaning(nothing).startswith("Nothing can be concluded")

    def broken(images):
        raise RuntimeError("no kernel for it")

    model = TorchModel(tensors)
    model.run = broken
    assert meaning(audited(tensors, model, size=48)) == "No predictions: the folder cannot be run."


def test_names_are_code_in_markdown_whatever_is_in_them(report):
    names = ["config.json a_b*c", "a``b|c`.py", "`x`"]
    odd = dataclasses.replace(
        report,
        verdict="failed",
        source={**report.source, "file": "my_|own`file.npz"},
        faults=tuple(Fault(Kind.CONFIGURATION, name, "") for name in names),
        inspected=tuple(Inspected(name, "unknown", "") for name in names),
    )
    page = MarkdownIt("commonmark").enable("table").render(summary(odd))
    codes = [html.unescape(code) for code in re.findall("<code>(.*?)</code>", page)]
    assert codes == [*names, "my_|own`file.npz", report.source["sha256"], report.nearest, *names, "parity.json"]
