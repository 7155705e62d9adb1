"""The upkeep of the cache: what it holds, whether that is whole, and what may go.

slots → ``kept()`` → rows;  ``verified()`` reads every byte;  ``prune()`` → rows of what went
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from converters.download.cache import Slot
from converters.errors import UsageError
from converters.files import cache_folder, sha256

DAY = 24 * 3600.0
BUSY = 0.2
"""Seconds after which a slot that another process has is left alone."""


class DownloadState(StrEnum):
    """The state of a download."""

    WHOLE = "whole"
    PARTIAL = "partial"
    """Its beginning, with which the next run goes on."""
    DAMAGED = "damaged"
    """Not what was downloaded: the next run downloads it again."""
    EMPTY = "empty"
    """Links to other downloads, or nothing."""


@dataclass(frozen=True)
class Kept:
    """One download in the cache."""

    name: str
    folder: Path
    state: DownloadState
    bytes: int
    """All that it takes on disk, older versions included."""
    changed: float
    """The time of its last change, in seconds since 1970."""
    sha256: str = ""
    """The current version's, as it was downloaded."""

    @property
    def days(self) -> float:
        """Days since its last change."""
        return max(0.0, time.time() - self.changed) / DAY


def kept() -> list[Kept]:
    """Lists the downloads, by name; of each is only looked at whether it is there."""
    return [row for slot in Slot.all() if (row := _row(slot, _is_there(slot)))]


def verified(progress: Callable[[str, int, int], None]) -> list[Kept]:
    """Lists the downloads, after every whole one was read and held against the sha256 that it came with."""
    rows, slots = [], Slot.all()
    for number, slot in enumerate(slots):
        progress(f"reading {slot.name}", number, len(slots))
        rows.append(_row(slot, _is_intact(slot)))
    return [row for row in rows if row]


def prune(older_than: float | None = None, everything: bool = False) -> list[Kept]:
    """Removes what no run has a use for: what is damaged, older versions, digests of folders that are gone; with
    ``older_than`` (days) also whole and partial downloads that old; with ``everything`` all of the cache.

    What another process is at stays. Returns the downloads that went, or gave up older versions.
    """
    gone = []
    for slot in Slot.all():
        with suppress(UsageError), slot.locked(BUSY):
            row = _row(slot, _is_there(slot))
            if row is None:
                continue
            is_old = everything or (older_than is not None and row.days >= older_than)
            if is_old or row.state in (DownloadState.DAMAGED, DownloadState.EMPTY):
                slot.clear()
                gone.append(row)
            elif (freed := slot.drop_older()) > 0:
                gone.append(replace(row, bytes=freed))
    for path in _records(everything):
        path.unlink(missing_ok=True)
    return gone


def _is_there(slot: Slot) -> bool:
    return slot.whole() is not None


def _is_intact(slot: Slot) -> bool:
    found = slot.entry()
    try:
        return found is not None and found[0].is_file() and sha256(found[0]) == found[1].sha256
    except OSError:  # of a disk that has lost it
        return False


def _row(slot: Slot, whole: bool) -> Kept | None:
    """The row of a slot; None where it has gone meanwhile."""
    recorded = slot.entry()
    if recorded is not None:
        state = DownloadState.WHOLE if whole else DownloadState.DAMAGED
    else:
        state = DownloadState.PARTIAL if slot.done else DownloadState.EMPTY
    files = [*_files(slot)]
    try:
        changed = max(file.st_mtime for file in files or [slot.folder.lstat()])
    except FileNotFoundError:
        return None
    size = sum(file.st_size for file in files)
    return Kept(slot.name, slot.folder, state, size, changed, recorded[1].sha256 if recorded else "")


def _files(slot: Slot) -> Iterator[os.stat_result]:
    """The states of the files of a slot; another process may be replacing and removing some meanwhile."""
    for folder, _, names in os.walk(slot.folder):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield found


def _records(everything: bool) -> Iterator[Path]:
    """Records of digests, of folders that are gone, or all; of publications, all or none: they save downloads."""
    for path in cache_folder().glob("known/*"):
        folder = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            folder = Path(json.loads(path.read_bytes())["folder"])
        if everything or folder is None or not folder.is_dir():
            yield path
    if everything:
        yield from cache_folder().glob("published/*.json")
