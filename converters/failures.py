"""Failures for those who read them: what nobody foresaw is said as a defect, in two lines; and the end by a signal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from converters.errors import (
    INTERRUPTED,
    TERMINATED,
    BitConvertError,
    DefectError,
    UsageError,
    scope_of,
    system_errors,
    with_status,
)


def failure_of(error: Exception) -> BitConvertError:
    """The error to say: itself, the system's as wrong usage, and of anything unforeseen a defect of ours."""
    if isinstance(error, BitConvertError | OSError):
        try:
            with system_errors():
                raise error
        except BitConvertError as found:
            found.scope = scope_of(found)
            return found
    from converters.redaction import one_line
    from verify.shortage import is_short_of_memory

    if is_short_of_memory(error):
        what = one_line(error, 200)
        return UsageError(
            f"not enough memory{': ' + what if what else ''}. Close other programs, or run it where there is more."
        )
    version, address = version_and_issues()
    what = f"{type(error).__name__}: {one_line(error, 200).rstrip('.') or 'no message'}"
    return DefectError(
        f"a defect in bit-convert {version}: {what}.\nPlease report it, with what --debug prints, at {address}"
    )


def version_and_issues() -> tuple[str, str]:
    """This version, and where its defects are reported."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        found = metadata("bit-convert")
    except PackageNotFoundError:
        return "not installed", "the place that you have it from"
    addresses = dict(line.split(", ", 1) for line in found.get_all("Project-URL") or [])
    return found["Version"], addresses.get("Issues", "the place that you have it from")


class Terminated(BaseException):
    """SIGTERM: what was begun is cleared away, as after Ctrl-C."""


ENDED = (INTERRUPTED, TERMINATED)


def ended_by(signal: BaseException) -> BitConvertError:
    """The error that stands for a Ctrl-C or a SIGTERM which ended a run."""
    word, status = ("interrupted", INTERRUPTED) if isinstance(signal, KeyboardInterrupt) else ("terminated", TERMINATED)
    return with_status(status, word)


@contextmanager
def _handled(handler: Any, *names: str) -> Iterator[bool]:
    """Inside, the signals of these names have this handler. False outside of the main thread, which gets no signals."""
    import signal

    kinds = [getattr(signal, name) for name in names]
    try:
        before = [signal.signal(kind, handler) for kind in kinds]
    except ValueError:
        yield False
        return
    try:
        yield True
    finally:
        for kind, one in zip(kinds, before, strict=True):
            signal.signal(kind, one)


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises ``Terminated``, so that nothing half made is left; in the main thread alone."""

    def end(*_: Any) -> None:
        raise Terminated

    with _handled(end, "SIGTERM"):
        yield


@contextmanager
def deaf() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM do nothing: what is being ended is ended in order; in the main thread alone."""
    from signal import SIG_IGN

    with _handled(SIG_IGN, "SIGINT", "SIGTERM"):
        yield


class _Deferral:
    """Signals that wait for a moment in which nothing is lost by them."""

    def __init__(self) -> None:
        self.is_open = False
        self.pending: BaseException | None = None

    def take(self, number: int, _: object) -> None:
        """Handles a signal."""
        import signal

        self.pending = self.pending or (KeyboardInterrupt() if number == signal.SIGINT else Terminated())
        if self.is_open:
            self.come_through()

    def come_through(self) -> None:
        """Raises what is pending, once."""
        pending, self.pending = self.pending, None
        if pending is not None:
            raise pending


_deferrals: list[_Deferral] = []


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM come through only where ``interruptible`` is: a result that is there is not lost.

    In another thread than the main one, which gets no signals, it does nothing.
    """
    deferral = _Deferral()
    with _handled(deferral.take, "SIGINT", "SIGTERM") as is_main:
        if is_main:
            _deferrals.append(deferral)
        try:
            yield
        finally:
            if is_main:
                _deferrals.remove(deferral)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, and inside ``deferred``, Ctrl-C and SIGTERM come through: whatever waits or works for long."""
    import threading

    if not _deferrals or threading.current_thread() is not threading.main_thread():
        yield
        return
    deferral = _deferrals[-1]
    deferral.is_open = True
    try:
        deferral.come_through()
        yield
    finally:
        deferral.is_open = False
