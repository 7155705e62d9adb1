"""Output folders that appear whole or not at all.

A folder is made under a temporary name beside its place and renamed into it when it is complete and on disk. While it
is being made its maker holds a lock on it, so that a leftover of an interrupted run is told from the work of another
process: leftovers are removed by the next run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from converters.errors import UsageError
from converters.files import PARITY, fsync

UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
"""Errors of writing to an open file, in which the system names no file."""

RANDOM = "[0-9a-f]{8}"
PARTIAL = re.compile(rf"\..*\.partial-{RANDOM}", re.DOTALL)
TEMPORARY = re.compile(rf"bit-(convert|verify)-{RANDOM}")


def refuse_place(place: Path, force: bool) -> None:
    """Raises UsageError for what can never be replaced by a folder, ``force`` or not; an empty one needs no force."""
    if _is_no_folder(place):
        raise UsageError(f"{place}: is not a folder. Choose another with --output.")
    if os.path.ismount(place):
        raise UsageError(f"{place}: is a mount point, which cannot be replaced. Choose a folder in it with --output.")
    is_replaced = force or _is_empty(place)
    if is_replaced and any(here.resolve().is_relative_to(place.resolve()) for here in _needed_folders()):
        raise UsageError(f"{place}: holds the working or home directory and is not replaced. Choose another --output.")
    if force and (repository := _repository_in(place)) is not None:
        raise UsageError(
            f"{place}: holds a git repository, {repository}, and is not replaced. Choose another --output."
        )


def _is_no_folder(place: Path) -> bool:
    """Whether there is something else, a link included; asked once, since another run may be replacing it."""
    try:
        return not stat.S_ISDIR(place.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _is_empty(place: Path) -> bool:
    try:
        return not any(place.iterdir())
    except OSError:
        return False


def _repository_in(place: Path) -> Path | None:
    """A git repository somewhere in a folder, looked for again where another run replaces it meanwhile."""
    while True:
        with suppress(FileNotFoundError):
            return next(place.rglob(".git"), None)


def refuse_unwritable(folder: Path, option: str) -> None:
    """Raises UsageError where ``folder``, with what is missing on the way to it, cannot be made or written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        if (folder / PARITY).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / PARITY))
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}. Choose another with {option}.") from error


@contextmanager
def writing_to(folder: Path, remedy: str, made: Path | None = None) -> Iterator[None]:
    """Inside, what the system refuses to write without saying where, or in the folder that was ``made``, is an error of
    ``folder``, a UsageError."""
    try:
        yield
    except OSError as error:
        is_here = error.filename is None or (made is not None and str(error.filename).startswith(str(made)))
        if not is_here or error.errno not in UNWRITABLE:
            raise
        raise UsageError(f"{folder}: cannot be written: {error.strerror}. {remedy}") from error


@contextmanager
def workspace(place: Path) -> Iterator[Path]:
    """A new, empty folder beside ``place``, on the same file system; removed on the way out unless installed.

    Raises UsageError where it cannot be made, and inside, where nothing more can be written to it.
    """
    try:
        made = LockedFolder(place.parent, f".{place.name}.partial-")
    except OSError as error:
        raise UsageError(
            f"{place.parent}: cannot be written: {error.strerror}. Choose another folder with --output."
        ) from error
    with writing_to(place.parent, "Make room, or choose another folder with --output.", made.path), made as folder:
        yield folder


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new, empty folder among the system's temporary files, of this user alone, removed on the way out.

    Raises UsageError, naming the place, where it cannot be made, or inside, where nothing more can be written to it.
    """
    place, remedy = Path("the temporary folder"), "Set TMPDIR to a folder that has room."
    try:
        place = Path(tempfile.gettempdir())
        made = LockedFolder(place, prefix, 0o700)
    except OSError as error:
        raise UsageError(f"{place}: cannot be written: {error.strerror}. {remedy}") from error
    with writing_to(place, remedy, made.path), made as folder:
        yield folder


@contextmanager
def openable(folder: Path) -> Iterator[Path]:
    """The folder by a path that any library can open: itself, or a link where its own is no UTF-8.

    Libraries in Rust and C++ take paths as UTF-8; a path of other bytes is no text for them.
    """
    if _is_text(folder):
        yield folder
        return
    with temporary_folder("bit-verify-") as temporary:
        link = temporary / (re.sub(r"[^A-Za-z0-9._-]+", "_", folder.name) or "model")
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def _is_text(path: Path) -> bool:
    """Whether Python's text of the path, as UTF-8, is the path's own bytes."""
    try:
        return os.fspath(path).encode() == os.fsencode(path)
    except UnicodeEncodeError:
        return False


def install(folder: Path, place: Path) -> None:
    """Puts a finished folder in its place, in one step; what was there before is removed.

    Files are flushed to disk first, so that not even a crash leaves a folder that only looks finished.
    """
    for path in [*folder.rglob("*"), folder]:
        fsync(path)
    aside = folder.with_name(f"{folder.name.rpartition('-')[0]}-{token_hex(4)}")  # as if it were made: a leftover
    while True:
        with suppress(FileNotFoundError):
            place.rename(aside)
        try:
            folder.rename(place)
            break
        except OSError as error:  # another thread or process has put its own there meanwhile
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        shutil.rmtree(aside, ignore_errors=True)
    fsync(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _needed_folders() -> Iterator[Path]:
    yield Path.cwd()
    with suppress(RuntimeError):  # a user without a home
        yield Path.home()


class LockedFolder:
    """A new, empty folder in ``parent`` that is locked until it is released or this process ends, by which others see
    that it is in use. Inside ``with``, its path; released on the way out."""

    def __init__(self, parent: Path, prefix: str, mode: int = 0o777) -> None:
        """``mode`` is by default that of a folder that the user makes. Raises OSError where there can be none."""
        parent.mkdir(parents=True, exist_ok=True)
        self._parent, self._pattern = parent, re.compile(re.escape(prefix) + RANDOM)
        _remove_leftovers(parent, self._pattern)
        while True:
            self.path = parent / (prefix + token_hex(4))
            self.path.mkdir(mode)
            # Between its making and its locking another thread or process may take it for a leftover, and remove it.
            try:
                self._lock = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self.path.exists():
                return
            os.close(self._lock)

    def count(self) -> int:
        """The number of such folders that are in use, this one among them; raises OSError."""
        _remove_leftovers(self._parent, self._pattern)
        return sum(self._pattern.fullmatch(path.name) is not None for path in self._parent.iterdir())

    def release(self) -> None:
        """Removes it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.release()


def remove_leftovers(place: Path) -> None:
    """Removes what killed processes left half made beside ``place`` and among the system's temporary files."""
    for parent, pattern in ((place.parent, PARTIAL), (Path(tempfile.gettempdir()), TEMPORARY)):
        with suppress(OSError):
            _remove_leftovers(parent, pattern)


def _remove_leftovers(parent: Path, pattern: re.Pattern[str]) -> None:
    for leftover in (path for path in parent.iterdir() if pattern.fullmatch(path.name)):
        with suppress(OSError):
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(lock)
