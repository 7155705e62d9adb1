"""Events of a release, as they happen: one event a step of a model, to whoever listens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

DOWNLOADING = "downloading"
"""The step that is counted in bytes."""
_TENSOR = re.compile(r"(?<=\w) [A-Za-z_]\w*[./]\S+$")


@dataclass(frozen=True)
class Event:
    """One step of one model begins or ends."""

    model: str
    """The job's name; empty of what concerns the whole run."""
    step: str
    """Something that is being done, such as ``downloading``, ``verifying`` and ``publishing``, or a ``State``, which is
    the end of the job, or ``waiting``, ``retried``, ``postponed``."""
    seconds: float | None = None
    """The duration of what ended with this event."""
    bytes: int | None = None
    """Bytes that were read, written or sent in it, where that is known."""
    error: str = ""
    """The message, without secrets, of what failed."""
    attempt: int = 1
    host: str = ""
    """The machine, and the process, that did it."""
    number: int = 0
    """The place of its job among those of the run: several may be of one model, in other layouts."""
    time: float = field(default_factory=time.time)
    """Seconds since 1970."""


Listener = Callable[[Event], None]


def phase_of(what: str) -> str:
    """The step without the tensor or layer that it is at: ``writing``, ``verifying NumPy float64``."""
    return _TENSOR.sub("", what.partition(", ")[0])
