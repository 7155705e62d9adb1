"""The action that audits a port in its own repository: its steps run here, as GitHub's runner starts them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from tests.command_line import converted

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")
RUN = "https://github.com/me/port/actions/runs/7"
CONTEXT = {
    "github.server_url": "https://github.com",
    "github.repository": "me/port",
    "github.run_id": "7",
    "github.event.pull_request.number": "5",
}


class Runner:
    """One job of the action in a folder: ``gh`` and ``python -m pip`` are recorded, ``bit-verify`` is ours."""

    def __init__(self, folder: Path, **inputs: str) -> None:
        defaults = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()}
        self.folder = folder
        self.context = {**CONTEXT, **{f"inputs.{name}": text for name, text in {**defaults, **inputs}.items()}}
        (folder / "bin").mkdir(parents=True)
        (folder / "temporary").mkdir()
        program = "import sys; sys.argv[0] = 'bit-verify'; from converters.cli import verify; verify()"
        self.program("bit-verify", f'exec {sys.executable} -c "{program}" "$@"')
        self.program("gh", f'printf "%s\\n" "$*" >> {folder}/calls')
        self.program("python", f'if [ "$1" = -m ]; then echo "$*" > {folder}/pip; else exec {sys.executable} "$@"; fi')

    def program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        """Runs a step; what it puts out is there for later ones."""
        step = STEPS[name]
        places = {"GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary.md", "RUNNER_TEMP": "temporary"}
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "GITHUB_ACTION_PATH": "/runner/_actions/bit-convert",
            **{key: str(self.folder / file) for key, file in places.items()},
            **{key: self.filled(text) for key, text in step["env"].items()},
        }
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        result = subprocess.run(words, cwd=self.folder, env=environment, capture_output=True, text=True)
        self.context |= {f"steps.audit.outputs.{key}": value for key, value in self.outputs.items()}
        return result

    def filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.context[found[1]], text)

    @property
    def outputs(self) -> Mapping[str, str]:
        path = self.folder / "output"
        return dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.exists() else {}


@pytest.fixture(scope="module")
def ports(checkpoint, tmp_path_factory) -> Path:
    """A good port and one with two tensors swapped, in a layout that needs no other library."""
    place = tmp_path_factory.mktemp("ports")
    converted(checkpoint, place / "good", "--layout", "original")
    shutil.copytree(place / "good", place / "bad")
    stored = load_file(place / "bad" / "model.safetensors")
    one, other = [name for name in stored if name.endswith(("gn2.weight", "gn2.bias"))][:2]
    stored[one], stored[other] = stored[other], stored[one]
    save_file(stored, place / "bad" / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_shell_and_take_what_they_need_from_their_environment(name):
    result = subprocess.run(["bash", "-n", "-c", STEPS[name]["run"]], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "${{" not in STEPS[name]["run"], "what somebody else wrote would be run"


def test_inputs_and_outputs_are_described_and_used():
    assert {name for name, each in ACTION["inputs"].items() if each.get("required")} == {"target", "against"}
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert {found[1] for found in re.finditer(r"inputs\.(\w+)", text)} == {*ACTION["inputs"]}
    assert all(each["description"] for each in [*ACTION["inputs"].values(), *ACTION["outputs"].values()])
    workflow = yaml.safe_load((ROOT / "examples" / "audit.yml").read_text(encoding="utf-8"))
    (used,) = [each for each in workflow["jobs"]["audit"]["steps"] if "bit-convert/" in each["uses"]]
    assert {"target", "against"} <= {*used["with"]} <= {*ACTION["inputs"]}
    assert workflow["permissions"]["pull-requests"] == "write"


@pytest.mark.parametrize(
    ("inputs", "installed"),
    [
        ({}, "bit-convert[transformers,timm] @ file:///runner/_actions/bit-convert"),
        (
            {"version": "v0.1.0", "extras": ""},
            "bit-convert @ git+https://github.com/bit-convert/bit-convert@v0.1.0",
        ),
    ],
)
def test_what_is_installed_is_the_version_that_was_asked_for(tmp_path, inputs, installed):
    runner = Runner(tmp_path / "job", target="model", against="BiT-digits", **inputs)
    assert runner.step("Install bit-convert").returncode == 0
    assert (tmp_path / "job" / "pip").read_text() == f"-m pip install --quiet {installed}\n"


@pytest.mark.slow
@pytest.mark.parametrize(("port", "verdict", "status"), [("good", "passed", 0), ("bad", "failed", 1)])
def test_an_audit_gives_its_verdict_and_a_comment(ports, checkpoint, tmp_path, port, verdict, status):
    runner = Runner(tmp_path / "job", target=str(ports / port), against=str(checkpoint), options="--inputs default")
    assert runner.step("Audit").returncode == 0
    report = Path(runner.outputs["report"])
    assert runner.outputs == {"verdict": verdict, "report": str(report), "status": str(status)}
    assert json.loads((report / "parity.json").read_text())["verdict"] == verdict
    summary = (tmp_path / "job" / "summary.md").read_text()
    assert summary.startswith(f"## {port} against {checkpoint.name}\n")
    assert set(re.findall(r"\]\(([^)]*)\)", summary.replace("[![", "["))) == {
        f"https://img.shields.io/badge/parity-{verdict}-{'brightgreen' if status == 0 else 'red'}",
        RUN,
    }
    assert runner.step("Comment").returncode == 0
    asked, made = (tmp_path / "job" / "calls").read_text().splitlines()
    assert asked.startswith("api --paginate repos/me/port/issues/5/comments --jq ")
    assert made == f"api --silent repos/me/port/issues/5/comments --field body=@{report}/comment.md"
    assert (report / "comment.md").read_text() == f"<!-- bit-verify {ports / port} -->\n{summary}"
    runner.program("gh", f'printf "%s\\n" "$*" >> {runner.folder}/calls; if [ "$2" = --paginate ]; then echo 42; fi')
    assert runner.step("Comment").returncode == 0
    again = (tmp_path / "job" / "calls").read_text().splitlines()[-1]
    assert again == f"api --silent --method PATCH repos/me/port/issues/comments/42 --field body=@{report}/comment.md"
    assert runner.step("Verdict").returncode == status


@pytest.mark.slow
def test_what_cannot_be_audited_is_an_error_that_says_why(tmp_path):
    runner = Runner(tmp_path / "job", target="nothing", against="BiT-digits")
    assert runner.step("Audit").returncode == 0
    assert (runner.outputs["verdict"], runner.outputs["status"]) == ("error", "2")
    assert "no such folder" in (tmp_path / "job" / "summary.md").read_text()
    runner.program("gh", "exit 1")
    commented = runner.step("Comment")
    assert commented.returncode == 0
    assert "::warning::" in commented.stdout
    assert runner.step("Verdict").returncode == 2
