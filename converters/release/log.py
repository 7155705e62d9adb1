"""The file of ``--events``: one line of strict JSON an event, written as it happens.

Event → ``EventLog`` → {"schema": 1, "time": 1790000000.123, "model": "BiT-digits", "step": "verifying", …}
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converters.errors import UsageError
from converters.redaction import printable_values
from converters.release.events import Event

SCHEMA = 1
"""Version of a line's layout."""

Warn = Callable[[str], None]


class EventLog:
    """A listener that adds a line for each event to a file, a pipe or a device.

    Each line is one write to the end of the file, so that several runs may share it. A file that takes nothing more is
    warned of once; the run goes on, and lines are written again once there is room. Raises UsageError where the file
    cannot be opened.
    """

    def __init__(self, path: Path, warn: Warn) -> None:
        self._path, self._warn = path, warn
        self._warned = self._torn = False
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}. Choose another with --events.") from error

    def __call__(self, event: Event) -> None:
        line = line_of(event)
        with self._lock:
            try:
                self._write(b"\n" + line if self._torn else line)
            except OSError as error:
                self._say_once(error)

    def close(self) -> None:
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        """A line of which only a part went in is ended before the next begins."""
        written = os.write(self._file, line)
        self._torn = 0 < written < len(line) or (self._torn and written == 0)
        if written < len(line):
            os.write(self._file, line[written:])  # says why
            self._torn = False

    def _say_once(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"{self._path}: cannot be written: {error.strerror}. The run goes on; events are missing there.")


def line_of(event: Event) -> bytes:
    """An event as a line of strict JSON in UTF-8, without secrets; a figure that is not finite is null."""
    import msgspec

    content: dict[str, Any] = printable_values(asdict(event))
    for name in ("time", "seconds"):
        content[name] = None if content[name] is None else round(content[name], 3)
    return msgspec.json.encode({"schema": SCHEMA, "time": content.pop("time"), **content}) + b"\n"
