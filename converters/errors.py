"""The errors, and the exit status of each kind of failure.

Every message is one or two lines that name the file, the tensor and the remedy, without secrets and control characters
(``redaction``). The command line prints the message alone; a traceback only with ``--debug``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


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
