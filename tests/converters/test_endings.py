"""How commands end: defects, signals, a reader that has gone, names that no encoding has."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from converters.cli import runs
from converters.cli.commands import convert, verify
from converters.release import one
from tests.command_line import refused, run

ISSUES = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["urls"]["Issues"]
PROGRAM = (
    "import sys; from converters.cli import progress, {command}; progress.FIRST = float('inf'); {command}(sys.argv[1:])"
)


def strict(text: str) -> dict:
    return json.loads(text, parse_constant=lambda token: pytest.fail(token))


def raising(error: BaseException):
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# What nobody foresaw


@pytest.mark.parametrize(
    "error", [KeyError("x\x1b"), RecursionError(), ZeroDivisionError("division by zero")], ids=repr
)
def test_a_defect_is_70_in_two_lines_that_say_where_to_report_it(error, checkpoint, monkeypatch, tmp_path):
    for module, name, command, words in (
        (one, "convert", convert, ["--checkpoint", checkpoint, "--output", tmp_path / "model"]),
        (runs, "audit_target", verify, [tmp_path, "--against", checkpoint, "--report", tmp_path / "report"]),
    ):
        monkeypatch.setattr(module, name, raising(error))
        said = refused(70, *words, command=command)
        for part in (type(error).__name__, version("bit-convert"), "--debug", ISSUES):
            assert part in said
        assert "Traceback" not in said
        result = run(*words, "--json", "--debug", command=command)
        assert result.exit_code == 70
        assert "Traceback" in result.stderr
        assert "\x1b" not in result.stderr
        content = strict(result.stdout)
        assert content["exit_status"] == 70
        assert type(error).__name__ in str(content)


def test_a_defect_ends_one_job_and_not_the_others(tmp_path, monkeypatch):
    def fail_once(request, progress):
        monkeypatch.undo()
        raise KeyError("first")

    monkeypatch.setattr(one, "convert", fail_once)
    result = run("--variant", "BiT-[Md]*R50x1", "--offline", "--json", "--output", tmp_path / "models")
    assert result.exit_code == 70
    states = [entry["exit_status"] for entry in strict(result.stdout)["results"]]
    assert states[0] == 70
    assert set(states[1:]) <= {0, 4}


@pytest.mark.parametrize("error", [MemoryError(), np.exceptions.AxisError("x"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_no_defect(error, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(one, "convert", raising(error))
    status = 70 if isinstance(error, np.exceptions.AxisError) else 2
    said = refused(status, "--checkpoint", checkpoint, "--output", tmp_path / "model")
    assert ("not enough memory" in said) == (status == 2)


@pytest.mark.parametrize(
    ("words", "status"), [(["--bogus"], 2), (["--variant", "nothing"], 2), (["--checkpoint", "none.npz"], 3)]
)
def test_every_error_is_json_too_where_json_was_asked_for(words, status):
    result = run(*words, "--json")
    assert result.exit_code == status
    content = strict(result.stdout)
    assert content["exit_status"] == status
    assert len(result.stderr.splitlines()) <= 2
    assert "release" in content


def test_errors_of_bit_verify_are_json_too():
    result = run("nowhere", "--against", "nothing", "--json", command=verify)
    assert strict(result.stdout)["exit_status"] == result.exit_code == 2


def test_interrupted_is_130_also_in_json(checkpoint, monkeypatch):
    monkeypatch.setattr(one, "convert", raising(KeyboardInterrupt()))
    assert "run it again" in refused(130, "--checkpoint", checkpoint)
    assert strict(run("--checkpoint", checkpoint, "--json").stdout)["exit_status"] == 130


# Signals and pipes


def start(command: str, *words: object, stdout=subprocess.PIPE, **environment: str) -> subprocess.Popen:
    program = [sys.executable, "-c", PROGRAM.format(command=command), *map(os.fspath, map(str, words))]
    return subprocess.Popen(
        program, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace", env={**os.environ, **environment}
    )


def test_terminated_is_143_and_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def terminate(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)

    monkeypatch.setattr("converters.conversion.model.write", terminate)
    said = refused(143, "--checkpoint", checkpoint, "--output", tmp_path / "out" / "model")
    assert "terminated" in said
    assert list((tmp_path / "out").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is not None


@pytest.mark.parametrize(
    "words", [["--list"], ["--help"], ["BiT-M-R50x1", "--dry-run", "--json"], ["--bogus", "--json"]]
)
def test_a_reader_that_has_gone_is_no_error(words):
    process = start("convert", *words)
    process.stdout.close()
    said = process.stderr.read()
    assert "Traceback" not in said
    assert "Exception" not in said
    assert process.wait(60) == (2 if "--bogus" in words else 141), said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_stdout_on_a_full_disk_is_said():
    with open("/dev/full", "w") as full:
        process = start("convert", "--list", stdout=full)
        assert "standard output cannot be written: No space left" in process.stderr.read()
    assert process.wait(30) == 2


# Names


ODD = "mod\udcffel-\u00e8\u65e5\x1b[31m\u202e"
"""Not UTF-8, not ASCII, not latin-1, and with what a terminal obeys."""
ONE_AFTER_THE_OTHER = """
import sys
from itertools import groupby
from converters.cli import convert, progress, verify
progress.FIRST = float("inf")
for command, *words in [[*words] for ends, words in groupby(sys.argv[1:], ";".__eq__) if not ends]:
    try:
        {"convert": convert, "verify": verify}[command](words)
    except SystemExit as end:
        print("\\f", end.code, "\\f", flush=True)
        print("\\f", file=sys.stderr, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["UTF-8", "C", "ASCII", "latin-1"],
)
def test_any_name_survives(environment, checkpoint, tmp_path):
    """Each command in each encoding; what it proves has no part in that, so a conversion proves nothing here, and the
    layout is one that an audit imports no transformers for."""
    source, folder = tmp_path / f"{ODD}.npz", tmp_path / ODD
    shutil.copy(checkpoint, source)
    converting = ("convert", "--checkpoint", source, "--output", folder, "--layout", "original", "--no-verify")
    commands = (
        converting,
        (*converting, "--json"),
        ("verify", folder, "--against", source, "--report", tmp_path / "report", "--runner", "bit_ref"),
        ("convert", "--checkpoint", folder / "none", "--json"),
    )
    words = [os.fspath(word) for command in commands for word in (*command, ";")]
    process = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, *words],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        timeout=200,
    )
    assert process.returncode == 0, process.stderr
    printed, said = process.stdout.split("\f"), process.stderr.split("\f")
    assert [int(text) for text in printed[1::2]] == [0, 0, 0, 3], process.stderr
    for out, err in zip(printed[::2], said, strict=True):
        assert "\x1b" not in out + err
        assert "\u202e" not in out + err
        assert len(err.splitlines()) <= 2
    found = strict(printed[2])["results"][0]["folder"]
    assert os.fsencode(found) == os.fsencode(folder)
    strict(printed[6])
    strict((tmp_path / "report" / "parity.json").read_text(encoding="utf-8"))
