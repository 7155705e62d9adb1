"""Images that ship with a variant: checkpoint and folder must give each the same class, before anything is in place."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from converters.auditing.audits import audit_folder
from converters.auditing.target import own_readers
from converters.catalogue.variants import find_one
from converters.options import Proof
from converters.sources import open_checkpoint
from tests.command_line import run
from verify import Report
from verify.checking import contradictions

DIGITS = Path(str(files("converters.catalogue"))) / "digits"


class Blurred:
    """An honest reader of one image; of several at once it takes the third for something else."""

    def __init__(self, reader):
        self._reader = reader
        self.name, self.unit = reader.name, reader.unit

    def run(self, image):
        outputs = dict(self._reader.run(image))
        if len(image) > 2:
            outputs["logits"] = outputs["logits"].copy()
            outputs["logits"][2] = np.roll(outputs["logits"][2], 1)
        return outputs

    def close(self):
        self._reader.close()


def blurred(target):
    first, *rest = own_readers(target)
    return [Blurred(first), *rest]


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Each dtype that was asked for → what ``--json`` says of its conversion."""
    place, made = tmp_path_factory.mktemp("digits"), {}

    def convert(dtype: str):
        if dtype not in made:
            options = ("--variant", "BiT-digits", "--output", place / dtype, "--dtype", dtype, "--json", "--quiet")
            result = run(*options)
            assert result.exit_code == 0, result.stderr
            (made[dtype],) = json.loads(result.stdout)["results"]
        return made[dtype]

    return convert


def test_a_conversion_gives_every_held_out_image_its_class(converted):
    found = converted("float32")["report"]["held_out"]
    with np.load(DIGITS / "heldout.npz") as data:
        label = int(data["labels"][0])
    assert (found["images"], found["same"], found["exact"]) == (360, 360, True)
    assert found["source_right"] == found["target_right"] > 0.99 * 360
    assert found["label"] == label


@pytest.mark.slow
def test_half_precision_is_not_held_to_every_class(converted):
    report = converted("float16")["report"]
    assert report["verdict"] == "passed"
    assert (report["held_out"]["images"], report["held_out"]["exact"]) == (360, False)
    assert report["held_out"]["same"] >= 355


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "verdict"), [("float32", "failed"), ("float16", "passed")])
def test_another_class_fails_in_float32_and_is_reported_in_half_precision(converted, dtype, verdict):
    folder = Path(converted(dtype)["folder"])
    variant = find_one("BiT-digits")
    with open_checkpoint(variant.file) as source:
        report = audit_folder(folder, source, blurred, Proof(), lambda *_: None, variant=variant)
    assert report.verdict == verdict
    assert report.held_out.same < 360
    assert contradictions(Report.from_json(report.to_json())) == []
    if verdict == "failed":
        assert report.reason == "bit_ref: 6 of 360 held-out images get another class"
        assert [fault.kind for fault in report.faults] == ["other classes"]


@pytest.mark.slow
def test_a_conversion_that_changes_a_class_leaves_only_its_report(tmp_path, monkeypatch):
    monkeypatch.setattr("converters.conversion.own_readers", blurred)
    result = run("--variant", "BiT-digits", "--output", tmp_path, "--quiet")
    assert result.exit_code == 1
    assert "6 of 360 held-out images get another class" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["BiT-digits.failed"]
