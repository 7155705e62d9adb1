"""Files that must stay what they are while they are read: what an audit finds is true of one content alone.

names → paths → ``FileChanges`` … reading … ``changes()`` → what happened to each file that is not what it was
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.files import CARD, PARITY_PAGE, sha256

SMALL = 16 << 20
"""Bytes up to which a file is read again at the end: 8 ms each."""
YOUNG = 100_000_000
"""Nanoseconds: Linux keeps times to 10 ms, so that a second change so soon after a first may not show in them."""

Identity = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Seen:
    """The state of a file; of a small one, and of one whose time cannot be relied on, the digest as well."""

    identity: Identity
    digest: str | None


class FileChanges:
    """Remembers what files are, from the moment it is made.

    ``files`` gives name → path, at the beginning and at the end.

    A large file is known by device, inode, size and the times of its last changes, so that 4 GB are not read twice.
    The time of modification can be set back; that of the inode's change cannot, short of setting the clock: a file
    that was written to and restored, or moved away and back, shows in it. Of a link, both the link and what it leads
    to count. A large file that was touched within the times' resolution is looked at when that is over; where its time
    is in the future, as another machine's clock may have it, it is told by its digest.
    """

    def __init__(self, files: Callable[[], Mapping[str, Path]]) -> None:
        self._files = files
        self._seen = {name: _seen(path) for name, path in files().items()}

    def digest(self, name: str) -> str | None:
        """The sha256 of a file where it was taken."""
        seen = self._seen.get(name)
        return seen.digest if seen else None

    def changes(self) -> dict[str, str]:
        """Returns the files that are not as they were: name → what happened."""
        found = {name: _seen(path, self._seen.get(name)) for name, path in self._files().items()}
        changed = {}
        for name in sorted(self._seen.keys() | found.keys()):
            if name not in self._seen:
                changed[name] = "was added"
            elif found.get(name) is None:
                changed[name] = "was removed"
            elif found[name] != self._seen[name]:
                changed[name] = "was replaced or written to"
        return changed


def loaded_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder that a library may read: all but the card, the page of a report, and hidden ones."""
    beside = (CARD, PARITY_PAGE)
    if not folder.is_dir():
        return {}
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in beside and not path.name.startswith(".")
    }


def _seen(path: Path, before: _Seen | None = None) -> _Seen | None:
    """Returns the state of a file, with its digest where ``before`` has one; None where it cannot be read."""
    try:
        identity, size, young = _identity(path)
        if young and size > SMALL and before is None:
            time.sleep(YOUNG / 1e9)  # shorter than reading it
            identity, size, young = _identity(path)
        wanted = size <= SMALL or young if before is None else before.digest is not None
        return _Seen(identity, sha256(path) if wanted else None)
    except OSError:
        return None


def _identity(path: Path) -> tuple[Identity, int, bool]:
    """Returns what identifies a file and its state; its size; whether it changed just now."""
    own, behind = path.lstat(), path.stat()
    identity = tuple((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in (own, behind))
    return identity, behind.st_size, time.time_ns() - behind.st_ctime_ns < YOUNG
