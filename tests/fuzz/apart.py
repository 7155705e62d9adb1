"""Reads ``.h5`` files one after another in one process, where the program starts a process for each.

HDF5's library may die of a file, loop or reserve what a file claims, and starting a process takes a hundred times as
long as reading a small file. The reader, its limit and the errors are those of ``converters.sources.apart``;
one file of ``WHOLE`` is read by that.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from converters.errors import BitConvertError, CheckpointError
from converters.sources import apart
from converters.sources.base import TensorFile, bounded

FILES = 500
"""That one process reads: what HDF5 keeps of damaged ones is then forgotten."""
WHOLE = 200
"""Of so many files one is read as the program does, in a process of its own."""
PATIENCE = 2
"""Seconds until a process that gives no answer is ended; the program waits longer."""


class ReaderApart:
    """A process, forked where it is asked, that reads what it is told to until it dies or has read ``FILES``."""

    def __init__(self) -> None:
        self._process: Any = None
        self._answers: Any = None
        self._read = 0

    def read(self, path: Path) -> None:
        """Reads every tensor. Raises CheckpointError as the program does, and AssertionError for any other error."""
        if self._process is None or self._read == FILES:
            self._start()
        self._read += 1
        with suppress(OSError):
            self._answers.send(path)
        try:
            kind, said = self._answers.recv() if self._answers.poll(PATIENCE) else ("ended", "")
        except (EOFError, OSError):
            kind, said = "ended", ""
        if kind == "ended":
            self.stop()
        assert kind != "error", said
        if kind != "read":
            raise CheckpointError(said or f"{path}: HDF5's library ends, or does not, where it is read.")

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("fork")
        self._answers, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._answers), daemon=True)
        self._process.start()
        theirs.close()
        self._read = 0

    def stop(self) -> None:
        """Ends the process, which is started again for the next file."""
        if self._process is None:
            return
        self._answers.close()  # which ends one that still listens
        self._process.join(1)
        self._process.kill()
        self._process.join()
        self._process = None


def _serve(asked: Any, other_end: Any) -> None:
    from converters.sources.keras import KerasArchiveReader, KerasReader

    other_end.close()
    with suppress(EOFError):
        while True:
            path = asked.recv()
            apart._limit(bounded(path.stat().st_size))
            asked.send(_outcome(KerasArchiveReader if path.suffix == ".keras" else KerasReader, path))


def _outcome(reader: type[TensorFile], path: Path) -> tuple[str, str]:
    """``read``, ``refused`` with what was said, or ``error`` with what broke the promise."""
    start = time.process_time()
    kind, said = "read", ""
    try:
        with reader.open(path) as source:
            for name in source.shapes:
                source.read(name)
    except BitConvertError as error:
        kind, said = "refused", str(error)
    except Exception as error:
        return "error", "".join(traceback.format_exception(error, limit=-4))
    spent = time.process_time() - start
    return (kind, said) if spent <= 1 else ("error", f"{spent:.1f} s")
