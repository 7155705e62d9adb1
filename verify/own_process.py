"""A process of this program's own, which imports what this one imports, from the same places, and no program of the
user's: it has nothing of this one's but one end of a socket.

    program, arguments → ``begin()`` → the process, a stream to and from it
"""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any


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
