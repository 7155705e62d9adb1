"""Zip archives as the format has them, by any writer. ``zipfile`` reads them; here is what it leaves open: where an
archive ends, how many members it says it has, and where a member's bytes begin.

Nothing is refused here because another tool would have written it otherwise: attributes, times, versions, extra
fields, comments, data descriptors, zip64 fields in one of the two headers and data before the first member are the
writer's own affair. What is read is guarded by the CRC of its member.
"""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from converters.errors import CheckpointError
from converters.reading import reading
from converters.sources.base import MAX_TENSORS, listing_bound

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
END_RECORD_SIZE = 22
MAX_MEMBERS = 2 * MAX_TENSORS
"""Members of an archive: what a training keeps beside its network is twice as much at most."""
ROW = 160
"""Bytes that a member takes in the archive's directory beside its name: 46, and what writers add (times, zip64)."""
FIRST_BYTES = (b"PK\x03\x04", b"PK\x05\x06")
"""The beginnings of an archive without data before it: a member's local header, or the end record of an empty one."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, its directory read; the caller closes it.

    Raises BadZipFile for no archive, for a directory larger than that of any BiT, which is not read, and, which zipfile
    would not mind, where the file goes on past the archive's end or the directory has not the entries that are counted.
    """
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # what ZipFile believes, and not another reading
    if end is None:
        raise zipfile.BadZipFile("it has no end record")
    *_, count, size, _, length, comment, place = end
    if count > MAX_MEMBERS or size > 2 * listing_bound(ROW):
        raise zipfile.BadZipFile(f"{count} members in a directory of {size} bytes, more than any BiT checkpoint has")
    if length != len(comment) or place + END_RECORD_SIZE + length != path.stat().st_size:
        raise zipfile.BadZipFile("it does not end where its archive ends")
    archive = zipfile.ZipFile(path)
    if count != len(archive.infolist()):
        archive.close()
        raise zipfile.BadZipFile(f"it is said to have {count} members, its directory has {len(archive.infolist())}")
    return archive


def member_names(path: Path) -> list[str] | None:
    """The names in a zip archive's directory; None where the file is none, or goes on behind it."""
    try:
        with reading(path), open_zip(path) as archive:
            return archive.namelist()
    except CheckpointError:
        return None


def data_start(handle: int, info: zipfile.ZipInfo) -> int:
    """Returns where a member's bytes begin: after its local header, whose name and extra field have their own lengths.

    Raises BadZipFile where there is no such header.
    """
    raw = os.pread(handle, LOCAL_HEADER.size, info.header_offset) if info.header_offset >= 0 else b""
    if len(raw) < LOCAL_HEADER.size or not raw.startswith(FIRST_BYTES[0]):
        raise zipfile.BadZipFile("its local header is missing")
    *_, name, extra = LOCAL_HEADER.unpack(raw)
    return info.header_offset + LOCAL_HEADER.size + int(name) + int(extra)


def first_name(path: Path) -> bytes:
    """The name in the file's first bytes, at most 256 of them, where it begins with a member."""
    with path.open("rb") as file:
        fields = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size).ljust(LOCAL_HEADER.size, b"\0"))
        return file.read(min(fields[9], 256))
