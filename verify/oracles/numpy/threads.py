"""Threads: the oracle's own, and those of the library that multiplies matrices for NumPy (BLAS).

tasks → ``at_once()`` → done, several at a time; ``one_thread()`` → BLAS in the thread that calls it, and in no other
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


def at_once(work: Callable[..., None], tasks: Sequence[tuple[Any, ...]], workers: int) -> None:
    """Does the work for each task; NumPy computes without the interpreter's lock.

    Where the tasks keep all workers busy, each product has one thread: BLAS would have them wait for each other.
    """
    if min(workers, len(tasks)) <= 1:
        for task in tasks:
            work(*task)
        return
    with one_thread() if len(tasks) >= workers else nullcontext(), ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work, *task) for task in tasks]:
            done.result()


def one_thread() -> AbstractContextManager[Any]:
    """A context in which BLAS has one thread: for many small products, between which its threads would spin."""
    context: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return context


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """The number of threads that OMP_NUM_THREADS asks of every library, or else that of the processors."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(asked)) if asked.isdecimal() else cores()
