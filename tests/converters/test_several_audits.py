"""``bit-verify`` of several targets, typed or of a plan: a line each, the worst first, and its exit status."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from converters.auditing.named_source import named_by
from converters.catalogue.variants import find
from converters.cli.commands import verify
from converters.errors import UsageError
from converters.release import pool
from converters.release.job import AuditJob
from converters.release.plan import read_audits
from tests import processes
from tests.command_line import refused, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The digits in two layouts that no stock library loads, and a copy in which two tensors are swapped."""
    place = tmp_path_factory.mktemp("made")
    for layout in ("original", "npz"):
        words = ("--variant", "BiT-digits", "--output", place / layout, "--layout", layout, "--quiet")
        assert run(*words).exit_code == 0
    shutil.copytree(place / "original" / "BiT-digits", place / "swapped")
    stored = load_file(place / "swapped" / "model.safetensors")
    one, other = [name for name in stored if name.endswith(("gn2.weight", "gn3.weight"))][:2]
    stored[one], stored[other] = stored[other], stored[one]
    save_file(stored, place / "swapped" / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path / "models")
    monkeypatch.chdir(tmp_path / "models")
    return tmp_path / "models"


def audited(*words: object) -> tuple[int, list[str], str]:
    result = run(*words, "--quiet", command=verify)
    return result.exit_code, result.stdout.splitlines(), result.stderr


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_worst_comes_first_and_each_has_a_report(here, jobs, monkeypatch):
    monkeypatch.setattr(pool, "subprocess", processes)
    (here / "empty").mkdir()
    shutil.copy("original/BiT-digits/README.md", "empty")
    targets = ["original/BiT-digits", "empty", "swapped", "npz/BiT-digits"]
    status, lines, errors = audited(*targets, "--against", "BiT-digits", "--offline", "--jobs", jobs)
    assert status == 1
    assert [line.partition(",")[0] for line in lines] == [
        "swapped: failed",
        "original/BiT-digits: passed",
        "npz/BiT-digits: passed",
    ]
    assert all(", against BiT-digits: " in line for line in lines)
    assert errors.startswith("bit-verify: empty") or "empty" in errors
    found = {path.parent.name: json.loads(path.read_text())["verdict"] for path in here.glob("parity/*/parity.json")}
    assert found == {"BiT-digits": "passed", "swapped": "failed", "BiT-digits-2": "passed"}
    page = (here / "parity" / "swapped" / "parity.html").read_text()
    assert "<code>bit-verify swapped --against BiT-digits --offline</code>" in page


def test_each_is_held_against_what_it_names_itself(here):
    status, lines, _ = audited("original/BiT-digits", "npz/BiT-digits")
    assert status == 0
    assert [line.partition(":")[2].split(":")[0] for line in lines] == [" passed, against BiT-digits"] * 2


def test_a_folder_that_names_nothing_is_asked_about(here):
    (here / "plain").mkdir()
    assert "plain: against which checkpoint?" in refused(2, "plain", "swapped", command=verify)


def test_one_document_for_all(here):
    result = run("swapped", "npz/BiT-digits", "--against", "BiT-digits", "--json", "--quiet", command=verify)
    document = json.loads(result.stdout)
    assert (result.exit_code, document["exit_status"]) == (1, 1)
    assert [(entry["target"], entry["verdict"], entry["exit_status"]) for entry in document["audits"]] == [
        ("swapped", "failed", 1),
        ("npz/BiT-digits", "passed", 0),
    ]
    assert document["audits"][1]["report"]["passed"] is True
    assert document["audits"][0]["folder"] == "parity/swapped"


def test_a_plan_of_audits(here):
    (here / "plan.toml").write_text(
        """
        [defaults]
        runner = "bit_ref"
        [[audit]]
        target = "original/{name}"
        variant = "BiT-d*"
        [[audit]]
        target = "swapped"
        against = "npz/BiT-digits/BiT-digits.npz"
        """
    )
    status, lines, _ = audited("--plan", "plan.toml")
    assert status == 1
    assert lines[0].startswith("swapped: failed, against npz/BiT-digits/BiT-digits.npz: ")
    assert lines[1].startswith("original/BiT-digits: passed, against BiT-digits: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swapped", "--plan", "plan.toml"], "a plan names targets"),
        (["--plan", "plan.toml", "--against", "BiT-digits"], "a plan names targets"),
        (["swapped", "swapped", "--against", "BiT-digits", "--markdown"], "--markdown is for one target."),
        (["swapped", "swapped", "--against", "BiT-nothing"], "BiT-nothing: no such file"),
        (["swapped", "swapped", "--check", "swapped/parity.json"], "--check holds one report against one folder."),
        (["--plan", "plan.toml"], "plan.toml:1: audit: the plan has none."),
    ],
)
def test_what_does_not_go_together_is_said(here, words, message):
    (here / "plan.toml").write_text("")
    assert message in refused(2, *words, command=verify)


