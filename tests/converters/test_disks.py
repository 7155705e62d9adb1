"""Full disks, and folders that cannot be written or must not be replaced: one line, before the work if possible."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converters.api import audit
from converters.api import convert as convert_in_python
from converters.cli.commands import verify
from converters.errors import UsageError
from tests.command_line import refused, run

Disk = Callable[[str], Path]


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert run("--checkpoint", checkpoint, "--output", folder, "--no-verify").exit_code == 0
    return folder


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """Mounts a file system of its own, of so many bytes; the test is skipped where this user may not."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_is_named_by_its_folder_and_nothing_is_left(checkpoint, disk):
    place = disk("size=128k")
    for output in (place / "model", place / "deep" / "model"):
        said = refused(2, "--checkpoint", checkpoint, "--output", output, "--no-verify")
        assert f"{output.parent}: cannot be written: No space left on device." in said
        assert "--output" in said
    assert left(place) == ["deep"]
    assert left(place / "deep") == []


def test_a_full_disk_of_reports_is_named_by_its_folder(checkpoint, converted, disk):
    place = disk("size=8k")
    words = (converted, "--against", checkpoint, "--report", place / "parity")
    assert f"{place / 'parity'}: cannot be written: No space left" in refused(2, *words, command=verify)


def test_a_full_temporary_folder_is_named_as_such(converted, disk, monkeypatch, tmp_path):
    import tarfile
    import tempfile

    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(converted, "model")
    place = disk("size=64k")
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    said = refused(2, "--checkpoint", tmp_path / "model.tar.gz", "--output", tmp_path / "model")
    assert said.startswith(f"bit-convert: {place}: cannot be written: No space left on device.")
    assert "TMPDIR" in said
    assert left(place) == []


def test_a_mount_point_is_refused_before_the_work_and_may_hold_many(checkpoint, disk, tmp_path):
    place = disk("size=4m")
    for options in ((), ("--force",), ("--no-verify",)):
        start = time.thread_time()
        said = refused(2, "--checkpoint", tmp_path / "not opened.npz", "--output", place, *options)
        assert "is a mount point" in said
        assert time.thread_time() - start < 2
    assert run("--checkpoint", checkpoint, "--output", place / "model", "--no-verify").exit_code == 0
    assert left(place) == ["model"]


@pytest.mark.parametrize("kind", ["folder", "file", "deep"])
def test_force_does_not_replace_a_repository(kind, checkpoint, tmp_path):
    place = tmp_path / "model"
    git = place / ("a/b/.git" if kind == "deep" else ".git")
    git.parent.mkdir(parents=True)
    git.write_text("gitdir: elsewhere") if kind == "file" else git.mkdir()
    said = refused(2, "--checkpoint", checkpoint, "--output", place, "--force")
    assert str(git) in said
    assert git.exists()
    with pytest.raises(UsageError, match="holds a git repository"):
        convert_in_python(checkpoint=checkpoint, output=place, force=True)


def unwritable(tmp_path: Path, disk: Disk) -> Iterator[Path]:
    (tmp_path / "file").write_text("")
    yield tmp_path / "file" / "parity"
    (tmp_path / "taken" / "parity.json").mkdir(parents=True)
    yield tmp_path / "taken"
    place = disk("size=4k")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    yield place
    yield place / "a" / "b"


def test_a_report_that_cannot_be_written_is_said_before_the_work(tmp_path, disk, monkeypatch):
    for place in unwritable(tmp_path, disk):
        start = time.thread_time()
        said = refused(2, "hf://me/never-asked-for", "--against", "BiT-digits", "--report", place, command=verify)
        assert str(place) in said
        assert "--report" in said
        with pytest.raises(UsageError, match="cannot be written"):
            audit("hf://me/never-asked-for", against="BiT-digits", report=place)
        assert time.thread_time() - start < 5


def test_a_checkpoint_that_is_missing_is_said_before_the_work(tmp_path):
    for against in ("BiT-M-R51x1", str(tmp_path / "none.npz")):
        words = ("hf://me/never-asked-for", "--against", against, "--report", tmp_path / "parity")
        assert f"{against}: no such file" in refused(2, *words, command=verify)
        with pytest.raises(UsageError, match="no such file"):
            audit("hf://me/never-asked-for", against=against)
    assert left(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.slow
def test_a_user_without_a_home_can_convert_and_audit(checkpoint, tmp_path):
    import sys

    (tmp_path / "here").mkdir()
    for folder in (*tmp_path.parents[:2], tmp_path, checkpoint.parent):
        os.chmod(folder, 0o777)
    os.chmod(tmp_path / "here", 0o777)
    root = Path(__file__).parents[2]

    def as_nobody(command: str, *words: object) -> subprocess.CompletedProcess:
        program = f"import sys; sys.path.insert(0, {str(root)!r}); from converters.cli import {command}; {command}()"
        return subprocess.run(
            [sys.executable, "-c", program, *map(str, words)],
            cwd=tmp_path / "here",
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path / "here")},
            user=12345,
            group=12345,
            extra_groups=[],
            capture_output=True,
            text=True,
        )

    try:
        reached = as_nobody("convert", "--version").returncode == 0
    except PermissionError:
        reached = False
    if not reached:
        pytest.skip("another user may not read this Python, or this folder")
    for status, *words in (
        (0, "convert", "-q", "--checkpoint", checkpoint, "--output", "model"),
        (0, "convert", "-q", "--checkpoint", checkpoint, "--output", "model", "--force"),
        (0, "verify", "-q", "model", "--against", checkpoint),
        (2, "convert", "--variant", "BiT-M-R50x1", "--offline"),
        (
            2,
            "convert",
            "--variant",
            "BiT-digits",
            "--no-verify",
            "--output",
            "~nobody-here/x",
            "--hub",
            "~/x",
            "--push",
        ),
        (4, "convert", "--checkpoint", "hf://me/model", "--offline"),
    ):
        result = as_nobody(*words)
        assert result.returncode == status, result.stderr
        assert len(result.stderr.splitlines()) <= 2
