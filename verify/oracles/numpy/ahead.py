"""Reading ahead: the tensor that is needed next is read while the one before it is computed with.

names in the order of the walk → ``ReadAhead.read()`` … → values
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


class ReadAhead:
    """Reads tensors in a thread of its own, so that never two are read at once; of ``names``, the one after the one
    that is asked for as well. What ``read`` raises, it raises for the tensor that is asked for. ``close`` it."""

    def __init__(self, read: Callable[[str], Array], names: Sequence[str]) -> None:
        self._read, self._following = read, dict(pairwise(names))
        self._thread = ThreadPoolExecutor(1)
        self._begun: dict[str, Future[Array]] = {}

    def read(self, name: str) -> Array:
        """The values of a tensor, from memory where they have been read ahead."""
        future = self._begun.pop(name, None) or self._thread.submit(self._read, name)
        following = self._following.get(name)
        if following is not None and following not in self._begun:
            self._begun[following] = self._thread.submit(self._read, following)
        return future.result()

    def close(self) -> None:
        self._begun.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)
