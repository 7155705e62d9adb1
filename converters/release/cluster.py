"""Workers of a Dask cluster that is there already, each for one attempt at a time.

Submitting every job at once, with Dask's own retries, ends in KilledWorker and a hang: of a worker that dies, every
task that was assigned to it counts as suspicious. So a worker gets one task, whose key is never used again, a future is
released as soon as it is done, and it is the engine that tries again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from queue import Empty, SimpleQueue
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.errors import HubError, Scope, UsageError
from converters.failures import interruptible
from converters.redaction import one_line, printable
from converters.release.events import Event, Listener
from converters.release.job import JobResult, Later, Work
from converters.release.worker import AttemptProgress
from converters.release.workers import Lost, Outcome

if TYPE_CHECKING:
    from distributed import Client, Future

WITHOUT_WORKERS = 600.0
"""Seconds after which a cluster that has no worker, or cannot be reached, is given up."""
CONNECT = 30.0
"""Seconds for the first connection."""
LOOK = 1.0
"""Seconds after which a worker that is gone is noticed."""


class _Attempt(NamedTuple):
    """An attempt that runs."""

    worker: str
    future: Future
    client: Client
    """The connection it was begun on: what a scheduler knew is gone with it."""


class Cluster:
    """The workers of the scheduler at ``address``, such as tcp://host:8786 or tls://host:8786, for which Dask's
    configuration names the certificates.

    Raises UsageError where Dask is not installed, HubError where there is no scheduler.
    """

    def __init__(self, address: str, listen: Listener) -> None:
        self._address, self._listen = address, listen
        self._topic = f"bit-convert-{token_hex(4)}"
        self._running: dict[int, _Attempt] = {}
        self._done: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self._refused: list[int] = []
        self._seen = time.monotonic()
        self._client: Client | None = self._connected(CONNECT)

    def idle(self) -> int:
        if workers := self._workers():
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > WITHOUT_WORKERS:
            raise HubError(
                f"{printable(self._address)}: no worker for {WITHOUT_WORKERS / 60:.0f} minutes. "
                "Start some, and run it again.",
                Scope.RUN,
            )
        return len(self._free(workers))

    def begin(self, number: int, attempt: int, job: Work) -> None:
        worker = next(iter(self._free(self._workers())), None)
        if worker is None or self._client is None:  # it has gone since
            self._refused.append(number)
            return
        key = f"{self._topic}-{number}-{token_hex(4)}"
        future = self._client.submit(
            attempted, number, attempt, job, self._topic, key=key, workers=[worker], retries=0, pure=False
        )
        self._running[number] = _Attempt(worker, future, self._client)
        future.add_done_callback(lambda _: self._done.put((number, key)))

    def ended(self, seconds: float | None) -> Sequence[tuple[int, Outcome]]:
        later = Later("no worker is free", LOOK, asked=False)
        found: list[tuple[int, Outcome]] = [(number, later) for number in self._refused]
        self._refused.clear()
        if found:
            return found
        with suppress(Empty), interruptible():
            number, key = self._done.get(timeout=LOOK if seconds is None else min(seconds, LOOK))
            if number in self._running and self._running[number].future.key == key:
                found.append((number, self._outcome(number)))
        workers = self._workers()
        for number, attempt in [*self._running.items()]:
            if attempt.worker not in workers or attempt.client is not self._client:
                found.append((number, self._lost(number)))
        return found

    def stop(self) -> None:
        """Cancels what runs; a task that has begun ends in its own time, and a later run finds what it made."""
        if self._client is not None:
            with suppress(Exception):  # a scheduler that is gone
                self._client.cancel([attempt.future for attempt in self._running.values()], force=True)
            with suppress(Exception):
                self._client.close(timeout=5)
        self._running.clear()

    def _outcome(self, number: int) -> Outcome:
        future = self._running[number].future
        try:
            outcome: JobResult | Later = future.result(timeout=CONNECT)
        except Exception as error:  # of the worker's process, of its Python, of the connection
            return self._lost(number, one_line(f"{type(error).__name__}: {error}", 200))
        del self._running[number]
        future.release()
        return outcome

    def _lost(self, number: int, why: str = "") -> Lost:
        attempt = self._running.pop(number)
        with suppress(Exception):  # the scheduler may be gone as well
            if attempt.client.status == "running":
                attempt.future.cancel(force=True)
        return Lost(f"its worker {printable(attempt.worker)} is gone" + (f" ({why})" if why else ""))

    def _free(self, workers: list[str]) -> list[str]:
        busy = {attempt.worker for attempt in self._running.values()}
        return [worker for worker in workers if worker not in busy]

    def _workers(self) -> list[str]:
        """The addresses of all workers; none while the scheduler cannot be reached, which is tried again."""
        if self._client is None or self._client.status != "running":
            self._client = None
            with suppress(HubError):
                self._client = self._connected(LOOK)
        if self._client is None:
            return []
        try:
            return list(self._client.scheduler_info(n_workers=-1)["workers"])
        except Exception:  # whatever the connection ends with
            return []

    def _connected(self, seconds: float) -> Client:
        try:
            from distributed import Client
        except ImportError:
            raise UsageError("--scheduler needs Dask: pip install 'bit-convert[dask]'.") from None
        try:
            client = Client(self._address, timeout=seconds, set_as_default=False, name="bit-convert")
            client.subscribe_topic(self._topic, self._told)
        except Exception as error:
            problem = f"no scheduler of Dask: {one_line(error, 200)}"
            raise HubError(f"{printable(self._address)}: {problem}. Check --scheduler.", Scope.RUN) from error
        return client

    def _told(self, event: Any) -> None:
        with suppress(Exception):  # an event of another version's worker
            self._listen(Event(**event[1]["event"]))


def attempted(number: int, attempt: int, job: Work, topic: str) -> JobResult | Later:
    """Makes an attempt, on a worker."""
    from distributed import get_worker

    from converters.release.one import release_one, share_gates

    def tell(event: Event) -> None:
        get_worker().log_event(topic, {"event": asdict(event)})

    share_gates()
    return release_one(job, AttemptProgress(tell, job.name, attempt, number), waits=False)
