"""Threads: the oracle's own, and those of the library that multiplies matrices for NumPy (BLAS).

tasks → ``at_once()`` → results, several at a time; items → ``beside()`` → results, each while the next item is made;
``one_thread()`` → BLAS without threads of its own, in the whole process
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

N = TypeVar("N")
T = TypeVar("T")


def at_once(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], workers: int) -> list[T]:
    """Does the work for each task, and returns the results; NumPy computes without the interpreter's lock.

    Where the tasks keep all workers busy, each product has one thread: BLAS would have them wait for each other.
    """
    if min(workers, len(tasks)) <= 1:
        return [work(*task) for task in tasks]
    with one_thread() if len(tasks) >= workers else nullcontext(), ThreadPoolExecutor(workers) as pool:
        return [done.result() for done in [pool.submit(work, *task) for task in tasks]]


def beside(work: Callable[[N], T], items: Iterable[N]) -> list[T]:
    """The work's result for each item, in a thread of its own: that of one item while the next is made."""
    with ThreadPoolExecutor(1) as thread:
        results: list[T] = []
        begun: Future[T] | None = None
        for item in items:
            if begun is not None:
                results.append(begun.result())
            begun = thread.submit(copy_context().run, work, item)
        return results if begun is None else [*results, begun.result()]


_LOCK = threading.Lock()
_limits: list[Any] = []
"""One item a thread that is inside ``one_thread``; the first knows what to give back."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, BLAS has one thread: for many small products, between which its threads would spin.

    It has no other way than in the whole process. The last of several threads that are inside gives back what the first
    one found: each by itself would give back what another had set.
    """
    with _LOCK:
        _limits.append(_limits[0] if _limits else _libraries().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _LOCK:
            limit = _limits.pop()
            if not _limits:
                limit.restore_original_limits()


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
