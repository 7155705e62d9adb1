"""The command lines as a user runs them, in this process or in one with an environment of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from converters.cli.commands import convert, verify
from tests.processes import python

DRIVER = """
import json, sys
from click.testing import CliRunner
from converters.cli import progress
from converters.cli.commands import convert, verify
from converters.download import retry
progress.FIRST = float("inf")
retry.UNANSWERED = 3.0  # or each test of a host that is not there waits for ten seconds
for command, *arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke({"convert": convert, "verify": verify}[command], arguments)
    print(json.dumps([result.exit_code, result.stdout, result.stderr]), flush=True)
"""


def run(*arguments: object, command=convert) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def converted(checkpoint: object, output: Path, *options: object) -> dict[str, Any]:
    """Converts; returns what ``--json`` says of it."""
    result = run("--checkpoint", checkpoint, "--output", output, "--json", "--quiet", *options)
    assert result.exit_code == 0, result.stdout + result.stderr
    (entry,) = json.loads(result.stdout)["results"]
    return entry


def audited(target: object, against: object, report: Path, *options: object) -> dict[str, Any]:
    """The report of ``bit-verify``, whatever its verdict."""
    result = run(target, "--against", against, "--report", report, "--json", "--quiet", *options, command=verify)
    assert result.exit_code in (0, 1), result.stderr
    content = json.loads(result.stdout)
    assert content["passed"] is (result.exit_code == 0)
    return content


def refused(status: int, *arguments: object, command=convert) -> str:
    """What a command that fails says: one or two lines on stderr, nothing on stdout."""
    result = run(*arguments, command=command)
    assert result.exit_code == status, result.stdout + result.stderr
    assert result.stdout == ""
    assert 1 <= len(result.stderr.splitlines()) <= 2, result.stderr
    return result.stderr


def elsewhere(*runs: tuple[object, ...], **environment: str) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of each command, ``("convert" | "verify", arguments …)``, in one fresh process:
    huggingface_hub reads its environment when it is imported."""
    commands = json.dumps([[str(word) for word in words] for words in runs])
    result = python(DRIVER, commands, environment={**os.environ, "HF_HUB_DISABLE_XET": "1", **environment})
    assert result.returncode == 0, result.stderr
    return [tuple(json.loads(line)) for line in result.stdout.splitlines()]


def published_files(folder: Path, repo_id: str) -> dict[str, bytes]:
    """What a repository holds of a folder: every file as it is, but for the card, which names the repository."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    card = found["README.md"].replace(b'"FOLDER"', f'"{repo_id}"'.encode())
    where = b"`FOLDER` is the folder that this card lies in", f"`{repo_id}` is this repository".encode()
    return found | {"README.md": card.replace(*where)}
