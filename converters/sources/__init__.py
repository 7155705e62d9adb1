"""Sources: files that hold a BiT checkpoint, recognised by their content and read lazily.

A source is a context manager that knows the names and shapes of its tensors at once and reads the values one tensor
at a time. ``open_source`` recognises the format; each format has one small file.
"""

from __future__ import annotations

from pathlib import Path

from converters.errors import CheckpointError
from converters.sources.npz import NpzSource

FIRST_BYTES = 512


def open_source(path: Path) -> NpzSource:
    """Open the checkpoint at ``path``; the caller closes it (``with``).

    Raises CheckpointError when the file is missing, empty, or of no known format.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder, not a checkpoint file. Give the .npz file itself.")
    try:
        with path.open("rb") as file:
            head = file.read(FIRST_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}. Give an existing .npz file.") from error
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return NpzSource(path)
    raise CheckpointError(f"{path}: not a BiT checkpoint: {_describe(head)}.\nLooked for an .npz file (a zip archive).")


def _describe(head: bytes) -> str:
    text = head.lstrip().lower()
    if not head:
        return "the file is empty; get it anew"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, probably a failed download; get the file anew"
    if head.startswith(b"\x89HDF\r\n"):
        return "it is an HDF5 file, which is not read yet"
    if head.startswith(b"\x80"):
        return "it is a pickle, which is never opened"
    return f"it begins with {head[:8]!r}"
