"""What surrounds the code: one version and one address, help of make, one clear line on Windows."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from converters.cli.commands import convert, verify
from tests.command_line import refused

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("command", [convert, verify], ids=lambda command: command.name)
@pytest.mark.parametrize("arguments", [["BiT-digits"], ["--help"], ["--debug"]], ids=" ".join)
def test_windows_gets_one_clear_line(command, arguments, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    (line,) = refused(2, *arguments, command=command).splitlines()
    assert line.startswith(f"{command.name}: needs Linux or macOS")


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_windows_gets_it_before_anything_that_windows_does_not_have(command):
    program = f"""
import sys
import click, importlib.metadata, subprocess  # as on the system that they run on
sys.platform = "win32"
sys.modules.update(fcntl=None, resource=None, termios=None, pwd=None, grp=None)
from converters.cli.commands import {command}
{command}(["BiT-digits"])
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert "needs Linux or macOS" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_cited_is_this_version_at_this_address():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    for line in (
        f"title: {PROJECT['name']}",
        f"version: {PROJECT['version']}",
        f"license: {PROJECT['license']}",
        f"abstract: {PROJECT['description']}",
        f"repository-code: {PROJECT['urls']['Repository']}",
    ):
        assert line in lines


def test_every_target_of_make_is_listed_by_make():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = (line for line in makefile.splitlines() if line.startswith(".PHONY:"))
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony.split()[1:]:
        assert f"\n  {target} " in listed


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_extras_that_extras_ask_for_are_there(extra):
    for requirement in PROJECT["optional-dependencies"][extra]:
        if requirement.startswith(PROJECT["name"]):
            named = requirement.partition("[")[2].rstrip("]").split(",")
            assert set(named) <= set(PROJECT["optional-dependencies"])
