"""Follows docs/new-scheme.md to the letter on a copy of the package: an eighth scheme is a column and a reader."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import converters
from tests.checkpoints import make_checkpoint
from tests.converters.sources.writers import to_big_vision

PAGE = Path(__file__).parents[2] / "docs/new-scheme.md"
PLACE = r"(?:, at the end of `(\w+)`|, among the imports)?"
STEP = re.compile(r"(?:[Ii]n|A new file,) `(converters/[^`]+)`" + PLACE + r":\n\n```python\n(.*?)```", re.S)
READ = """
import sys
from pathlib import Path
import numpy as np
from converters.sources import open_checkpoint
with open_checkpoint(Path(sys.argv[1])) as source:
    np.savez(sys.argv[2], **{name: source.read(name) for name in source.shapes})
    print(source.format, source.scheme, source.architecture)
"""


def steps() -> list[tuple[str, str, str]]:
    """(file, name of a table or empty, code)"""
    return STEP.findall(PAGE.read_text(encoding="utf-8"))


def end_of(table: str, text: str) -> int:
    """Where the last element of a tuple at the top level of a module ends: before its closing bracket."""
    for node in ast.parse(text).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == table:
            lines = text.encode().splitlines(keepends=True)
            before = b"".join(lines[: node.value.end_lineno - 1])
            return len((before + lines[node.value.end_lineno - 1][: node.value.end_col_offset]).decode()) - 1
    raise AssertionError(f"no {table}")


def follow(package: Path) -> None:
    for file, table, code in steps():
        path = package / file
        if not path.exists():
            path.write_text(code, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8")
        if table:
            at = end_of(table, text)
            comma = "" if text[:at].rstrip().endswith(",") else ","
            text = f"{text[:at].rstrip()}{comma}\n{code}{text[at:]}"
        else:
            last = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)][-1]
            lines = text.splitlines(keepends=True)
            text = "".join([*lines[: last.end_lineno], code, *lines[last.end_lineno :]])
        path.write_text(text, encoding="utf-8")


def run(package: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", READ, *map(str, arguments)]
    return subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page supposes: a folder of .npy files under bit_jax's names."""
    made = tmp_path / "checkpoint"
    made.mkdir()
    for name, value in to_big_vision(make_checkpoint((1, 2), 32, 3)).items():
        name = f"conv_{name}" if name.startswith("head/") else name
        np.save(made / (name.replace("/", ".") + ".npy"), value)
    return made


def test_the_page_has_its_five_steps() -> None:
    assert [(file, table) for file, table, _ in steps()] == [
        ("converters/mapping/names.py", "COLUMNS"),
        ("converters/mapping/layouts.py", "READ_ONLY"),
        ("converters/sources/npy_folder.py", ""),
        ("converters/sources/__init__.py", ""),
        ("converters/sources/__init__.py", "READERS"),
    ]


def test_following_the_page_reads_the_eighth_kind_of_checkpoint(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(
        Path(converters.__file__).parent, tmp_path / "converters", ignore=shutil.ignore_patterns("digits", "labels")
    )
    before = run(tmp_path, folder, tmp_path / "out.npz")
    assert "the folder holds block1.unit01" in before.stderr
    follow(tmp_path)
    after = run(tmp_path, folder, tmp_path / "out.npz")
    assert after.stderr == ""
    assert after.stdout.strip() == "npy-folder bit_jax R11x0.5 (units 1-2, root width 32), 3 classes"
    with np.load(tmp_path / "out.npz") as got:
        expected = make_checkpoint((1, 2), 32, 3)
        assert list(got) == list(expected)
        assert all(got[name].tobytes() == value.tobytes() for name, value in expected.items())
    (folder / "norm-pre-head.bias.npy").unlink()
    assert "in the bit_jax scheme: 1 missing: norm-pre-head.bias" in run(tmp_path, folder, tmp_path / "out.npz").stderr
