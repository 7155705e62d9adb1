"""The engine of a release: which job runs next, what is tried again, and what a failure means for the others.

    jobs → attempts, as workers and memory allow, largest first → Result …, one a job, as they come

A failure that passes is tried again; one of the model's own is its result, and the others go on; one of the run's (a
full disk, a refused token) lets what runs finish, and nothing else begin. A job that another run is at, and one that
the Hub asks to wait for, is put back, and others go on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converters.errors import BitConvertError, HubError, Scope, UsageError, with_status
from converters.failures import ENDED, Terminated, deaf, deferred, ended_by, interruptible
from converters.release.events import Event, Listener
from converters.release.job import JobResult, Later, State, Work
from converters.release.workers import Lost, Outcome, Workers

RETRIES = 3
"""Attempts at a job after one that was lost, or failed in passing."""
PAUSE = 10.0
"""Seconds before the first other attempt after a failure in passing; four times as long before each that follows."""
LOOK = 1.0
"""Seconds after which the engine looks again whether there is room for an attempt."""


@dataclass
class Task:
    """A job that is not done yet."""

    number: int
    job: Work
    memory: int
    """Bytes that an attempt is expected to take."""
    attempt: int = 0
    failures: int = 0
    ready: float = 0.0
    """The time before which it is not to be tried."""
    begun: float = 0.0


@dataclass
class Engine:
    """One run over ``jobs``. ``memory`` estimates an attempt's bytes, of which ``budget`` are there in all."""

    jobs: Sequence[Work]
    workers: Workers
    listen: Listener
    patience: float = 3600.0
    """Seconds for which a server that asks to wait is waited for, while nothing else comes to its end."""
    memory: Callable[[Any], int] = lambda job: 0
    budget: float = float("inf")
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _waiting: list[Task] = field(default_factory=list, init=False)
    _running: dict[int, Task] = field(default_factory=dict, init=False)
    stopped: BitConvertError | None = field(default=None, init=False)
    """The failure that ended the run before its time."""
    _works: bool = field(default=False, init=False)
    """Something has come to a good end, so a failure in passing is no wrong name."""
    _asked_since: float | None = field(default=None, init=False)
    """When a server began to ask for patience, since the last good end."""

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C or SIGTERM ended the run."""
        return self.stopped is not None and self.stopped.exit_status in ENDED

    def run(self, add: Callable[[JobResult], object]) -> None:
        """Gives ``add`` the result of each job, and stops the workers; after Ctrl-C and SIGTERM, too."""
        try:
            with deferred():
                for result in self.results():
                    add(result)
        except (KeyboardInterrupt, Terminated) as signal:
            with deaf():
                for result in self.abandon(ended_by(signal)):
                    add(result)
        finally:
            self.workers.stop()

    def results(self) -> Iterator[JobResult]:
        """The result of each job, in the order in which they end."""
        tasks = [Task(number, job, self.memory(job)) for number, job in enumerate(self.jobs)]
        self._waiting = sorted(tasks, key=lambda task: -task.memory)
        while self._waiting or self._running:
            yield from self._admit()
            if self._running:
                may_begin_more = self.stopped is None and self._waiting
                for number, outcome in self.workers.ended(LOOK if may_begin_more else None):
                    yield from self._end(self._running.pop(number), outcome)
            elif self._waiting:
                with interruptible():
                    self.sleep(min(LOOK, max(0.0, min(task.ready for task in self._waiting) - self.now())))

    def abandon(self, error: BitConvertError) -> Iterator[JobResult]:
        """Stops the workers; what has no result gets one that says that it was not tried."""
        self.workers.stop()
        self._waiting += self._running.values()
        self._running.clear()
        self.stopped = error
        yield from self._not_tried()

    def _admit(self) -> Iterator[JobResult]:
        """Begins what can be begun now; the largest first that fits, and one in any case."""
        if self.stopped is None:
            try:
                idle = self.workers.idle()
            except BitConvertError as error:
                self.stopped, idle = error, 0
            for _ in range(idle):
                task = self._next()
                if task is None:
                    break
                self._begin(task)
        if self.stopped is not None and not self._running:
            yield from self._not_tried()

    def _next(self) -> Task | None:
        taken = sum(task.memory for task in self._running.values())
        ready = (task for task in self._waiting if task.ready <= self.now())
        return next((task for task in ready if not self._running or taken + task.memory <= self.budget), None)

    def _begin(self, task: Task) -> None:
        self._waiting.remove(task)
        task.attempt, task.begun = task.attempt + 1, self.now()
        self._running[task.number] = task
        self._tell(task, "started")
        self.workers.begin(task.number, task.attempt, task.job)

    def _end(self, task: Task, outcome: Outcome) -> Iterator[JobResult]:
        if isinstance(outcome, JobResult):
            yield from self._judge(task, outcome)
        elif isinstance(outcome, Later):
            yield from self._put_back(task, outcome)
        elif task.failures < RETRIES:
            self._try_again(task, outcome.why, 0.0)
        else:
            yield self._result(task, JobResult(task.job.name, State.FAILED, error=_given_up(task, outcome)))

    def _judge(self, task: Task, result: JobResult) -> Iterator[JobResult]:
        """Finds what a result means for the run."""
        error = result.error
        if error is None:
            self._works, self._asked_since = True, None
        elif error.scope is Scope.PASSING and task.failures < RETRIES and (self._works or error.exit_status != 4):
            self._try_again(task, str(error), PAUSE * 4**task.failures)
            return
        elif error.scope is Scope.RUN:
            self.stopped = self.stopped or error
        yield self._result(task, result)

    def _put_back(self, task: Task, later: Later) -> Iterator[JobResult]:
        """It goes behind the others; where a server asks for it, only for as long as patience lasts."""
        now = self.now()
        if later.asked:
            self._asked_since = now if self._asked_since is None else self._asked_since
            if now + later.seconds - self._asked_since > self.patience:
                error = HubError(f"{task.job.name}: gave up, --patience is over: {later.reason}", Scope.PASSING)
                yield self._result(task, JobResult(task.job.name, State.FAILED, error=error))
                return
        task.ready = now + later.seconds
        task.attempt -= not later.asked
        self._waiting.append(task)
        self._tell(task, "postponed", later.seconds, later.reason)

    def _try_again(self, task: Task, why: str, pause: float) -> None:
        task.failures += 1
        task.ready = self.now() + pause
        self._waiting.append(task)
        self._tell(task, "retried", self.now() - task.begun, why)

    def _not_tried(self) -> Iterator[JobResult]:
        assert self.stopped is not None, "the run has ended"
        error = self.stopped
        for task in sorted(self._waiting, key=lambda task: task.number):
            message = f"{task.job.name}: not tried: {str(error).splitlines()[0]}"
            why = with_status(error.exit_status, message, error.scope)
            yield self._result(task, JobResult(task.job.name, State.NOT_TRIED, error=why))
        self._waiting.clear()

    def _result(self, task: Task, result: JobResult) -> JobResult:
        self._tell(task, result.state, result.seconds, str(result.error or ""))
        return replace(result, number=task.number)

    def _tell(self, task: Task, step: str, seconds: float | None = None, error: str = "") -> None:
        name, attempt = task.job.name, task.attempt
        self.listen(Event(name, step, seconds, error=error, attempt=attempt, number=task.number))


def _given_up(task: Task, lost: Lost) -> BitConvertError:
    return UsageError(
        f"{task.job.name}: given up: {lost.why}, {task.attempt} times.\n"
        "If there was too little memory for it, lower --jobs; otherwise run it again with --jobs 1."
    )
