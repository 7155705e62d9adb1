"""Sources: files and folders that hold a BiT checkpoint, recognised by their content and read lazily.

A source is a context manager that knows the names and shapes of its tensors at once and reads the values one tensor
at a time. ``open_source`` recognises the format; each format has one small file; ``google.GoogleView`` presents any of
them as Google's released npz.
"""

from __future__ import annotations

from pathlib import Path

from converters.errors import CheckpointError
from converters.files import is_macos_metadata, refuse_special
from converters.reading import reading, refuse_pointer
from converters.sources.archive import ArchiveSource
from converters.sources.base import TensorFile
from converters.sources.declared import declared
from converters.sources.google import GoogleView
from converters.sources.keras import KerasArchive, KerasSource
from converters.sources.npz import NpzSource
from converters.sources.safetensors import SafetensorsSource
from converters.sources.saved_model import SavedModel
from converters.sources.tf_checkpoint import TfCheckpoint
from converters.sources.torch_bin import TorchBinSource

__all__ = ["READERS", "GoogleView", "TensorFile", "open_checkpoint", "open_source"]

READERS: tuple[type[TensorFile], ...] = (
    NpzSource,
    KerasSource,
    KerasArchive,
    SavedModel,
    TfCheckpoint,
    SafetensorsSource,
    TorchBinSource,
    ArchiveSource,
)
PRECEDENCE: tuple[tuple[type[TensorFile], type[TensorFile]], ...] = (
    (KerasArchive, NpzSource),
    (SavedModel, TfCheckpoint),
    (SafetensorsSource, TorchBinSource),
)
"""A file or folder that fits both is read as the first. Any other that fits twice is an error, not a guess."""
SINGLE_FILES = (".npz", ".h5", ".keras")
"""A folder may hold one checkpoint of these formats."""
FIRST_BYTES = 512
APPLE_DOUBLE = b"\x00\x05\x16\x07"


def open_checkpoint(path: Path) -> GoogleView:
    """Open the checkpoint at ``path`` as Google's released npz; the caller closes it (``with``).

    Raises CheckpointError as ``open_source`` does, and when it is not one whole BiT.
    """
    source = open_source(path)
    try:
        with reading(path):
            return GoogleView(source)
    except BaseException:
        source.close()
        raise


def open_source(path: Path) -> TensorFile:
    """Open the file or folder at ``path``, or a TensorFlow checkpoint by its prefix; the caller closes it (``with``).

    Raises CheckpointError when it is missing, empty, of no known format, or of more than one.
    """
    with reading(path):
        return _open(path if path.name not in ("", "..") else path.resolve())  # cards and records say the name


def _open(path: Path) -> TensorFile:
    try:
        refuse_special(path)
        head = b"" if path.is_dir() else _first_bytes(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file. Give an existing checkpoint.") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}. Give a file, or a folder.") from error
    fits = [reader for reader in READERS if reader.recognises(path, head)]
    inside = _single_files(path) if path.is_dir() else []
    for first, second in PRECEDENCE:
        if first in fits and second in fits:
            fits.remove(second)
    if len(fits) + len(inside) > 1:
        found = "; ".join([*(reader.looked_for for reader in fits), *(file.name for file in inside)])
        raise CheckpointError(f"{path}: holds more than one checkpoint: {found}.\nGive the one that is meant.")
    if fits:
        return fits[0].open(path)
    if inside:
        said, source = declared(path), open_source(inside[0])
        source.declare(said)
        return source
    refuse_pointer(path)
    looked_for = "; ".join(reader.looked_for for reader in READERS)
    raise CheckpointError(f"{path}: not a BiT checkpoint: {_describe(path, head)}.\nLooked for {looked_for}.")


def _single_files(folder: Path) -> list[Path]:
    files = (file for file in folder.iterdir() if file.suffix in SINGLE_FILES and not is_macos_metadata(file.name))
    return sorted(file for file in files if file.is_file())


def _first_bytes(path: Path) -> bytes:
    """Empty where only a checkpoint's prefix was given."""
    if TfCheckpoint.recognises(path, b""):
        return b""
    with path.open("rb") as file:
        return file.read(FIRST_BYTES)


def _describe(path: Path, head: bytes) -> str:
    text = head.lstrip().lower()
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if not is_macos_metadata(file.name))
        return f"the folder holds {', '.join(names[:5])[:200] or 'nothing'}" + (" and more" if len(names) > 5 else "")
    if not head:
        return "the file is empty; download it again"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, probably a failed download; download it again"
    if head.startswith(APPLE_DOUBLE):
        return f"it is what macOS puts beside a file; give {path.name.removeprefix('._')}"
    if head.startswith(b"\x80"):
        return "it is a pickle, which is never opened"
    return f"it begins with {head[:8]!r}"
