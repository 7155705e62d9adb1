"""Memory of a process that is this program's own: what is freed is kept for the next tensor, garbage looked for seldom,
and nothing taken apart at the end.

By itself, the C library gives every freed tensor back to the system, which fills the memory of the next one with zeros
again: of the largest networks, a tenth of an audit's processor time. And Python looks for garbage again and again while
PyTorch and transformers are imported, and at the end takes all of that apart before the system takes the memory back:
more than a second of an audit.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

THRESHOLDS = 50_000, 20, 100
"""Objects, and collections of younger ones, after which garbage is looked for; Python's are 700, 10 and 10."""

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt``."""
MOST = 2**31 - 1
GROWTH = 1 << 26
"""Bytes by which the heap grows at least."""


def keep_freed_memory() -> None:
    """Has glibc, where that is the C library, keep what is freed from now on."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, MOST), (TOP_PAD, GROWTH)):
            mallopt(parameter, value)


def collect_seldom() -> None:
    """From now on, garbage is looked for seldom."""
    gc.set_threshold(*THRESHOLDS)


def leave(status: int) -> NoReturn:
    """Ends the process as Python does: threads are waited for, and what is to be done at exit is done. Only objects are
    left to the system: of some, libraries would say on stderr that they were leaked."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    try:
        for stream in streams:
            stream.flush()
    except (OSError, ValueError):
        sys.exit(status)  # Python says what could not be written
    with suppress(KeyboardInterrupt):  # who asks a second time waits for no thread
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        for stream in streams:
            stream.flush()
    os._exit(status)
