"""Follows docs/new-scheme.md to the letter on a copy of the package: an eighth scheme is a column and a reader."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converters
from converters.errors import BitConvertError
from converters.mapping.names import Column
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


def copy(package: Path) -> None:
    here, without = Path(converters.__file__).parent, shutil.ignore_patterns("digits", "labels")
    shutil.copytree(here, package / "converters", ignore=without)


def follow(package: Path, left_out: str = "none") -> None:
    """Does what the page says, but for one table."""
    for file, table, code in steps():
        if table == left_out:
            continue
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


def test_a_scheme_takes_as_many_files_and_lines_as_the_page_says() -> None:
    scheme = steps()[:2]
    lines = [line for _, _, code in scheme for line in code.splitlines() if line.strip() and line.strip()[0] != "#"]
    assert len({file for file, *_ in scheme}) == 2
    assert len(lines) == 10
    assert "takes two files, ten lines" in PAGE.read_text(encoding="utf-8")


BIT_JAX = Column(
    "bit_jax",
    root="root.kernel",
    unit="block{block}.unit{unit:02d}.",
    a=("gn1.scale", "gn1.bias", "conv1.kernel"),
    proj="conv_proj.kernel",
    b=("gn2.scale", "gn2.bias", "conv2.kernel"),
    c=("gn3.scale", "gn3.bias", "conv3.kernel"),
    norm=("norm.scale", "norm.bias"),
    head=("head.kernel", "head.bias"),
)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"unit": "block{blok}.unit{unit:02d}."}, "has the field {blok}; there are block, unit, stage, layer, bit"),
        ({"unit": "block{block.unit{unit:02d}."}, "is no template"),
        ({"unit": "unit{unit:02d}."}, "gives several units of a network one name"),
        ({"b": ("gn2.scale", "conv2.kernel")}, "b has 2 names, not 3"),
        ({"head": ("head.kernel",)}, "head has 1 names, not 2"),
        ({"c": ("gn2.scale", "gn3.bias", "conv3.kernel")}, "is the name of 2 rows"),
        ({"norm": ("norm.{scale}", "norm.bias")}, "has the field {scale}"),
        ({"root": "root.{}"}, "has the field {}"),
    ],
)
def test_a_wrong_column_is_named(wrong, words) -> None:
    with pytest.raises(BitConvertError, match=r"names\.py: column bit_jax: ") as raised:
        replace(BIT_JAX, **wrong)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("READ_ONLY", "layouts.py: column bit_jax: it has no layout in READ_ONLY."),
        ("COLUMNS", "layouts.py: column bit_jax: it has no column in converters/mapping/names.py."),
    ],
)
def test_a_column_without_a_layout_is_named_and_a_layout_without_a_column(tmp_path, folder, left_out, message) -> None:
    copy(tmp_path)
    follow(tmp_path, left_out)
    assert run(tmp_path, folder, tmp_path / "out.npz").stderr.splitlines()[-1].endswith(message)


def test_following_the_page_reads_the_eighth_kind_of_checkpoint(tmp_path: Path, folder: Path) -> None:
    copy(tmp_path)
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
