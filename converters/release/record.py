"""The record of a release, beside the models' folders: release.json for programs, release.html for people.

jobs, events, results → ``Record`` → (with the rows of earlier runs and of other shards) → release.json, release.html

Both are replaced as a whole when something has ended, no more than once a second, and at the end. What cannot be
written is warned of once: no run ends for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from converters.auditing.audits import VERSION
from converters.errors import INTERRUPTED, BitConvertError
from converters.files import fsync, read_json
from converters.redaction import one_line, printable
from converters.release.events import Event
from converters.release.job import Job, JobResult, State
from converters.release.rows import BEGUN, Content, Key, Row, after, ended, newest, not_tried, read_rows, waiting
from converters.release.shard import Shard

RECORD, PAGE = "release.json", "release.html"
PART = re.compile(r"release-\d+-of-\d+\.json")
SET_ASIDE = ".old"
"""Added to the name of a release.json that is none of ours."""
PAUSE, SHARE = 1.0, 20.0
"""Seconds between two writes: PAUSE, or SHARE times what a write takes if that is more."""
PATIENCE = 10.0
"""Seconds for which another process that writes is waited for at the end; before that, the next write will do."""

Warn = Callable[[str], None]


class Record:
    """The rows of one run, and a listener of its events.

    ``folder`` is the folder that holds the models' folders. ``shard`` is the part of the list that the run does: it
    writes ``release-I-of-N.json``, too, which is its own. Threads may call all of it.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], warn: Warn, *, shard: Shard | None = None, command: str = ""
    ) -> None:
        self._folder, self._jobs, self._warn, self._command = folder, jobs, warn, printable(command)
        self._part = f"release-{shard.index}-of-{shard.count}.json" if shard else ""
        self._lock, self._timer = threading.Lock(), _no_timer()
        self._warned: set[str] = set()
        self._due, self._closed = 0.0, False
        self._read: dict[str, tuple[object, list[Row]]] = {}
        self._gone: set[Key] = set()
        self._own = waiting(jobs, folder)
        self._before: dict[Key, Row] = {}
        with self._lock:
            self._remember()
            self._write()

    def __call__(self, event: Event) -> None:
        """Notes what a job is at."""
        with self._lock:
            self._own[event.number] = after(self._own[event.number], event)
            self._write_soon()

    def add(self, number: int, result: JobResult) -> None:
        """Notes what came of the job of this number."""
        with self._lock:
            before = self._own[number]
            if result.state is State.NOT_TRIED:
                row = not_tried(before, self._before.get(before.key), result.exit_status or INTERRUPTED)
            else:
                row = ended(before, self._jobs[number], result, self._folder, self._before.get(before.key))
            self._gone |= {before.key} - {row.key}
            self._own[number] = row
            self._write_soon()

    def close(self, exit_status: int = INTERRUPTED) -> None:
        """Writes a last time; what has no result was not tried, and gets the status with which the run ended."""
        with self._lock:
            self._closed = True
            self._timer.cancel()
            for number, row in enumerate(self._own):
                if row.state in BEGUN:
                    self._own[number] = not_tried(row, self._before.get(row.key), exit_status)
            self._write(last=True)

    def _remember(self) -> None:
        """Keeps the rows of earlier runs, of models that this run does again."""
        with suppress(OSError):
            found = newest(*self._others())
            self._before = {row.key: found[row.key] for row in self._own if row.key in found}
        self._before = {key: row for key, row in self._before.items() if row.state not in (*BEGUN, "not tried")}

    def _write_soon(self) -> None:
        wait = self._due - time.monotonic()
        if wait <= 0:
            self._write()
        else:
            self._write_in(wait)

    def _write_in(self, seconds: float) -> None:
        if not self._timer.is_alive() and not self._closed:
            self._timer = threading.Timer(seconds, self._write_late)
            self._timer.daemon = True
            self._timer.start()

    def _write_late(self) -> None:
        with self._lock:
            self._timer = _no_timer()
            if not self._closed:
                self._write()

    def _write(self, last: bool = False) -> None:
        begun = time.monotonic()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _alone(self._folder, PATIENCE if last else 0.0):
                self._write_all(last)
        except BlockingIOError:
            if last:
                self._say_once(f"{self._folder / RECORD}: not written: another process is at it and does not end.")
            self._write_in(PAUSE)
        except OSError as error:
            reason = f"cannot be written: {error.strerror}. The run goes on without it."
            self._say_once(f"{error.filename or self._folder / RECORD}: {reason}")
        except Exception as error:  # whatever it is, the run is worth more
            self._say_once(f"{self._folder / RECORD}: cannot be written: {type(error).__name__}: {one_line(error)}")
        now = time.monotonic()
        self._due = now + max(PAUSE, SHARE * (now - begun))

    def _write_all(self, last: bool) -> None:
        from converters.release.page import render

        if self._part:
            self._put(self._part, _text(Content.of(self._own, VERSION, self._command)), last)
        rows = newest(*self._others(), self._own)
        content = Content.of((row for key, row in rows.items() if key not in self._gone), VERSION, self._command)
        self._put(RECORD, _text(content), last)
        self._read[RECORD] = _identity((self._folder / RECORD).stat()), content.models
        self._put(PAGE, render(content).encode(), last)

    def _put(self, name: str, text: bytes, last: bool) -> None:
        """Replaces a file as a whole."""
        partial = self._folder / f".{self._part or name}.partial"
        try:
            with open(partial, "wb") as file:
                file.write(text)
            if last:
                fsync(partial)
            partial.replace(self._folder / name)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise

    def _others(self) -> Iterator[list[Row]]:
        """The rows of each file that lies there, but for the own part."""
        parts = sorted(path.name for path in self._folder.glob("release-*.json") if PART.fullmatch(path.name))
        for name in (RECORD, *parts):
            if name != self._part:
                yield self._rows_in(name)

    def _rows_in(self, name: str) -> list[Row]:
        path = self._folder / name
        try:
            identity = _identity(path.stat())
        except FileNotFoundError:
            return []
        if name not in self._read or self._read[name][0] != identity:
            self._read[name] = identity, self._parsed(path)
        return self._read[name][1]

    def _parsed(self, path: Path) -> list[Row]:
        try:
            return read_rows(read_json(path))
        except (BitConvertError, ValueError) as error:
            why = one_line(error, 160)
        if path.name != RECORD:
            self._say_once(f"{path}: left out, it is no part of a release: {why}")
        else:
            aside = path.with_name(path.name + SET_ASIDE)
            path.replace(aside)
            self._say_once(f"{path}: it is no record of a release ({why}); it is now {aside.name}.")
        return []

    def _say_once(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            self._warn(line)


def _text(content: Content) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _no_timer() -> threading.Timer:
    return threading.Timer(0, lambda: None)


@contextmanager
def _alone(folder: Path, patience: float) -> Iterator[None]:
    """Inside, no other process writes the record, where the file system knows locks.

    Raises BlockingIOError where another does for longer than ``patience``.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, time.monotonic() + patience)
        yield
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # of a process that was forked meanwhile, too
    finally:
        os.close(handle)


def _lock(handle: int, until: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)
        except OSError:  # a network's file system without locks: a file is replaced as a whole in any case
            return None
