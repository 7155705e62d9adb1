"""The cores of this machine, which the runs of one user share.

Each run holds a locked folder in the cache for as long as it lives; the others count these. Of two runs with a process
a core each has half of them at work, and of two runs in one process each computes with half of the threads: else each
waits for the other, with everything in memory twice.
"""

from __future__ import annotations

import os
import sys

from converters.errors import UsageError
from converters.files import cache_folder
from converters.placing import LockedFolder

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def use_threads(count: int) -> None:
    """Has NumPy, PyTorch and what is loaded later compute with so many threads from now on, in the whole process."""
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(count, user_api="blas")
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


class Runs:
    """The runs of this user, of which this is one until it is closed."""

    def __init__(self) -> None:
        self._folder: LockedFolder | None = None

    def count(self) -> int:
        """The number of runs, with this one; 1 where the cache cannot be written, or its file system has no locks."""
        try:
            self._folder = self._folder or LockedFolder(cache_folder() / "runs", "run-")
            return max(1, self._folder.count())
        except (OSError, UsageError):
            return 1

    def close(self) -> None:
        """This run is over."""
        if self._folder is not None:
            self._folder.release()
            self._folder = None
