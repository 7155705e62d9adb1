"""The engine's decisions, with workers and a clock that do as they are told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from converters.conversion import Request
from converters.errors import CheckpointError, HubError, Scope, UsageError
from converters.failures import Terminated, interruptible
from converters.options import ConvertOptions
from converters.release.engine import RETRIES, Engine
from converters.release.events import Event
from converters.release.job import Job, JobResult, Later, State
from converters.release.workers import Lost, Outcome

Script = Callable[[Job, int], Outcome]
"""What comes of an attempt, from the job and the number of attempts so far."""


def jobs(number: int) -> list[Job]:
    return [Job(Request(None, Path(f"c{index}"), Path(f"m{index}"), ConvertOptions())) for index in range(number)]


def done(job: Job, state: State = State.CONVERTED) -> JobResult:
    return JobResult(job.name, state)


def failed(job: Job, error: Exception) -> JobResult:
    return JobResult(job.name, State.FAILED, error=error)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.001)


class Scripted:
    """``places`` workers whose attempts take a second each."""

    def __init__(self, script: Script, clock: Clock, places: int = 1) -> None:
        self._script, self._clock, self._places = script, clock, places
        self._running: dict[int, Job] = {}
        self.begun: list[str] = []
        self.most = 0
        self.stopped = False

    def idle(self) -> int:
        return self._places - len(self._running)

    def begin(self, number: int, attempt: int, job: Job) -> None:
        self.begun.append(job.name)
        self._running[number] = job
        self.most = max(self.most, len(self._running))

    def ended(self, seconds: float | None) -> Sequence[tuple[int, Outcome]]:
        self._clock.time += 1
        number, job = next(iter(self._running.items()))
        del self._running[number]
        return [(number, self._script(job, self.begun.count(job.name)))]

    def stop(self) -> None:
        self.stopped = True


class Run:
    def __init__(self, script: Script, number: int = 3, places: int = 1, **settings) -> None:
        self.clock, self.events = Clock(), []
        self.workers = Scripted(script, self.clock, places)
        self.engine = Engine(
            jobs(number), self.workers, self.events.append, now=self.clock, sleep=self.clock.sleep, **settings
        )
        self.results = list(self.engine.results())

    @property
    def states(self) -> dict[str, State]:
        assert len({result.name for result in self.results}) == len(self.results), "one result a job"
        return {result.name: result.state for result in self.results}

    def result(self, name: str) -> JobResult:
        return next(result for result in self.results if result.name == name)


def test_every_job_is_done_once():
    run = Run(lambda job, attempt: done(job), number=7, places=3)
    assert sorted(run.workers.begun) == [f"c{index}" for index in range(7)]
    assert set(run.states.values()) == {State.CONVERTED}
    assert run.workers.most == 3
    assert run.engine.stopped is None


def test_a_model_s_own_failure_is_its_result_and_the_others_go_on():
    run = Run(lambda job, _: failed(job, CheckpointError("c1: broken")) if job.name == "c1" else done(job))
    assert run.states == {"c0": State.CONVERTED, "c1": State.FAILED, "c2": State.CONVERTED}
    assert run.workers.begun.count("c1") == 1
    assert run.engine.stopped is None


@pytest.mark.parametrize("places", [1, 2])
def test_after_a_failure_of_the_run_nothing_else_begins_and_what_runs_finishes(places):
    full = UsageError("out: cannot be written: No space left on device", Scope.RUN)
    run = Run(lambda job, _: failed(job, full) if job.name == "c0" else done(job), number=5, places=places)
    begun = [f"c{index}" for index in range(places)]
    assert run.workers.begun == begun
    assert run.states == {
        "c0": State.FAILED,
        **dict.fromkeys(begun[1:], State.CONVERTED),
        **{f"c{index}": State.NOT_TRIED for index in range(places, 5)},
    }
    for result in run.results:
        assert result.state != State.NOT_TRIED or (result.exit_status == 2 and "No space left" in str(result.error))
    assert run.engine.stopped is full


def test_a_passing_failure_is_tried_again_once_something_has_worked():
    gone = HubError("gave up", Scope.PASSING)
    run = Run(lambda job, attempt: failed(job, gone) if job.name == "c1" and attempt <= 2 else done(job))
    assert run.states["c1"] == State.CONVERTED
    assert run.workers.begun == ["c0", "c1", "c2", "c1", "c1"]
    assert run.clock.time > 50, "with growing pauses"


def test_a_failure_that_never_passes_ends():
    gone = HubError("gave up", Scope.PASSING)
    run = Run(lambda job, _: failed(job, gone) if job.name == "c1" else done(job))
    assert run.states["c1"] == State.FAILED
    assert run.workers.begun.count("c1") == 1 + RETRIES


def test_without_any_network_each_is_tried_once():
    run = Run(lambda job, _: failed(job, HubError("no network", Scope.PASSING)))
    assert run.workers.begun == ["c0", "c1", "c2"]
    assert set(run.states.values()) == {State.FAILED}


def test_an_attempt_that_is_lost_is_made_again_and_not_for_ever():
    run = Run(lambda job, attempt: Lost("SIGKILL") if job.name == "c1" and attempt <= RETRIES else done(job))
    assert run.states["c1"] == State.CONVERTED
    run = Run(lambda job, _: Lost("its process ended (SIGKILL)") if job.name == "c1" else done(job))
    assert run.states == {"c0": State.CONVERTED, "c1": State.FAILED, "c2": State.CONVERTED}
    assert "SIGKILL" in str(run.result("c1").error)
    assert run.result("c1").exit_status == 2


def test_a_wait_that_the_hub_asks_for_is_no_failure_and_others_go_on_meanwhile():
    def script(job: Job, attempt: int) -> Outcome:
        return Later("429", 150, asked=True) if job.name == "c0" and attempt <= 3 else done(job)

    run = Run(script)
    assert set(run.states.values()) == {State.CONVERTED}
    assert run.workers.begun[:4] == ["c0", "c1", "c2", "c0"]
    assert run.clock.time >= 450


def test_patience_is_counted_from_the_last_good_end():
    def forever(job: Job, attempt: int) -> Outcome:
        return Later("429", 150, asked=True) if job.name == "c0" else done(job)

    run = Run(forever, patience=1000)
    assert run.states == {"c0": State.FAILED, "c1": State.CONVERTED, "c2": State.CONVERTED}
    assert run.result("c0").exit_status == 4
    assert 900 <= run.clock.time <= 1100


@pytest.mark.slow
def test_a_job_that_another_run_is_at_goes_behind_the_others_for_as_long_as_it_takes():
    def busy(job: Job, attempt: int) -> Outcome:
        return Later("another run is at it", 1, asked=False) if job.name == "c0" and attempt < 5000 else done(job)

    run = Run(busy, patience=10)
    assert list(run.states) == ["c1", "c2", "c0"]
    assert set(run.states.values()) == {State.CONVERTED}


def test_the_largest_goes_first_and_memory_is_never_exceeded_but_by_one_alone():
    sizes = {"c0": 1, "c1": 5, "c2": 3, "c3": 12, "c4": 2}
    taken: list[int] = []

    class Weighed(Scripted):
        def begin(self, number: int, attempt: int, job: Job) -> None:
            super().begin(number, attempt, job)
            taken.append(sum(sizes[each.name] for each in self._running.values()))

    clock = Clock()
    workers = Weighed(lambda job, _: done(job), clock, places=4)
    engine = Engine(jobs(5), workers, lambda _: None, memory=lambda job: sizes[job.name], budget=8, now=clock)
    assert len(list(engine.results())) == 5
    assert workers.begun[0] == "c3"
    assert max(taken[1:]) <= 8
    assert workers.most > 1


def test_an_interrupted_run_has_a_result_for_every_job():
    clock, told = Clock(), count()

    def script(job: Job, _: int) -> Outcome:
        if next(told) == 1:
            raise KeyboardInterrupt
        return done(job)

    workers = Scripted(script, clock, places=2)
    engine = Engine(jobs(5), workers, lambda _: None, now=clock)
    results, stop = [], UsageError("interrupted")
    with pytest.raises(KeyboardInterrupt):
        results += engine.results()
    assert not workers.stopped
    results += engine.abandon(stop)
    assert workers.stopped
    assert sorted(result.name for result in results) == [f"c{index}" for index in range(5)]
    assert [result.state for result in results] == [State.CONVERTED, *[State.NOT_TRIED] * 4]


def test_what_happens_is_told_as_it_happens():
    run = Run(lambda job, attempt: Lost("SIGKILL") if (job.name, attempt) == ("c0", 1) else done(job), number=2)
    told = [(event.model, event.step, event.attempt) for event in run.events]
    assert told == [
        ("c0", "started", 1),
        ("c0", "retried", 1),
        ("c1", "started", 1),
        ("c1", "converted", 1),
        ("c0", "started", 2),
        ("c0", "converted", 2),
    ]
    assert all(isinstance(event, Event) and event.time > 0 for event in run.events)


@pytest.mark.parametrize(("end", "status"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_a_run_that_a_signal_ends_gives_every_result_and_stops_the_workers(end, status):
    told = count()

    def script(job: Job, _: int) -> Outcome:
        if next(told) == 2:
            raise end
        return done(job)

    clock, results = Clock(), list[JobResult]()
    workers = Scripted(script, clock)
    engine = Engine(jobs(5), workers, lambda _: None, now=clock)
    engine.run(results.append)
    assert [result.exit_status for result in results] == [0, 0, status, status, status]
    assert engine.is_interrupted
    assert workers.stopped


def test_a_signal_waits_until_the_result_that_is_there_was_taken():
    results: list[JobResult] = []

    def take(result: JobResult) -> None:
        if not results:
            os.kill(os.getpid(), signal.SIGINT)
        results.append(result)

    clock = Clock()

    class Interruptible(Scripted):
        def ended(self, seconds: float | None) -> Sequence[tuple[int, Outcome]]:
            with interruptible():
                return super().ended(seconds)

    engine = Engine(jobs(3), Interruptible(lambda job, _: done(job), clock), lambda _: None, now=clock)
    engine.run(take)
    assert [result.state for result in results] == [State.CONVERTED, State.NOT_TRIED, State.NOT_TRIED]
