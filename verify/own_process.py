"""A process of this program's own, which imports what this one imports, from the same places, and no program of the
user's: it has nothing of this one's but one end of a socket.

    program, arguments → ``begin()`` → the process, a stream to and from it
    on either side: content, arrays → ``send()`` → a line of JSON, values behind it → ``read_line()``, ``read_array()``
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def begin(
    program: str, *arguments: str, patience: float | None = None, **options: Any
) -> tuple[subprocess.Popen[bytes], Any]:
    """Begins Python with ``program``, which finds the number of its end of the socket in ``sys.argv[1]`` and the
    arguments behind it. The stream, of bytes both ways, raises TimeoutError where nothing comes for ``patience``
    seconds; ``options`` are those of Popen."""
    ours, theirs = socket.socketpair()
    program = f"import sys; sys.path[:] = sys.argv[{2 + len(arguments)}:]; {program}"
    with ours, theirs:  # the stream keeps this end
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(theirs.fileno()), *arguments, *sys.path],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **options,
        )
        ours.settimeout(patience)
        return process, ours.makefile("rwb")


def send(stream: Any, content: object, *arrays: npt.NDArray[np.float32]) -> None:
    """Sends a line of JSON, and behind it the values of arrays."""
    stream.write(json.dumps(content).encode() + b"\n")
    for values in arrays:
        stream.write(_bytes_of(np.ascontiguousarray(values, np.float32)))
    stream.flush()


def read_line(stream: Any) -> Any:
    """The content of the next line. Raises OSError or ValueError where none comes."""
    return json.loads(stream.readline())


def read_array(stream: Any, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """The values of an array behind a line. Raises OSError or ValueError where not all of them come."""
    values = np.empty(shape, np.float32)
    if stream.readinto(_bytes_of(values)) != values.nbytes:
        raise ValueError("the values are cut off")
    return values


def _bytes_of(values: npt.NDArray[np.float32]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data
