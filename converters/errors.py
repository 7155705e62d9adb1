"""The errors, and the exit status of each kind of failure.

Every message is one or two lines that name the file, the tensor and the remedy, without secrets and control characters
(``redaction``). The command line prints the message alone; a traceback only with ``--debug``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class BitConvertError(Exception):
    """Base of every error a user can cause or must act on. Whatever its message quotes is printable in it."""

    exit_status = 1

    def __init__(self, message: object = "") -> None:
        from converters.redaction import printable  # --help and --list, which raise nothing, need not wait for it

        super().__init__(printable(message))


class ParityError(BitConvertError):
    """The converted model is not proven to be the checkpoint's model: failed or inconclusive."""

    exit_status = 1


class UsageError(BitConvertError):
    """The command, not the data, is wrong."""

    exit_status = 2


class CheckpointError(BitConvertError):
    """A checkpoint that is unreadable, unsafe, not recognised, or not what it was said to be."""

    exit_status = 3


class HubError(BitConvertError):
    """The network or a hub refused, failed or could not be reached."""

    exit_status = 4


class DefectError(BitConvertError):
    """Something that nobody foresaw: a defect of bit-convert. The commands alone say so; in Python it is what it is."""

    exit_status = 70


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
        told = f"cannot be read: {said}" if said else f"is damaged: {_said(error)}"
        raise CheckpointError(f"{path}: {what} {told}.\n{remedy}") from error


def _said(error: Exception) -> str:
    from converters.redaction import one_line

    return one_line(error, 160) or type(error).__name__


@contextmanager
def system_errors() -> Iterator[None]:
    """Turns what the operating system raises inside, a full disk or a missing permission, into a UsageError.

    Of every error that leaves, the exceptions that led to it are redacted too: a traceback shows them.
    """
    try:
        yield
    except OSError as error:
        _redact_chain(error)
        where = f"{error.filename}: " if error.filename else ""
        raise UsageError(f"{where}{error.strerror or error}. Nothing was left half written.") from error
    except BitConvertError as error:
        _redact_chain(error)
        raise


def _redact_chain(error: BaseException) -> None:
    from converters.redaction import redact_chain

    redact_chain(error)


INTERRUPTED, TERMINATED, OUTPUT_CLOSED = 130, 143, 141
"""Exit statuses after Ctrl-C, after SIGTERM, and where nobody reads stdout any more: 128 and the signal's number."""
