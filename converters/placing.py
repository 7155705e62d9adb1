"""Output folders that appear whole or not at all.

A folder is made under a temporary name beside its place and renamed into it when it is complete and on disk. While it
is being made its maker holds a lock on it, so that a leftover of an interrupted run is told from the work of another
process: leftovers are removed by the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from converters.errors import UsageError
from converters.files import fsync


@contextmanager
def workspace(place: Path) -> Iterator[Path]:
    """A new, empty folder beside ``place``, on the same file system; removed on the way out unless installed.

    Raises UsageError where it cannot be made.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _locked_folder(place.parent, f".{place.name}.partial-")
    except OSError as error:
        raise UsageError(
            f"{place.parent}: cannot be written: {error.strerror}. Choose another folder with --output."
        ) from error
    with _held(folder, lock):
        yield folder


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new, empty folder among the system's temporary files, of this user alone, removed on the way out.

    Raises UsageError, naming the place, where it cannot be made, or inside, where nothing more can be written to it.
    """
    place = "the temporary folder"
    try:
        place = tempfile.gettempdir()
        folder, lock = _locked_folder(Path(place), prefix, 0o700)
        with _held(folder, lock):
            yield folder
    except OSError as error:
        raise UsageError(
            f"{place}: cannot be written: {error.strerror}. Set TMPDIR to a folder that has room."
        ) from error


@contextmanager
def _held(folder: Path, lock: int) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def install(folder: Path, place: Path) -> None:
    """Puts a finished folder in its place, in one step; what was there before is removed.

    Files are flushed to disk first, so that not even a crash leaves a folder that only looks finished.
    """
    for path in [*folder.rglob("*"), folder]:
        fsync(path)
    aside = folder.with_name(folder.name + "-replaced")
    if place.exists():
        place.rename(aside)
    folder.rename(place)
    fsync(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _locked_folder(parent: Path, prefix: str, mode: int = 0o777) -> tuple[Path, int]:
    """``mode`` is by default that of a folder that the user makes."""
    _remove_leftovers(parent, prefix)
    while True:
        folder = parent / (prefix + token_hex(4))
        folder.mkdir(mode)
        # Between its making and its locking another thread or process may take it for a leftover, and remove it.
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for leftover in (path for path in parent.iterdir() if path.name.startswith(prefix)):
        with suppress(OSError):
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)
