"""The one way out of the commands: what is printed holds no secret and no control character, and any name survives.

    text, values → ``say()``, ``say_json()`` → stdout, stderr;  ``guarded_libraries()`` around work → everything else

A name that the terminal's encoding does not have, or that is not text at all, is written with escapes. What ``--help``
and ``--list`` need imports nothing.
"""

from __future__ import annotations

import codecs
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from converters.errors import UsageError

if TYPE_CHECKING:
    import logging
    import threading

_ESCAPED_IN_JSON = "[\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
"""Characters that JSON allows and a terminal obeys, or no encoding has."""
_PLAIN = str.maketrans("·–—…×’“”─━│┃┏┓┗┛┡┩╇┳┻╋├┤┬┴┼└┘┌┐", '---.x\'""--||' + "+" * 19)
"""Signs of ours, for terminals that have none but ASCII."""


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces characters that a stream's encoding does not have by a similar sign, else by an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


codecs.register_error("bit-convert", _readable)


_screens: list[Callable[[str], None]] = []
"""Functions that print above what stays at the end of the terminal; the last counts."""


class OutputClosed(BaseException):
    """Raised where whoever was to read stdout has gone, as ``| head`` does."""


def say_own(text: str) -> None:
    """Prints a text that is ours from beginning to end."""
    _print(text, False, False)


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints text that may quote anything."""
    from converters.redaction import printable

    _print(printable(text), err, nl)


def say_styled(text: str) -> None:
    """Prints text with colours of ours, which was made of printable texts; newlines are its own."""
    from converters.redaction import redacted

    _print(redacted(text), False, False)


def say_json(content: Any) -> None:
    """Prints one strict JSON document. A path in it is the path itself, whatever its bytes are (surrogateescape)."""
    _print(_json(content), False, True)


def say_json_list(head: Mapping[str, Any], key: str, items: Iterable[Any]) -> None:
    """Prints one strict JSON document: ``head``, and under ``key`` a list, of which one item is in memory at a time."""
    begun = _json({**head, key: None}).removesuffix("null\n}")
    _print(f"{begun}[", False, False)
    between = "\n"
    for item in items:
        _print(between + textwrap.indent(_json(item), "    "), False, False)
        between = ",\n"
    _print("]\n}" if between == "\n" else "\n  ]\n}", False, True)


def _json(content: Any) -> str:
    import json
    import re

    from converters.redaction import redacted_values

    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
    text = json.dumps(redacted_values(content), indent=2, ensure_ascii=not unicode, allow_nan=False)
    return re.sub(_ESCAPED_IN_JSON, lambda match: f"\\u{ord(match[0]):04x}", text)


def say_traceback() -> None:
    """Prints the traceback of the exception that is being handled, if any."""
    if sys.exc_info()[0] is not None:
        import traceback

        say(traceback.format_exc(), err=True, nl=False)


@contextmanager
def tolerant_streams() -> Iterator[None]:
    """Inside, no character stops a print."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "reconfigure")]
    before = [stream.errors or "strict" for stream in streams]
    _set_errors(streams, ["bit-convert"] * len(streams))
    try:
        yield
    finally:
        _set_errors(streams, before)


@contextmanager
def guarded_libraries() -> Iterator[None]:
    """Inside, what libraries log and warn of, and what threads die of, is printable too."""
    import logging
    import threading
    import warnings

    from converters.redaction import printable

    factory, formatted, died = logging.getLogRecordFactory(), warnings.formatwarning, threading.excepthook
    logging.setLogRecordFactory(_printable_records(factory))
    warnings.formatwarning = lambda *words, **more: printable(formatted(*words, **more))
    threading.excepthook = _say_death
    try:
        yield
    finally:
        threading.excepthook = died
        warnings.formatwarning = formatted
        logging.setLogRecordFactory(factory)


@contextmanager
def above(show: Callable[[str], None]) -> Iterator[None]:
    """Inside, ``show`` prints what goes to the terminal that stderr is."""
    _screens.append(show)
    try:
        yield
    finally:
        _screens.remove(show)


def _print(text: str, err: bool, nl: bool) -> None:
    if _screens and (err or sys.stdout.isatty()):
        _screens[-1](text)
        return
    try:
        click.echo(text, err=err, nl=nl)
    except BrokenPipeError:
        _let_go_of(sys.stdout)
        raise OutputClosed from None
    except OSError as error:
        if err:  # there is no other place to say it
            return
        _let_go_of(sys.stdout)
        raise UsageError(f"standard output cannot be written: {error.strerror}.") from error


def _let_go_of(stream: TextIO) -> None:
    """Python would try once more to write what is left, when it ends, and exit with 120."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _set_errors(streams: list[Any], errors: list[str]) -> None:
    for stream, how in zip(streams, errors, strict=True):
        with suppress(OSError, ValueError):  # a stream that was closed meanwhile
            stream.reconfigure(errors=how)


def _printable_records(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    from converters.redaction import printable

    def record(*words: Any, **more: Any) -> logging.LogRecord:
        made = factory(*words, **more)
        with suppress(Exception):  # logging itself says what is wrong with the arguments
            made.msg, made.args = printable(made.getMessage()), ()
        return made

    return record


def _say_death(death: threading.ExceptHookArgs) -> None:
    if death.exc_type is not SystemExit:
        from converters.redaction import one_line

        say(f"a thread ended with {death.exc_type.__name__}: {one_line(death.exc_value)}", err=True)
