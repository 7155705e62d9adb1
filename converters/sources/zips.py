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

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
END_RECORD = struct.Struct("<4sHHHHIIH")
IN_ZIP64 = 0xFFFF
"""Instead of the number of members, where a writer gives it in the zip64 end record alone."""
FIRST_BYTES = (b"PK\x03\x04", b"PK\x05\x06")
"""Of an archive without data before it: a member's local header, or the end record of an empty one."""


def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, its directory read; the caller closes it.

    Raises BadZipFile for no archive, and, which zipfile would not mind, where the file goes on past the archive's end
    or the directory has not the entries that the end record counts.
    """
    archive = zipfile.ZipFile(path)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - END_RECORD.size - len(archive.comment)))
            end = file.read(END_RECORD.size).ljust(END_RECORD.size, b"\0")
        magic, *_, count, _, _, comment = END_RECORD.unpack(end)
        if (magic, comment) != (b"PK\x05\x06", len(archive.comment)):
            raise zipfile.BadZipFile("it does not end where its archive ends")
        if count not in (len(archive.infolist()), IN_ZIP64):
            raise zipfile.BadZipFile(f"it is said to have {count} members, its directory has {len(archive.infolist())}")
    except BaseException:
        archive.close()
        raise
    return archive


def is_whole_zip(path: Path) -> bool:
    """Whether the file is a zip archive whose directory can be read, with nothing behind it."""
    try:
        open_zip(path).close()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error):
        return False
    return True


def data_start(handle: int, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin: after its local header, whose name and extra field have lengths of their own.

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
