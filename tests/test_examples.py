"""The examples work: files parse, scripts are shell, and every command in them is one that the command line takes."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from converters.cli.commands import convert, verify
from tests.command_line import run

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {"bit-convert": convert, "bit-verify": verify}
VARIABLES = {
    "matrix.part": "3",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "plan": "bit.toml",
    "SCRATCH": "scratch",
}
"""What stands in the examples for what is known when they run."""
PLAN = EXAMPLES / "bit.toml"
VARIABLE = re.compile(r"\$\{\{ *([\w.]+) *\}\}|\$\{?(\w+)\}?")


def texts() -> Iterator[tuple[str, str]]:
    """Every command of an example, as a line of a shell."""
    for path in sorted(EXAMPLES.iterdir()):
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yml", ".yaml"):
            for content in yaml.safe_load_all(text):
                yield from ((path.name, each) for each in commands_in(content))
        for line in text.splitlines():
            found = re.search(r"(?:^#? *|srun )((?:bit-convert|bit-verify) --?.*)", line)
            if found and path.suffix not in (".yml", ".yaml"):
                yield path.name, found[1].partition("  #")[0].partition(": ")[0]


def commands_in(content: Any) -> Iterator[str]:
    """Those of a manifest: ``run: …`` of a workflow, ``command: [...]`` of a container."""
    if isinstance(content, list) and len(content) > 1 and str(content[0]) in COMMANDS:
        yield shlex.join(content)
    elif isinstance(content, str) and " -" in content and content.partition(" ")[0] in COMMANDS:
        yield content
    elif isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from commands_in(each)


FOUND = list(texts())


def test_every_example_has_a_command():
    assert {name for name, _ in FOUND} == {"bit.toml", "release.yml", "slurm.sh", "kubernetes.yaml"}
    assert len(FOUND) >= 7


@pytest.mark.parametrize(("name", "line"), FOUND, ids=lambda value: value[:60])
def test_every_command_is_one(name, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    filled = VARIABLE.sub(lambda found: VARIABLES[found[1] or found[2]], line)
    command, *words = shlex.split(filled)
    words = [str(PLAN) if word.endswith("bit.toml") else word for word in words]
    if command == "bit-verify":
        assert COMMANDS[command].make_context(command, words).params["plan"] == PLAN
        return
    result = run(*words, *(["--dry-run"] if "--dry-run" not in words else []))
    assert result.exit_code == 0, result.output
    assert re.search(r"^models +[0-9]+$", result.stdout, re.M)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_shell(path):
    result = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_workflow_uses_one_plan_in_parts_that_are_all_of_it():
    workflow = yaml.safe_load((EXAMPLES / "release.yml").read_text())
    parts = workflow["jobs"]["release"]["strategy"]["matrix"]["part"]
    count = {int(found) for found in re.findall(r"}}/(\d+)", (EXAMPLES / "release.yml").read_text())}
    assert (parts, count) == ([*range(1, len(parts) + 1)], {len(parts)})


def test_manifests_name_one_image_and_one_address():
    text = (EXAMPLES / "kubernetes.yaml").read_text()
    documents = list(yaml.safe_load_all(text))
    services = {each["metadata"]["name"] for each in documents if each["kind"] == "Service"}
    assert set(re.findall(r"tcp://([\w-]+):8786", text)) == services
    containers = [
        container
        for each in documents
        if "template" in each["spec"]
        for container in each["spec"]["template"]["spec"]["containers"]
    ]
    assert {container["image"] for container in containers} == {"bit-convert"}
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in documents if "template" in each["spec"]]
    assert {label["app"] for label in labels} == {"bit-convert"}


def test_the_image_installs_what_the_manifests_run():
    text = (EXAMPLES / "Containerfile").read_text()
    assert "/src[dask]" in text
    steps = [line.split()[0] for line in text.splitlines() if line and line[0].isupper()]
    assert steps[0] == "FROM"
    assert {"COPY", "RUN", "USER", "CMD"} <= {*steps}
