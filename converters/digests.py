"""Digests of files that were read before, remembered in the cache: nothing is written beside the files.

    path → its inode, size and times, as they were when it was read → sha256;  anything else → it is read

A folder that was held against its checkpoint, value by value, is remembered too, by what was compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from converters.errors import UsageError
from converters.files import cache_folder, read_record, sha256, write_whole

LARGE = 10 << 20
"""Bytes from which on a reading takes longer than ``SETTLED``."""
SETTLED = 0.1
"""Seconds that a file must have been left alone before it is read: a clock of the file system ticks more often."""

FileState = tuple[int, int, int, int] | None
"""Inode, size, times of modification and of change in nanoseconds."""

_IGNORED: ContextVar[bool] = ContextVar("ignored", default=False)


@dataclass
class _Record:
    """Everything that is remembered of one folder."""

    folder: str = ""
    files: dict[str, tuple[FileState, str]] = field(default_factory=dict)
    """Name → the state in which it was read, sha256."""
    compared: str = ""
    """The result that the whole folder was found to hold."""


def known_sha256(path: Path, stopped: Event | None = None) -> str:
    """The sha256 of a file, hexadecimal; the file is not read where it is as it was when it was last read.

    Raises InterruptedError once ``stopped``, from another thread.
    """
    before = state_of(path)
    digest = remembered_sha256(path, before)
    if not digest:
        digest = sha256(path, stopped)
        remember_file(path, digest, before)
    return digest


def remembered_sha256(path: Path, state: FileState) -> str:
    """The sha256 of a file in this state, where it was read in it before; empty otherwise."""
    before, digest = _load(path.parent).files.get(path.name) or (None, "")
    return digest if before == state else ""


def remember_file(path: Path, digest: str, before: FileState) -> None:
    """The file has this digest, if it is still in the state in which it was ``before`` it was read."""
    remember(path.parent, {path.name: digest}, {path.name: before})


def remember_made(folder: Path, digests: Mapping[str, str], states: Mapping[str, FileState]) -> None:
    """The files of ``folder``, made just now, have these digests where they are in these ``states``. The small ones are
    not remembered: to read them again takes less time than it takes until a file counts as left alone."""
    large = {name: state for name, state in states.items() if state is not None and state[1] > LARGE}
    if large:
        settled = max(state[3] for state in large.values()) / 1e9 + SETTLED
        time.sleep(min(SETTLED, max(0.0, settled - time.time())))
        remember(folder, {name: digests[name] for name in large}, large)


def remember(
    folder: Path, digests: Mapping[str, str], states: Mapping[str, FileState], compared: str | None = None
) -> None:
    """The files of ``folder`` have these digests where they are in these ``states``, and the whole of it holds the
    result ``compared``; None leaves what is remembered of that.

    Another process that remembers something at the same time may win: what is lost is read once more.
    """
    record = _load(folder)
    for name, digest in digests.items():
        before = states[name]
        if before is not None and state_of(folder / name) == before:
            record.files[name] = before, digest
        else:
            record.files.pop(name, None)
    made = _Record(os.path.realpath(folder), record.files, record.compared if compared is None else compared)
    with suppress(OSError, ValueError, UsageError):  # without a cache nothing is remembered
        place = _place(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps(vars(made)))


def is_remembered(folder: Path, compared: str) -> bool:
    """Whether the folder was found to hold this result. Its files' digests are to be asked for besides."""
    return _load(folder).compared == compared != ""


@contextmanager
def read_again() -> Iterator[None]:
    """Inside, in this thread, every file is read, whatever is remembered of it; what is found is remembered then."""
    token = _IGNORED.set(True)
    try:
        yield
    finally:
        _IGNORED.reset(token)


def result_name(*parts: object) -> str:
    """One text for a result that is told from others by ``parts``."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def states_of(folder: Path, names: Iterable[str]) -> dict[str, FileState]:
    """The states of files that are to be read."""
    return {name: state_of(folder / name) for name in names}


def private_states_of(folder: Path, names: Iterable[str]) -> dict[str, FileState]:
    """The states of files that nobody else writes to, since they are not in their place yet, or it is locked: their age
    does not matter."""
    return {name: _state(folder / name) for name in names}


def state_of(file: Path | int) -> FileState:
    """The state of a file, by its path or number, by which another content is noticed; None of one that was changed
    just now."""
    state = _state(file)
    return None if state is None or abs(time.time() - state[3] / 1e9) < SETTLED else state


def _state(file: Path | int) -> FileState:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _load(folder: Path) -> _Record:
    found = None
    if not _IGNORED.get():
        with suppress(OSError, ValueError, UsageError):  # without a cache nothing is remembered
            found = read_record(_place(folder), _Record)
    return found or _Record()


def _place(folder: Path) -> Path:
    key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return cache_folder() / "known" / f"{key}.json"
