"""Reads a ``.tar.gz`` or ``.tar``: a TF-Hub module as it is downloaded, unpacked into a folder of its own.

    archive → members checked one by one, written to a temporary folder → the source that the folder holds

Only plain files and folders below the archive's own top are unpacked, no links, nothing that macOS put there; together
they may be only so much larger than the archive. The temporary folder goes when the source is closed, or when anything
fails. tarfile's own data filter would mend what is refused here: it strips leading slashes, and lets links pass that
stay inside.
"""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from converters.errors import CheckpointError
from converters.files import is_macos_metadata
from converters.placing import temporary_folder
from converters.reading import reading
from converters.sources.base import MAX_NAME, Array, TensorFile, bounded

GZIP, TAR, TAR_AT = b"\x1f\x8b", b"ustar", 257
MAX_MEMBERS = 4096
MAX_DEPTH = 16
"""Folders that a member may lie in."""
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
MAX_EXTENSION, MAX_EXTENSIONS, MAX_GLOBAL = 64 << 10, 1 << 20, 4 << 10
"""Bytes of an extension header, of all together, and of those that are for the whole archive."""
CHUNK = 1 << 20


class ArchiveSource(TensorFile):
    """A tar archive of a folder that is a source."""

    looked_for = "a .tar.gz of a SavedModel, checkpoint or model folder"

    def __init__(self, path: Path, folder: Path, inner: TensorFile, temporary: ExitStack) -> None:
        super().__init__(path)
        self._folder = folder
        self.format, self.scheme, self.dropped = inner.format, inner.scheme, inner.dropped
        self.shapes, self.counters = inner.shapes, inner.counters
        self.exact, self.pool_padding = inner.exact, inner.pool_padding
        self._inner, self._temporary = inner, temporary

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(GZIP) or head[TAR_AT:].startswith(TAR)

    @classmethod
    def open(cls, path: Path) -> Self:
        from converters.sources import open_source

        with ExitStack() as temporary:
            folder = temporary.enter_context(temporary_folder("bit-convert-"))
            _unpack(path, folder)
            with _naming(path, folder):
                inner = open_source(_innermost(folder))
            return cls(path, folder, inner, temporary.pop_all())

    @property
    def location(self) -> str:
        return self._inner.location

    def select(self, names: Collection[str]) -> None:
        with _naming(self.path, self._folder):
            self._inner.select(names)

    def read(self, name: str) -> Array:
        with _naming(self.path, self._folder):
            return self._inner.read(name)

    def close(self) -> None:
        self._inner.close()
        self._temporary.close()


@contextmanager
def _naming(archive: Path | str, folder: Path) -> Iterator[None]:
    """Errors inside name the archive, and not the temporary folder that it is unpacked to."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(archive)), error.scope) from error


class _Blocks(io.RawIOBase):
    """An archive's bytes, no more than ``limit``, each header looked at before tarfile parses it.

    tarfile reads whole extension headers (of pax: x, g; of GNU: long names L, K; sparse files S), however large, before
    it says anything of them; and each of theirs for the whole archive it applies to each member.
    """

    def __init__(self, stream: gzip.GzipFile | IO[bytes], limit: int) -> None:
        self._stream, self._left = stream, limit
        self._skip = 0
        """Bytes until the next header."""
        self._extension: bytearray | None = None
        """The part of an extension header's content that was read."""
        self._room = {"": MAX_EXTENSIONS, tarfile.XGLTYPE: MAX_GLOBAL}

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size if size >= 0 else CHUNK)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it expands beyond what its size justifies: a bomb")
        at = 0
        while at < len(content):
            if self._skip == 0:
                at += self._look(content[at : at + tarfile.BLOCKSIZE])
            else:
                at += self._pass(content[at : at + self._skip])
        return content

    def _look(self, header: bytes) -> int:
        """Notes what a header says; how many bytes it has."""
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.TarError:  # zeros at the end, or what tarfile will say
            return len(header)
        if member.size < 0:  # in base 256, which tarfile takes
            raise ValueError(f"member {member.name[:120]!r} has a size below zero")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError("a sparse file, which is larger than the archive")
        kind = tarfile.XGLTYPE if member.type == tarfile.XGLTYPE else ""
        if member.type in EXTENSIONS:
            self._room[kind] -= member.size
            if member.size > MAX_EXTENSION or self._room[kind] < 0:
                raise ValueError(f"an extension header of {member.size} bytes, more than any name takes")
            self._extension = bytearray()
        self._skip = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if _has_content(member) else 0
        return len(header)

    def _pass(self, content: bytes) -> int:
        self._skip -= len(content)
        if self._extension is not None:
            self._extension += content
            if self._skip == 0 and any(key in self._extension for key in (b" size=", b" GNU.sparse.")):
                raise ValueError("a member whose size stands in an extension header")
            self._extension = None if self._skip == 0 else self._extension
        return len(content)


def _has_content(member: tarfile.TarInfo) -> bool:
    """As tarfile has it: all but links, devices, folders and pipes, whatever size these say."""
    return member.isreg() or member.type not in tarfile.SUPPORTED_TYPES or member.type in EXTENSIONS


def _unpack(path: Path, folder: Path) -> None:
    limit = bounded(path.stat().st_size)
    with reading(path, "the archive"), path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        stream: Any = _Blocks(gzip.GzipFile(fileobj=file) if packed else file, limit)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise ValueError(f"more than {MAX_MEMBERS} members")
                if not is_macos_metadata(member.name):
                    _write(archive, member, folder, limit)
        while stream.read(CHUNK):  # to the end, where gzip compares the CRC
            pass


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, limit: int) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise ValueError(f"member {member.name[:120]!r} leads out of the folder")
    if len(member.name) > MAX_NAME or len(name.parts) > MAX_DEPTH:
        raise ValueError(f"member {member.name[:60]!r}… has a name longer or deeper than any checkpoint's")
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
        shutil.copyfileobj(content, file, CHUNK)


def _innermost(folder: Path) -> Path:
    """The first folder that holds anything but one folder: archives are made of a folder, of a path to it, or of its
    content. Never a file, which may be an archive again."""
    while len(content := list(folder.iterdir())) == 1 and content[0].is_dir():
        folder = content[0]
    return folder
