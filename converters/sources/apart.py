"""A source that is read in a process of its own: where a C library may die of what it reads, loop, or reserve what a
file claims, it takes nothing else with it. The process may have what the file's size justifies; that of whoever asks,
and its threads, keep their limits.

    path → process: the reader itself, limited → names and shapes, then one tensor after another → float32 arrays

    asked: a line, the tensor's name as JSON; answered: a line of JSON, and behind it the values
"""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from converters.errors import BitConvertError, CheckpointError, Scope, UsageError
from converters.sources.base import Array, TensorFile, bounded
from verify.own_process import begin, read_array, read_line, send

ERRORS: Mapping[str, type[BitConvertError]] = {error.__name__: error for error in (CheckpointError, UsageError)}
KILLED = (-signal.SIGKILL, -signal.SIGTERM)
PATIENCE = 60
"""Seconds for one answer; a tensor of the largest network takes one."""
SECONDS, RATE = 5, 20_000_000
"""Seconds that the process may compute for an answer, and the bytes of the file for which it has one more."""
PROGRAM = "from {0} import {1} as reader; from {2} import serve; serve(reader)"


class SourceApart(TensorFile):
    """A file as ``reader`` reads it. Raises CheckpointError as it does, and where its process ends unasked."""

    reader: ClassVar[type[TensorFile]]

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return cls.reader.recognises(path, head)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        program = PROGRAM.format(self.reader.__module__, self.reader.__name__, __name__)
        more = str(bounded(path.stat().st_size))
        self._process, self._stream = begin(program, self.path, more, patience=PATIENCE)
        try:
            told = self._answer("the file")
        except BaseException:
            self.close()
            raise
        self.format, self.scheme, self.dropped = told["format"], told["scheme"], told["dropped"]
        self.shapes = {name: tuple(shape) for name, shape in told["shapes"]}

    def read(self, name: str) -> Array:
        with suppress(OSError):  # said by the answer that does not come
            send(self._stream, name)
        self._answer(name)
        try:
            return read_array(self._stream, self.shapes[name])
        except (OSError, ValueError):
            raise self._ended(name) from None

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()
        self._process.kill()
        self._process.wait()

    def _answer(self, what: str) -> dict[str, Any]:
        """The next line. Raises the error that it tells."""
        try:
            answer: dict[str, Any] = read_line(self._stream)
        except (OSError, ValueError):
            raise self._ended(what) from None
        if "error" in answer:
            raise ERRORS[answer["error"]](answer["message"])
        return answer

    def _ended(self, what: str) -> CheckpointError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self._process.returncode in KILLED:  # from outside, as where memory is short
            problem = "the process that reads it was killed. Was there too little memory? Run it again."
            return CheckpointError(f"{self.path}: {what} was not read: {problem}", Scope.PASSING)
        return CheckpointError(f"{self.path}: {what} is damaged: its library ends, or does not, where it is read.")


def serve(reader: type[TensorFile]) -> None:
    """Answers in the process until nobody asks."""
    number, path, more = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import h5py  # noqa: F401 - before the limit, in which it is no claim of the file's

    seconds = SECONDS + path.stat().st_size // RATE
    _limit(more)
    _allow(seconds)
    with socket.socket(fileno=number) as asked, asked.makefile("rwb") as stream:

        @contextmanager
        def telling() -> Iterator[None]:
            try:
                yield
            except BitConvertError as error:
                send(stream, {"error": type(error).__name__, "message": str(error)})

        with telling(), reader.open(path) as source:
            told = {"format": source.format, "scheme": source.scheme, "dropped": dict(source.dropped)}
            send(stream, {**told, "shapes": list(source.shapes.items())})
            for line in stream:
                _allow(seconds)
                with telling():
                    send(stream, {}, source.read(json.loads(line)))


def _limit(more: int) -> None:
    """Lets this process reserve ``more`` bytes beyond what it has, on Linux alone; elsewhere it does nothing."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + more
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _allow(seconds: int) -> None:
    """Ends this process when it has computed for so many seconds from now, where that can be limited."""
    with suppress(OSError, ValueError):
        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))
