"""The boundary at which bytes of unknown origin are read: whatever is wrong with them is a CheckpointError.

file → ``with reading(file):`` any library → what it gives, or an error that names the file and the remedy
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from converters.errors import BitConvertError, CheckpointError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def reading(path: Path | str, what: str = "the file", remedy: str = "Download it again.") -> Iterator[None]:
    """Turns whatever a reader of foreign bytes raises inside into a CheckpointError that names the file.

    The one guard of every boundary where bytes of unknown origin are read, a source or a folder: what libraries raise
    on broken input is not written down anywhere. ``what`` is the part of the file that is read.
    """
    try:
        yield
    except (BitConvertError, ImportError, AssertionError, NameError):  # said already, or no fault of the file
        raise
    except Exception as error:
        number, said = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
        if number in (errno.ENOSPC, errno.EDQUOT):  # of the place where something is unpacked to
            raise
        if number == errno.ENOENT and not Path(path).exists():
            raise CheckpointError(f"{path}: no such file.\n{remedy}") from error
        refuse_pointer(Path(path))
        told = f"cannot be read: {said}" if said else f"is damaged: {_said(error).rstrip('.')}"
        raise CheckpointError(f"{path}: {what} {told}.\n{remedy}") from error


def _said(error: Exception) -> str:
    from converters.redaction import one_line

    return one_line(error, 160) or type(error).__name__


def refuse_pointer(file: Path) -> None:
    """Raises CheckpointError where Git LFS left a note of the file instead of the file."""
    with suppress(OSError):
        if not file.is_file():  # nor is a pipe waited for
            return
        with file.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) != LFS_POINTER:
                return
        raise CheckpointError(f"{file}: a Git LFS pointer, not the file: run git lfs pull where it was cloned.")
