"""A new file, written in order as fast as the disk takes it, beside the work of the thread that fills it; durable.

    reserve() → one of two buffers → the file, in a thread; whoever watches (a hash), in another → close(): fsync

Where the file system allows it, space is reserved first and writes go past the page cache (O_DIRECT), which spares a
copy of every byte; elsewhere they are plain.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

BUFFER = 80 << 20
"""Bytes of a buffer at most; of smaller files an eighth, but no less than ``PIECE``."""
PIECE = 8 << 20
"""Bytes that are written at a time, as soon as that many are filled."""
PAGE = mmap.PAGESIZE
"""The largest alignment that O_DIRECT wants of offsets, lengths and addresses."""
DIRECT = getattr(os, "O_DIRECT", 0)
REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)
"""Errors of a file system that cannot write directly, or reserve space."""


class WriteBuffer:
    """A new file of ``size`` bytes. Open with ``with``; it is whole and on disk once ``close`` has returned.

    ``watch`` is called in a thread of its own with all bytes, piece by piece, in order. Raises FileExistsError where
    there is a file, and OSError as the file system does, in a later call at the latest.
    """

    def __init__(self, path: Path, size: int, watch: Callable[[memoryview], object] | None = None) -> None:
        self._size = size
        self._file = path.open("xb", buffering=0)
        _prepare(self._file.fileno(), size)
        self.capacity = _pages(min(BUFFER, max(PIECE, size // 8), max(size, 1)))
        self._buffers = [_buffer(self.capacity + PAGE) for _ in range(2)]
        self._tasks: list[list[Future[Any]]] = [[], []]
        self._turn = self._sent = self._filled = self._offset = 0
        self._watch = watch
        self._watcher, self._writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def reserve(self, count: int) -> memoryview:
        """Returns a buffer for the next bytes of the file, at most ``capacity``, to be filled before the next call."""
        if self._filled + count > len(self._buffers[self._turn]):
            self._next_buffer()
        elif self._filled - self._sent >= PIECE:
            self._send(self._filled // PAGE * PAGE)
        start, self._filled = self._filled, self._filled + count
        return self._buffers[self._turn][start : self._filled]

    def write(self, data: bytes | memoryview) -> None:
        """Takes a copy of the next bytes."""
        rest = memoryview(data).cast("B")
        while rest:
            count = min(len(rest), self.capacity)
            self.reserve(count)[:] = rest[:count]
            rest = rest[count:]

    def close(self) -> None:
        """Waits for the disk. Raises ValueError where less was written than ``size``, or more."""
        self._send(self._filled)
        for tasks in self._tasks:
            _wait(tasks)
        if self._offset + self._filled != self._size:
            raise ValueError(f"{self._offset + self._filled} bytes were written of a file of {self._size}")
        self._file.truncate(self._size)  # the last write was of whole pages
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watcher.shutdown()
        self._writer.shutdown()
        self._file.close()

    def _next_buffer(self) -> None:
        """Sends the whole pages of a buffer; the bytes after them begin the other one, once that is free."""
        self._send(self._filled // PAGE * PAGE)
        rest = self._buffers[self._turn][self._sent : self._filled]
        self._turn = 1 - self._turn
        _wait(self._tasks[self._turn])
        self._tasks[self._turn] = []
        self._buffers[self._turn][: len(rest)] = rest
        self._offset, self._sent, self._filled = self._offset + self._sent, 0, len(rest)

    def _send(self, end: int) -> None:
        """Hands the buffer's next bytes, up to ``end``, to both threads."""
        buffer, tasks = self._buffers[self._turn], self._tasks[self._turn]
        for start in range(self._sent, end, PIECE):
            stop = min(start + PIECE, end)
            tasks.append(self._writer.submit(self._put, buffer[start : _pages(stop)], self._offset + start))
            if self._watch is not None:
                tasks.append(self._watcher.submit(self._watch, buffer[start:stop]))
        self._sent = end

    def _put(self, data: memoryview, offset: int) -> None:
        while data:
            try:
                count = os.pwrite(self._file.fileno(), data, offset)
            except OSError as error:
                if error.errno not in REFUSED or not _set_direct(self._file.fileno(), False):
                    raise
                continue
            data, offset = data[count:], offset + count


def _buffer(length: int) -> memoryview:
    """Memory at a page's beginning, in large pages where the system has them: the disk is handed each by itself."""
    memory = mmap.mmap(-1, length)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def _prepare(file: int, size: int) -> None:
    """Reserves the space and turns direct writes on, where the file system knows how."""
    with suppress(OSError):
        _set_direct(file, True)
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in REFUSED:
                raise


def _set_direct(file: int, wanted: bool) -> bool:
    """Whether this changed anything."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    changed = flags | DIRECT if wanted else flags & ~DIRECT
    fcntl.fcntl(file, fcntl.F_SETFL, changed)
    return changed != flags


def _pages(size: int) -> int:
    """``size``, rounded up to whole pages."""
    return -(-size // PAGE) * PAGE


def _wait(tasks: list[Future[Any]]) -> None:
    for task in tasks:
        task.result()
