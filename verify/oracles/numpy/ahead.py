"""Reading ahead: the tensor that is needed next is read while the one before it is computed with.

names in the order of the walk → ``ReadAhead.read()`` … → values
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import pairwise
from typing import Generic, TypeVar

N = TypeVar("N")
T = TypeVar("T")


class ReadAhead(Generic[N, T]):
    """Reads tensors in a thread of its own, so that never two are read at once; of ``names``, the one after the one
    that is asked for as well. What ``read`` raises, it raises for the tensor that is asked for. ``close`` it."""

    def __init__(self, read: Callable[[N], T], names: Sequence[N]) -> None:
        self._read, self._following = read, dict(pairwise(names))
        self._thread = ThreadPoolExecutor(1)
        self._begun: dict[N, Future[T]] = {}

    def read(self, name: N) -> T:
        """Returns what ``read`` gives for a name, from memory where that was done ahead."""
        future = self._begun.pop(name, None) or self._begin(name)
        following = self._following.get(name)
        if following is not None and following not in self._begun:
            self._begun[following] = self._begin(following)
        return future.result()

    def close(self) -> None:
        self._begun.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _begin(self, name: N) -> Future[T]:
        return self._thread.submit(copy_context().run, self._read, name)
