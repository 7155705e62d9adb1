"""Workers make attempts: the protocol that every kind of worker has, and the worker that is this very process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from converters.failures import interruptible
from converters.release.job import Asked, JobResult, Later, Work
from converters.release.one import release_one
from converters.release.sharing import Runs, use_threads
from verify.oracles.numpy.threads import cores, threads
from verify.protocols import Progress


@dataclass(frozen=True)
class Lost:
    """An attempt that ended with its process, or with the connection to it."""

    why: str


Outcome = JobResult | Later | Lost


class Workers(Protocol):
    """Some places to make attempts in, each one at a time."""

    def idle(self) -> int:
        """The number of attempts that can be begun now. Raises BitConvertError where there will be none any more."""

    def begin(self, number: int, attempt: int, job: Work) -> None:
        """Begins an attempt at the job of this number."""

    def ended(self, seconds: float | None) -> Sequence[tuple[int, Outcome]]:
        """Waits for an attempt to end, no longer than ``seconds``; returns those that have."""

    def stop(self) -> None:
        """Ends every attempt, at once, and removes what is half made."""


class Here:
    """This process: ``ended`` makes the attempt that was begun, with this run's share of the threads.

    ``shown`` gives the progress of an attempt, by the job's number, its own, and the job.
    """

    def __init__(
        self,
        shown: Callable[[int, int, Work], AbstractContextManager[Progress]],
        *,
        bars: bool,
        tell: Callable[[], None] | None,
    ) -> None:
        self._shown, self._bars, self._tell = shown, bars, tell
        self._begun: Asked | None = None
        self._sharing, self._most = Runs(), threads()
        self._threads = self._most

    def idle(self) -> int:
        return 0 if self._begun else 1

    def begin(self, number: int, attempt: int, job: Work) -> None:
        self._begun = number, attempt, job

    def ended(self, seconds: float | None) -> Sequence[tuple[int, Outcome]]:
        assert self._begun is not None, "something was begun"
        number, _, job = self._begun
        self._share_threads()
        with self._shown(*self._begun) as progress, interruptible():
            outcome = release_one(job, progress, waits=False, bars=self._bars, tell=self._tell)
        self._begun = None
        return [(number, outcome)]

    def stop(self) -> None:
        """The attempt ended when the exception came through that led here."""
        self._sharing.close()

    def _share_threads(self) -> None:
        share = max(1, min(self._most, cores() // self._sharing.count()))
        if share != self._threads:
            use_threads(share)
            self._threads = share
