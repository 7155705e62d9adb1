"""The distributions: the wheel in an environment of its own, the sdist as it is tested, the same bytes each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def site_packages(python: str | Path) -> Path:
    code = "import site; print(site.getsitepackages()[0])"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory) -> Path:
    """A new environment with the wheel; the libraries it needs are those of this environment, by a path file.

    Installing torch again would take minutes; nothing of this checkout is on the path.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)
    # A line that is a path is added; the path file of this checkout's own editable install is not read through it.
    (site_packages(python) / "libraries.pth").write_text(f"{site_packages(sys.executable)}\n")
    return folder


def test_wheel_holds_the_packages_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "bit_ref/model.py",
        "verify/oracles/numpy/oracle.py",
        "converters/catalogue/released.csv",
        "converters/folder/card.md.jinja",
        "verify/report/parity.md.jinja",
        "converters/catalogue/digits/BiT-digits.npz",
        "converters/catalogue/labels/imagenet21k_ids.txt.gz",
        "bit_ref/py.typed",
    ):
        assert name in names, name
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
    tracked = {
        path.relative_to(ROOT).as_posix()
        for package in ("bit_ref", "converters", "verify")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tracked <= names, tracked - names


def test_wheel_converts_from_another_folder(environment: Path, tmp_path: Path) -> None:
    def run(*command: object) -> str:
        result = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    where = run(environment / "bin" / "python", "-c", "import bit_ref; print(bit_ref.__file__)")
    assert where.startswith(str(environment))
    out = run(environment / "bin" / "bit-convert", "--variant", "BiT-digits", "--push", "--hub", "hub", "--json")
    (result,) = json.loads(out)["results"]
    assert result["report"]["passed"] is True
    assert result["publication"]["changed"] is True
    audit = (environment / "bin" / "bit-verify", "models/BiT-digits", "--against", "BiT-digits", "--report", "parity")
    assert "passed" in run(*audit)


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> list[Path]:
    """Two folders with sdist and wheel, each built of its own clone: another umask, time zone and age of files."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    folders = []
    for umask, zone, age in ((0o022, "UTC", 0), (0o077, "Asia/Tokyo", 10**8)):
        place = tmp_path_factory.mktemp("clone")
        subprocess.run(["git", "clone", "--quiet", ROOT, place / "clone"], check=True, umask=umask)
        for path in (place / "clone").rglob("*"):
            os.utime(path, (time.time() - age,) * 2)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", place / "clone"]
        subprocess.run(command, check=True, capture_output=True, umask=umask, env=environment | {"TZ": zone})
        folders.append(place / "dist")
    return folders


def test_two_builds_are_the_same_bytes(twice: list[Path]) -> None:
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in twice)
    assert len(first) == 2
    assert [name for name in first if first[name] != second.get(name)] == []


def test_files_have_the_time_of_the_last_commit_and_plain_modes(twice: list[Path]) -> None:
    said = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], check=True, capture_output=True, text=True)
    (wheel,), (sdist,) = twice[1].glob("*.whl"), twice[1].glob("*.tar.gz")
    committed = time.gmtime(int(said.stdout) // 2 * 2)[:6]  # a zip counts pairs of seconds
    for member in zipfile.ZipFile(wheel).infolist():
        assert (member.date_time, member.external_attr >> 16 & 0o777) == (committed, 0o644)
    with tarfile.open(sdist) as archive:
        assert {member.mtime for member in archive} == {int(said.stdout)}
        assert {member.mode for member in archive if member.isfile()} <= {0o644, 0o755}


def test_sdist_is_whole_and_tests_run_from_it(twice: list[Path], tmp_path: Path) -> None:
    (sdist,) = twice[0].glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True, text=True)
    tracked = {name for name in listed.stdout.split("\0") if name}
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == {*tracked, "PKG-INFO"}
    environment = os.environ | {"PYTHONPATH": str(root)}

    def run(*arguments: str) -> str:
        result = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    assert run("-c", "import converters; print(converters.__file__)").startswith(str(root))
    tests = ("tests/test_project.py", "tests/converters/test_names.py", "tests/bit_ref/test_config.py")
    assert " passed" in run("-m", "pytest", "--quick", "-n", "0", "-q", "-p", "no:cacheprovider", *tests)