def jobs_of(text: str, tmp_path: Path, **typed: object) -> list[AuditJob]:
    (tmp_path / "plan.toml").write_text(text)
    return read_audits(tmp_path / "plan.toml", Path("parity"), typed)


def test_a_template_stands_for_each_variant(tmp_path):
    text = """
        [defaults]
        inputs = "thorough"
        [[audit]]
        target = ["hf://google/{name}", "hf://me/{name}-{architecture}"]
        variant = "BiT-M-*-ILSVRC2012"
        exclude = "*152*"
        runner = ["transformers", "timm"]
    """
    jobs = jobs_of(text, tmp_path, offline=True)
    variants = [variant for variant in find("BiT-M-*-ILSVRC2012") if "152" not in variant.name]
    assert [job.target for job in jobs[:2]] == [
        f"hf://google/{variants[0].name}",
        f"hf://me/{variants[0].name}-{variants[0].architecture}",
    ]
    assert [job.against for job in jobs] == [variant.name for variant in variants for _ in range(2)]
    assert jobs[0].report == Path(f"parity/google-{variants[0].name}")
    assert {job.options.runners for job in jobs} == {("transformers", "timm")}
    assert {(job.options.inputs, job.options.offline) for job in jobs} == {("thorough", True)}
    assert [job.options.variant for job in jobs] == [job.against for job in jobs]


def test_each_audit_has_a_folder_of_its_own(tmp_path):
    text = '[[audit]]\ntarget = ["a/x", "b/x", "c/x-2", "d/x"]\nagainst = "BiT-digits"'
    assert [job.report.name for job in jobs_of(text, tmp_path)] == ["x", "x-2", "x-2-2", "x-3"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[[audit]]\nagainst = "BiT-digits"', 1, "target: is missing."),
        ('[[audit]]\ntarget = "x"\nvariant = ["BiT-digits", "y"]', 3, "variant: names several"),
        ('[[audit]]\ntarget = "x"\nvariant = "BiT-M-*"', 3, "variant: BiT-M-* names"),
        ('[[audit]]\ntarget = "{name}"', 1, "variant: is missing."),
        ('[[audit]]\ntarget = "{nmae}"\nvariant = "BiT-digits"', 2, "target: {nmae} cannot be filled. Did you mean"),
        ('[[audit]]\ntarget = "x"\ncompute = "int8"', 3, "compute 'int8' is not known."),
        ('[[audit]]\ntarget = "x"\nlimit = 3', 3, "limit is for the images of a data set. Add dataset"),
        ('[[audit]]\ntarget = "x"\nlimit = "3"', 3, "limit: '3' is no whole number."),
        ('[[audit]]\ntarget = "x"\nrunners = "timm"', 3, "runners: no such key. Did you mean runner?"),
        ('[[release]]\nlayuot = 1\n[[audit]]\ntarget = "x"', 2, "layuot: no such key."),
    ],
)
def test_errors_name_line_and_key(tmp_path, text, line, message):
    with pytest.raises(UsageError, match=rf":{line}: {re.escape(message)}"):
        jobs_of(text, tmp_path)


def test_a_source_is_named_by_provenance_card_or_report(made, tmp_path):
    shutil.copytree(made / "original" / "BiT-digits", tmp_path / "x")
    assert named_by(tmp_path / "x") == "BiT-digits"
    for name in ("provenance.json", "README.md"):
        (tmp_path / "x" / name).unlink()
        assert named_by(tmp_path / "x") == "BiT-digits"
    (tmp_path / "x" / "parity.json").write_text('{"source": {"file": "elsewhere.npz"}}')
    assert named_by(tmp_path / "x") is None
    (tmp_path / "x" / "parity.json").write_text('{"source": [1]}')
    assert named_by(tmp_path / "x") is None
