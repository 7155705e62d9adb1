"""The wheel, in an environment of its own and from another folder: the packages, their data, both commands."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
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
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    # A line that is a path is added; the path file of this checkout's own editable install is not read through it.
    (site_packages(python) / "libraries.pth").write_text(f"{site_packages(sys.executable)}\n")
    return folder


def test_wheel_holds_the_packages_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "bit_ref/model.py",
        "verify/oracles/numpy.py",
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
