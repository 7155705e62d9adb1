"""The processors that this process may use, and the threads that it is to use.

Nothing is imported for it: whoever sets threads does so before NumPy and PyTorch are loaded.
"""

from __future__ import annotations

import os


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """The number of threads that OMP_NUM_THREADS asks of every library, or else that of the processors."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdecimal() else cores()
