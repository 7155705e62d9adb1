"""The memory that there is, and that an attempt is expected to take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from converters.release.estimate import BASE_MEMORY, STREAM_MEMORY, bytes_of, memory_of
from converters.release.job import Job

CGROUP = Path("/sys/fs/cgroup")


def expected(job: Job) -> int:
    """Bytes that an attempt at a job takes at most; of a checkpoint that is no variant, as its size lets expect."""
    variant, verify = job.request.variant, job.request.options.verify
    if variant is not None:
        return memory_of(variant.network, verify)
    size = bytes_of(Path(job.request.checkpoint or ""))
    return BASE_MEMORY + 2 * size if verify else STREAM_MEMORY


def available() -> float:
    """Bytes that this process and its children may still take; infinite where the system does not say."""
    return min(_free(), _left_in_group())


def _free() -> float:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return float("inf")


def _left_in_group() -> float:
    """Bytes that are left of a container's limit (cgroup v2)."""
    with suppress(OSError, ValueError):
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        return limit - int((CGROUP / "memory.current").read_text(encoding="ascii"))
    return float("inf")
