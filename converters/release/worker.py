"""A process of a pool: it makes one attempt after another, and says what it is doing.

(number, attempt, Job) → ``release_one`` → Event …, Result | Later
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue

from converters.failures import Terminated, terminable
from converters.memory import collect_seldom
from converters.release.events import DOWNLOADING, Event, Listener, phase_of
from converters.release.job import Asked

BETWEEN = 1.0
"""Seconds between two events of the same step."""


def main(number: int, debug: bool) -> None:
    """Works for whoever holds the other end of the connection of this file number, until it is closed."""
    collect_seldom()
    connection = Connection(number)
    jobs: SimpleQueue[Asked | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, jobs), daemon=True).start()
    with suppress(KeyboardInterrupt, Terminated, BrokenPipeError), terminable():
        _work(connection, jobs, debug)


def _receive(connection: Connection, jobs: SimpleQueue[Asked | None]) -> None:
    """Takes jobs, also while one is being done; at the end of the connection this process has nobody to work for."""
    with suppress(EOFError, OSError):
        while True:
            jobs.put(connection.recv())
    jobs.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


def _work(connection: Connection, jobs: SimpleQueue[Asked | None], debug: bool) -> None:
    from converters.release.one import release_one, share_gates

    share_gates()
    while (asked := jobs.get()) is not None:
        number, attempt, job = asked
        steps = AttemptProgress(connection.send, job.name, attempt, number)
        connection.send(release_one(job, steps, waits=False, tell=_say_traceback if debug else None))


class AttemptProgress:
    """The progress of an attempt, as events: when a step begins, now and then while it takes long, when it ends.

    The end of the last step is that of the attempt.
    """

    def __init__(self, tell: Listener, name: str, attempt: int, number: int = 0) -> None:
        self._tell, self._name, self._attempt, self._number = tell, name, attempt, number
        self._step, self._told, self._begun = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        step, now = phase_of(what), time.monotonic()
        if step != self._step:
            if self._step:
                self._send(self._step, seconds=now - self._begun)
            self._step, self._begun, self._told = step, now, now - BETWEEN
        if now - self._told >= BETWEEN:
            self._told = now
            self._send(step, bytes=done if step == DOWNLOADING else None)

    def _send(self, step: str, seconds: float | None = None, bytes: int | None = None) -> None:
        told = Event(self._name, step, seconds, bytes, attempt=self._attempt, host=here(), number=self._number)
        self._tell(told)


def here() -> str:
    """This machine and this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _say_traceback() -> None:
    import traceback

    from converters.redaction import printable

    sys.stderr.write(printable(traceback.format_exc()))


if __name__ == "__main__":
    main(int(sys.argv[1]), "--debug" in sys.argv)
