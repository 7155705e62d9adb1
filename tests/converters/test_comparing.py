"""``bit-verify --compare A B``: where the reports are looked for, what is said, and the exit status."""

import dataclasses
import json

import pytest

from converters.cli.commands import verify
from tests.checkpoints import make_checkpoint
from tests.command_line import refused, run
from tests.verify.support import TorchModel, audited


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A folder with a good port's report in it, and a folder in which a bad port's report was left."""
    place, tensors = tmp_path_factory.mktemp("reports"), make_checkpoint((1, 1), 32, 4, mids=(32, 64), kernel_std=1e-3)
    good, bad = audited(tensors, size=48), audited(tensors, TorchModel(tensors, epsilon=1e-8), size=48)
    for name, report, folder in (("good", good, "good"), ("bad", bad, "bad/parity")):
        (place / folder).mkdir(parents=True)
        named = dataclasses.replace(report, target={"name": name})
        (place / folder / "parity.json").write_text(named.to_json(), encoding="utf-8")
    return place


@pytest.fixture
def here(reports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return reports


def test_a_failed_report_beside_a_passed_one_is_1(here, tmp_path):
    result = run("--compare", here / "good", here / "bad", "--quiet", command=verify)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "good against tiny.npz" in lines[2]
    assert "bad against tiny.npz" in lines[2]
    assert "page: parity/comparison.html" in lines
    assert lines[-2].startswith("good against tiny.npz: passed: Identical within rounding")
    assert lines[-1].startswith("bad against tiny.npz: failed: root: standardisation epsilon")
    page = (tmp_path / "parity" / "comparison.html").read_text(encoding="utf-8")
    assert "bad against tiny.npz" in page


def test_json_has_both_reports_whole(here, tmp_path):
    words = ("--compare", here / "good" / "parity.json", here / "good", "--json", "--report", tmp_path / "to")
    result = run(*words, command=verify)
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert content["exit_status"] == 0
    assert content["verdicts"] == ["passed", "passed"]
    report = json.loads((here / "good" / "parity.json").read_text(encoding="utf-8"))
    assert [each["report"] for each in content["reports"]] == [report, report]
    assert (tmp_path / "to" / "comparison.html").is_file()
    status = run("--compare", here / "bad", here / "good", "--json", command=verify)
    assert json.loads(status.stdout)["exit_status"] == status.exit_code == 1


def test_what_cannot_be_read_is_2_and_named(here, tmp_path):
    assert "no such file or folder" in refused(2, "--compare", here / "none", here / "good", command=verify)
    assert "no parity.json there" in refused(2, "--compare", here / "good", here, command=verify)
    text = (here / "bad" / "parity" / "parity.json").read_text(encoding="utf-8")
    broken, edited = tmp_path / "broken.json", tmp_path / "edited.json"
    broken.write_text(text[:-40], encoding="utf-8")
    assert f"{broken}: " in refused(2, "--compare", here / "good", broken, command=verify)
    edited.write_text(text.replace('"release": ""', '"release": "9"'), encoding="utf-8")
    assert "was edited" in refused(2, "--compare", here / "good", edited, command=verify)
    assert not (tmp_path / "parity").exists()


def test_a_report_that_contradicts_itself_is_2(here, tmp_path):
    from verify import Report

    report = Report.from_json((here / "bad" / "parity" / "parity.json").read_text(encoding="utf-8"))
    forged = tmp_path / "forged.json"
    forged.write_text(dataclasses.replace(report, verdict="passed", faults=()).to_json(), encoding="utf-8")
    assert "does not hold" in refused(2, "--compare", here / "good", forged, command=verify)


@pytest.mark.parametrize(
    "more",
    [["folder"], ["--against", "BiT-digits"], ["--markdown"], ["--check", "{here}/good/parity.json"]],
    ids=" ".join,
)
def test_it_goes_with_nothing_else(here, more):
    words = [word.format(here=here) for word in more]
    assert "Leave" in refused(2, "--compare", here / "good", here / "good", *words, command=verify)
