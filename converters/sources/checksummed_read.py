"""A file is read once in order, and its sha256 computed meanwhile, beside readers that seek in it.

file → pieces, in this thread; their sha256, in another → ``hexdigest`` reads what is left
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from threading import Event
from typing import Any, Self

PIECE = 1 << 22
"""Bytes that are read at a time: they are hashed while they are in the processor's cache."""
BUFFERS = 3
"""One is filled while one is hashed, and one waits."""


class ChecksummedRead:
    """A reading of an open file from its beginning to its end. Use it in a ``with`` statement. There is a ``hexdigest``
    if ``hashed``. Raises InterruptedError once ``stopped``, from another thread."""

    def __init__(self, file: int, hashed: bool, stopped: Event) -> None:
        self._file, self._hashed, self._stopped = file, hashed, stopped
        self._digest = hashlib.sha256()
        self._hasher = ThreadPoolExecutor(1)
        self._buffers = cycle([memoryview(bytearray(PIECE)) for _ in range(BUFFERS)])
        self._hashing: deque[Future[Any]] = deque()
        self._at = 0

    def until(self, end: int) -> Iterator[memoryview]:
        """Yields the bytes from where the reading is up to ``end``, in pieces, each valid until the next is asked for.

        Raises EOFError where the file ends before.
        """
        while self._at < end:
            piece = self._read(min(PIECE, end - self._at))
            if not piece:
                raise EOFError("its data ends early")
            yield piece

    def hexdigest(self) -> str:
        """Reads the rest, and returns the sha256 of the whole file."""
        while self._read(PIECE):
            pass
        for task in self._hashing:
            task.result()
        return self._digest.hexdigest()

    def _read(self, count: int) -> memoryview:
        if self._stopped.is_set():
            raise InterruptedError("its digest is not wanted any more")
        if len(self._hashing) == BUFFERS:
            self._hashing.popleft().result()
        buffer = next(self._buffers)
        piece = buffer[: os.preadv(self._file, [buffer[:count]], self._at)]
        if self._hashed:
            self._hashing.append(self._hasher.submit(self._digest.update, piece))
        self._at += len(piece)
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hasher.shutdown(cancel_futures=True)
