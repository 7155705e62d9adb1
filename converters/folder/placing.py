"""Output folders that appear whole or not at all.

A folder is made under a temporary name beside its place and renamed into it when it is complete and on disk. While it
is being made its maker holds a lock on it, so that a leftover of an interrupted run is told from the work of another
process: leftovers are removed by the next run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
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
    prefix = f".{place.name}.partial-"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(place.parent, prefix)
        folder, lock = _locked_folder(place.parent, prefix)
    except OSError as error:
        raise UsageError(
            f"{place.parent}: cannot be written: {error.strerror}. Choose another folder with --output."
        ) from error
    try:
        yield folder
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


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = parent / (prefix + token_hex(4))
        folder.mkdir()  # with the permissions of a folder that the user makes
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
            lock = os.open(leftover, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)
