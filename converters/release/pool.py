"""Workers that are processes of this machine. Each may be killed at any time: another takes its place.

    Pool ── a socket a process ──→ ``worker.main``:  attempt → steps …, outcome

Nothing is shared but the sockets: there is no helper process that could die, and a process whose parent is gone ends
itself. A process has its share of the cores, set before NumPy and PyTorch are loaded, and loads them once.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Pipe, wait

from converters.errors import Scope, UsageError
from converters.failures import interruptible
from converters.placing import remove_leftovers
from converters.release.events import Event, Listener
from converters.release.job import Work
from converters.release.sharing import THREADS, Runs
from converters.release.workers import Lost, Outcome
from verify.oracles.numpy.threads import cores

GRACE = 6.0
"""Seconds that a process has to remove what is half made."""
BEGINNING, ENDING = 0.6, 8.0
"""Seconds for which no process is started beside another after a run was seen to begin, since more may begin with it,
and to end, since one that shared all of its work is about to."""
AFTER = 1.0
"""Seconds in which a process ends that has closed its connection."""
BROKEN = 10
"""Processes that may end by themselves, killed by nobody, one after the other before anything comes of them."""


class Pool:
    """``count`` processes, each started when it is first needed. ``debug``: tracebacks on stderr."""

    def __init__(self, count: int, listen: Listener, *, debug: bool = False) -> None:
        self._count, self._listen, self._debug = count, listen, debug
        self._processes: list[_Process] = []
        self._failed_in_a_row = 0
        self._sharing, self._runs, self._settled = Runs(), 0, 0.0

    def idle(self) -> int:
        if self._failed_in_a_row >= BROKEN:
            raise UsageError(
                f"{BROKEN} processes ended one after the other, and nothing was done. Run it with --jobs 1.", Scope.RUN
            )
        return max(0, self._share() - sum(process.number is not None for process in self._processes))

    def begin(self, number: int, attempt: int, job: Work) -> None:
        while True:
            process = next((each for each in self._processes if each.number is None), None) or self._started()
            try:
                process.begin(number, attempt, job)
                return
            except OSError:  # it was killed while it had nothing to do
                self._drop(process)

    def ended(self, seconds: float | None) -> Sequence[tuple[int, Outcome]]:
        busy = {process.connection: process for process in self._processes if process.number is not None}
        found: list[tuple[int, Outcome]] = []
        if seconds is not None and (left := self._settled - time.monotonic()) > 0:
            seconds = min(seconds, left)
        with interruptible():
            ready = wait(list(busy), seconds)
        for connection in ready:
            process = busy[connection]  # type: ignore[index]
            number = process.number
            assert number is not None, "it is busy"
            outcome = self._heard(process)
            if outcome is not None:
                found.append((number, outcome))
                if not isinstance(outcome, Lost):
                    self._failed_in_a_row = 0
        return found

    def stop(self) -> None:
        """Ends every process, and removes what those that had to be killed left half made."""
        for process in self._processes:
            process.end(signal.SIGKILL if process.job is None else signal.SIGTERM)
        limit = time.monotonic() + GRACE
        for process in self._processes:
            process.wait(max(0.1, limit - time.monotonic()))
            process.end(signal.SIGKILL)
            process.wait(GRACE)
            process.connection.close()
            if process.job is not None:
                remove_leftovers(process.job.place)
        self._processes.clear()
        self._sharing.close()

    def _share(self) -> int:
        """The number of processes that may work now: fewer while other runs would have more of them than cores."""
        now, runs = time.monotonic(), self._sharing.count()
        if runs != self._runs:
            self._settled = now + (BEGINNING if runs > self._runs else ENDING)
            self._runs = runs
        share = min(self._count, max(1, max(cores(), self._count) // runs))
        return share if now >= self._settled else min(share, max(1, len(self._processes)))

    def _heard(self, process: _Process) -> Outcome | None:
        """Takes a message of a process: a step, of which others are told, or the end of its attempt."""
        try:
            message = process.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._drop(process)
        if isinstance(message, Event):
            self._listen(message)
            return None
        process.number = process.job = None
        outcome: Outcome = message
        return outcome

    def _started(self) -> _Process:
        process = _Process(max(1, cores() // self._count), self._debug)
        self._processes.append(process)
        return process

    def _drop(self, process: _Process) -> Lost:
        self._processes.remove(process)
        process.connection.close()
        status = process.wait(AFTER)
        process.end(signal.SIGKILL)
        status = process.wait(GRACE) if status is None else status
        self._failed_in_a_row += status is not None and status >= 0
        if process.job is not None:
            remove_leftovers(process.job.place)
        return Lost(f"its process ended ({_in_words(status)})")


class _Process:
    """One process, and the attempt that it is at."""

    def __init__(self, threads: int, debug: bool) -> None:
        self.connection, theirs = Pipe()
        self.number: int | None = None
        self.job: Work | None = None
        environment = os.environ | dict.fromkeys(THREADS, str(threads))
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-P", "-m", "converters.release.worker", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [*command, "--debug"] if debug else command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if debug else subprocess.DEVNULL,  # of libraries: what is ours comes as events
                env=environment,
                start_new_session=True,  # Ctrl-C is for the parent, which ends its processes in order
            )

    def begin(self, number: int, attempt: int, job: Work) -> None:
        """Raises OSError where the process is gone."""
        self.connection.send((number, attempt, job))
        self.number, self.job = number, job

    def end(self, how: signal.Signals) -> None:
        """With what it started itself."""
        if self._process.poll() is None or how is signal.SIGKILL:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, how)

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None where it has not ended."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None


def _in_words(status: int | None) -> str:
    if status is None or status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
