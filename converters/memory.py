"""Memory of a process that is this program's own: what is freed is kept for the next tensor, garbage looked for seldom.

By itself, the C library gives every freed tensor back to the system, which fills the memory of the next one with zeros
again: of the largest networks, a tenth of an audit's processor time. And Python looks for garbage again and again while
PyTorch and transformers are imported, and once more among all of that at the end: a second of an audit, for hardly any.
"""

from __future__ import annotations

import atexit
import gc
import sys

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
    """From now on, garbage is looked for seldom, and not at the end of the process."""
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)
