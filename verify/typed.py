"""Plain values as values of a type, by msgspec; from several threads, one after the other.

msgspec (0.22, for one) looks at a type when it first meets it, and gives others what it has seen so far: a thread that
meets the type meanwhile ends the process with a segmentation fault.

    plain values, or JSON; a type → ``converted()``, ``decoded()`` → a value of the type, or msgspec's error
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

T = TypeVar("T")

_ALONE = threading.RLock()


def converted(content: Any, kind: type[T], *, strict: bool = True) -> T:
    """A value of a type, as ``msgspec.convert`` makes it."""
    import msgspec

    with _ALONE:
        return msgspec.convert(content, kind, strict=strict)


def decoded(text: bytes, kind: type[T]) -> T:
    """A value of a type, as ``msgspec.json.decode`` makes it."""
    import msgspec

    with _ALONE:
        return msgspec.json.decode(text, type=kind)
