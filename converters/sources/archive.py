"""Reads a ``.tar.gz`` or ``.tar``: a TF-Hub module as it is downloaded, unpacked into a folder of its own.

    archive → members checked one by one, written to a temporary folder → the source that the folder holds

Only plain files and folders below the archive's own top are unpacked, no links, nothing that macOS put there; together
they may be only so much larger than the archive. The temporary folder goes when the source is closed, or when anything
fails.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

from converters.errors import CheckpointError
from converters.files import is_macos_metadata
from converters.sources.base import Array, Shape, TensorFile, bounded, one_line

GZIP, TAR, TAR_AT = b"\x1f\x8b", b"ustar", 257
MAX_MEMBERS = 4096
CHUNK = 1 << 20


class ArchiveSource(TensorFile):
    """A tar archive of a folder that is a source. Raises CheckpointError for anything broken or unsafe."""

    looked_for = "a .tar.gz of a SavedModel, checkpoint or model folder"

    def __init__(self, path: Path, inner: TensorFile, temporary: TemporaryDirectory[str]) -> None:
        self.path = str(path)
        self.format, self.scheme, self.dropped = inner.format, inner.scheme, inner.dropped
        self.counters = inner.counters
        self.exact, self.pool_padding = inner.exact, inner.pool_padding
        self._inner, self._temporary = inner, temporary

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(GZIP) or head[TAR_AT:].startswith(TAR)

    @classmethod
    def open(cls, path: Path) -> Self:
        from converters.sources import open_source

        temporary = TemporaryDirectory(prefix="bit-convert-")
        try:
            folder = Path(temporary.name)
            _unpack(path, folder)
            try:
                inner = open_source(_innermost(folder))
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(str(folder), str(path))) from error
            return cls(path, inner, temporary)
        except BaseException:
            temporary.cleanup()
            raise

    @property
    def files(self) -> Mapping[str, Path]:
        """The archive itself."""
        return {Path(self.path).name: Path(self.path)}

    @property
    def location(self) -> str:
        return self._inner.location

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return self._inner.shapes

    def select(self, names: Collection[str]) -> None:
        self._inner.select(names)

    def read(self, name: str) -> Array:
        return self._inner.read(name)

    def close(self) -> None:
        self._inner.close()
        self._temporary.cleanup()


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than ``limit`` bytes."""

    def __init__(self, stream: gzip.GzipFile | IO[bytes], limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size if size >= 0 else CHUNK)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it expands beyond what its size justifies: a bomb")
        return content


def _unpack(path: Path, folder: Path) -> None:
    limit = bounded(path.stat().st_size)
    try:
        with path.open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            stream: Any = _Bounded(gzip.GzipFile(fileobj=file) if packed else file, limit)
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for count, member in enumerate(archive):
                    if count >= MAX_MEMBERS:
                        raise ValueError(f"more than {MAX_MEMBERS} members")
                    if not is_macos_metadata(member.name):
                        _write(archive, member, folder, limit)
            while stream.read(CHUNK):  # to the end, where gzip compares the CRC
                pass
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{path}: not a whole archive: {one_line(error)}. Download it again.") from error


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, limit: int) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise ValueError(f"member {member.name[:120]!r} leads out of the folder")
    if member.issparse() or not (member.isreg() or member.isdir()) or member.size > limit:
        raise ValueError(f"member {member.name[:120]!r} is a link, a device, or larger than the archive justifies")
    target = folder / name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    if content is None:
        raise ValueError(f"member {member.name[:120]!r} is no file")
    with target.open("xb") as file:  # a second member of the same name is an error
        while chunk := content.read(CHUNK):
            file.write(chunk)


def _innermost(folder: Path) -> Path:
    """The first folder that holds anything but one folder: archives are made of a folder, of a path to it, or of its
    content. Never a file, which may be an archive again."""
    while len(content := list(folder.iterdir())) == 1 and content[0].is_dir():
        folder = content[0]
    return folder
