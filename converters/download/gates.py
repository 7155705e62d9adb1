"""A host that asks to wait is left alone by everybody: by all threads of this process, and where ``share`` was called
by all processes of this user.

A gate is a file whose time of modification is the time before which nothing is to be asked: it is closed in one step,
and read by a look at the file.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

Key = tuple[str, str]
"""Host and token."""

_closed: dict[Key, float] = {}
"""Key → the time, by the clock of whoever closed it, before which nothing is to be asked."""
_shared: list[Path] = []


def share(folder: Path) -> None:
    """From now on gates are kept in ``folder``, too, for every process that shares it."""
    _shared[:] = [folder]


def close(key: Key, now: float, seconds: float) -> None:
    """Lets nobody ask for ``seconds``; a gate that is closed for longer stays so."""
    _closed[key] = max(_closed.get(key, 0.0), now + seconds)
    for folder in _shared:
        with suppress(OSError):  # without the file the gate is this process's
            file = _file(folder, key)
            folder.mkdir(parents=True, exist_ok=True)
            until = max(time.time() + seconds, file.stat().st_mtime if file.exists() else 0.0)
            file.touch()
            os.utime(file, (until, until))


def seconds_left(key: Key, now: float) -> float:
    """The seconds for which nothing is to be asked; 0 or less where the gate is open."""
    left = _closed.get(key, 0.0) - now
    for folder in _shared:
        with suppress(OSError):
            left = max(left, _file(folder, key).stat().st_mtime - time.time())
    return left


def _file(folder: Path, key: Key) -> Path:
    return folder / hashlib.sha256("\0".join(key).encode()).hexdigest()[:16]
