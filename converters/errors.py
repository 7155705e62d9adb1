"""The errors, and the exit status of each kind of failure.

Every message is one or two lines that name the file, the tensor and the remedy, without secrets and control characters
(``redaction``). The command line prints the message alone; a traceback only with ``--debug``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class Scope(StrEnum):
    """The reach of a failure, among the models of a run."""

    PASSING = "passing"
    """A network or a host that may be back: worth another attempt."""
    MODEL = "model"
    """This model's own: the others go on."""
    RUN = "run"
    """Every model that would follow would meet it: a full disk, a refused token, no workers."""


class BitConvertError(Exception):
    """Base of every error a user can cause or must act on. Whatever its message quotes is printable in it, a line break
    before the last line too: names of files may have some."""

    exit_status = 1

    def __init__(self, message: object = "", scope: Scope = Scope.MODEL) -> None:
        from converters.redaction import printable  # --help and --list, which raise nothing, need not wait for it

        *lines, remedy = printable(message).split("\n")
        super().__init__("\n".join(["\\n".join(lines), remedy]) if lines else remedy)
        self.scope = scope


def with_status(exit_status: int, message: object, scope: Scope = Scope.MODEL) -> BitConvertError:
    """An error of no kind of its own, of this exit status."""
    error = BitConvertError(message, scope)
    error.exit_status = exit_status
    return error


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
def system_errors() -> Iterator[None]:
    """Turns what the operating system raises inside, a full disk or a missing permission, into a UsageError.

    Of every error that leaves, the exceptions that led to it are redacted too: a traceback shows them.
    """
    try:
        yield
    except (OSError, BitConvertError) as error:
        from converters.redaction import redact_chain

        redact_chain(error)
        if isinstance(error, BitConvertError):
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise UsageError(f"{where}{error.strerror or error}. Nothing was left half written.") from error


FULL = (errno.ENOSPC, errno.EDQUOT)


def scope_of(error: BaseException) -> Scope:
    """The reach of a failure: its own, or the run's where a full disk is what led to it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return Scope.RUN
        cause = cause.__cause__ or cause.__context__
    return error.scope if isinstance(error, BitConvertError) else Scope.MODEL


INTERRUPTED, TERMINATED, OUTPUT_CLOSED = 130, 143, 141
"""Exit statuses after Ctrl-C, after SIGTERM, and where nobody reads stdout any more: 128 and the signal's number."""
