"""Memory of the process: what is freed is kept for the next tensor.

By itself, the C library gives every freed tensor back to the system, which fills the memory of the next one with zeros
again: of the largest networks, a tenth of an audit's processor time.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt``."""
MOST = 2**31 - 1
GROWTH = 1 << 26
"""Bytes by which the heap grows at least."""


def keep_freed_memory() -> None:
    """Has glibc, where that is the C library, keep what is freed from now on."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, MOST), (TOP_PAD, GROWTH)):
            mallopt(parameter, value)
