"""The cache of downloads: where a file lies, whether it is whole, and who may write.

    URL → slot (one folder a URL: partial + partial.json, entry.json) → a version, under its digest, whole

    locks/BiT-M-R50x1.npz-0c5b2f8a41e97d36.lock    held by the one process that fetches; never removed
    BiT-M-R50x1.npz-0c5b2f8a41e97d36/
        partial, partial.json              the bytes so far, and the version that they are of
        entry.json                         the current version: digest, size, what the server called it
        9f86d081884c7d65/BiT-M-R50x1.npz   a version, under the first digits of its sha256

A version is put in place by a rename, after entry.json tells its digest: a process killed at any moment leaves either
a whole file or one that nobody trusts. Older versions stay: another process may be reading them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from converters.digests import private_states_of, remember_made
from converters.download.addresses import file_name
from converters.errors import UsageError
from converters.files import VARIABLE, cache_folder, fsync, read_record, sha256

DIGITS = 16
"""Hexadecimal digits of a digest in a folder's name."""
_FOLDER = re.compile(rf"(?P<name>.+)-[0-9a-f]{{{DIGITS}}}")
Text = Annotated[str, msgspec.Meta(max_length=1000, pattern=r"\A[ -~]*\Z")]
"""As ``answers.mark`` takes it from a server."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


@dataclass(frozen=True)
class Version:
    """A server's description of the version of a file that it sends."""

    etag: Text | None = None
    modified: Text | None = None
    validator: Text | None = None
    """The value that If-Range may name: equal only where every byte is."""
    total: Count | None = None
    """Bytes of the whole file; None where the server does not say."""
    md5: Text | None = None
    """Hexadecimal; Google's storage gives it."""


@dataclass(frozen=True)
class CacheEntry:
    """The current version in a slot, as entry.json tells it."""

    sha256: Sha256
    size: Count
    mtime_ns: Count
    """When the file was last written; another time means that it has to be hashed again."""
    etag: Text | None
    modified: Text | None
    origin: Text = ""
    """The address it was fetched from: the file's own, or a mirror's."""


class Slot:
    """The folder of one URL in the cache."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.folder = name, folder
        self.partial = self.folder / "partial"
        self._version = self.folder / "partial.json"
        self._entry = self.folder / "entry.json"

    @classmethod
    def of(cls, address: str) -> Slot:
        """The slot of an http(s) address without credentials; the file keeps the last part of it as its name."""
        name, digest = file_name(address), hashlib.sha256(address.encode()).hexdigest()
        return cls(cache_folder() / f"{name}-{digest[:DIGITS]}", name)

    @classmethod
    def all(cls) -> list[Slot]:
        """Every slot that is there, by name."""
        try:
            folders = [path for path in sorted(cache_folder().iterdir()) if path.is_dir() and not path.is_symlink()]
        except FileNotFoundError:
            return []
        return [cls(folder, found["name"]) for folder in folders if (found := _FOLDER.fullmatch(folder.name))]

    @contextmanager
    def locked(self, wait: float = -1) -> Iterator[None]:
        """Waits until no other process fetches this URL; a killed one's lock is gone with it.

        Raises UsageError where the cache cannot be written or locked, and after ``wait`` seconds, if that is no
        negative number.
        """
        from filelock import FileLock

        locks = self.folder.parent / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            held = FileLock(locks / f"{self.folder.name}.lock").acquire(timeout=wait)
        except (OSError, RuntimeError) as error:  # filelock's Timeout is an OSError
            raise self.unusable(error) from error
        with held:
            yield

    def whole(self) -> tuple[Path, CacheEntry] | None:
        """The current version's file; None unless it is there, all of it, as it was when it was checked."""
        recorded = self.entry()
        if recorded is None:
            return None
        path, entry = recorded
        try:
            found = path.lstat()
            if found.st_size == entry.size and (found.st_mtime_ns == entry.mtime_ns or sha256(path) == entry.sha256):
                return recorded
        except OSError:
            return None
        return None

    def entry(self) -> tuple[Path, CacheEntry] | None:
        """The current version's place and what is recorded of it, whether or not it is there."""
        entry = read_record(self._entry, CacheEntry)
        return None if entry is None else (self._place(entry), entry)

    @property
    def done(self) -> int:
        """Bytes of the partial file."""
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0

    def partial_version(self) -> Version | None:
        """The version of which the partial file holds the beginning; None where there is none to go on with."""
        return read_record(self._version, Version) if self.partial.is_file() else None

    def start(self, version: Version) -> None:
        """Begins an empty partial file of ``version``."""
        self.folder.mkdir(exist_ok=True)
        self.drop()
        _save(self._version, version)
        self.partial.touch()

    def drop(self) -> None:
        """Removes the partial file, its record last."""
        self.partial.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes every version of the file, of a slot that is locked."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def drop_older(self) -> int:
        """Removes all versions but the current one, of a slot that is locked; returns their bytes."""
        freed, current = 0, self.entry()
        if current is None:
            return freed
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink() and path not in (current[0].parent, self.folder / "module"):
                freed += sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
                shutil.rmtree(path, ignore_errors=True)
        return freed

    def finish(self, version: Version, digest: str, origin: str) -> Path:
        """Makes the partial file, which was checked and has the sha256 ``digest``, the current version."""
        found = self.partial.stat()
        entry = CacheEntry(digest, found.st_size, found.st_mtime_ns, version.etag, version.modified, origin)
        place = self._place(entry)
        place.parent.mkdir(exist_ok=True)
        fsync(self.partial)
        _save(self._entry, entry)
        self.partial.replace(place)
        fsync(place.parent)
        fsync(self.folder)
        self.drop()
        remember_made(place.parent, {place.name: digest}, private_states_of(place.parent, [place.name]))
        return place

    def unusable(self, error: Exception) -> UsageError:
        """The cache cannot be used: what to tell the user."""
        reason = getattr(error, "strerror", None) or str(error)
        return UsageError(
            f"{self.folder.parent}: the cache cannot be used: {reason}. Set {VARIABLE} to another folder."
        )

    def _place(self, entry: CacheEntry) -> Path:
        return self.folder / entry.sha256[:DIGITS] / self.name


def _save(path: Path, record: Version | CacheEntry) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(record))
    fsync(temporary)
    temporary.replace(path)
