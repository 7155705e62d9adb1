"""Whoever watches a run over several models: a live table on a terminal, lines where there is none, files.

Event → ``Watch`` → table or lines on stderr, the file of ``--events``, release.json and release.html
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.amounts import clock, size
from converters.choices import PATIENCE
from converters.cli.output import above, say, say_traceback
from converters.cli.progress import BYTES, LONGEST
from converters.redaction import printable
from converters.release.engine import Engine
from converters.release.events import Event, Listener
from converters.release.job import Job, JobResult, State, Work
from converters.release.shard import Shard
from converters.release.worker import AttemptProgress, here
from verify.protocols import Progress

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

ENDS = frozenset(state.value for state in State)
PUT_BACK = ("retried", "postponed")
ROWS, FRAME = 16, 4
"""Models that the table shows at most; lines of the terminal that are not for them."""
TOLD_FROM = 1.0
"""Seconds from which on a step that ended is worth a line."""
Key = tuple[str, int]
"""A model, and the number of its job."""


class Watch:
    """The listeners of one run over ``jobs``; each event goes to all of them.

    ``record`` is the folder for the record, ``events`` the file for events, and with ``shown`` a table or
    lines on stderr tell what is being done. Raises UsageError where the file of events cannot be opened.
    """

    def __init__(
        self,
        jobs: Sequence[Any],
        *,
        shown: bool,
        verbose: bool,
        record: Path | None = None,
        events: Path | None = None,
        command: str = "",
        shard: Shard | None = None,
    ) -> None:
        self._open, self._listeners, self._record = ExitStack(), list[Listener](), None
        self._hosts: dict[int, str] = {}
        self._lock = threading.Lock()
        if events is not None:
            from converters.release.log import EventLog

            log = EventLog(events, _warn)
            self._open.callback(log.close)
            self._listeners.append(log)
        if record is not None:
            from converters.release.record import Record

            self._record = Record(record, jobs, _warn, shard=shard, command=command)
            self._open.callback(self._record.close)
            self._listeners.append(self._record)
        if shown:
            self._listeners.append(self._open.enter_context(_shown(len(jobs), verbose)))

    def __call__(self, event: Event) -> None:
        with self._lock:  # a cluster's events come in a thread of Dask's
            if event.host:
                self._hosts[event.number] = event.host
            else:  # of the engine, on what a worker did
                event = replace(event, host=self._hosts.get(event.number, ""))
            if event.step in ENDS:
                self._hosts.pop(event.number, None)
            for listener in self._listeners:
                listener(event)

    def add(self, result: JobResult) -> None:
        """A job has come to its end."""
        if self._record is not None:
            self._record.add(result.number, result)

    def close(self) -> None:
        """The run is over: what is shown disappears, what is written is complete."""
        self._open.close()

    @contextmanager
    def steps(self, number: int, attempt: int, job: Work) -> Iterator[Progress]:
        """The progress of an attempt in this process, as events. Inside, what libraries print is lost."""
        with redirect_stdout(StringIO()):
            yield AttemptProgress(self, job.name, attempt, number)

    def alone(self, job: Job, progress: Progress) -> Progress:
        """The same of the only job of a run, beside what shows its progress."""
        steps = AttemptProgress(self, job.name, 1)

        def both(what: str, done: int, total: int) -> None:
            progress(what, done, total)
            steps(what, done, total)

        self(Event(job.name, "started", host=here()))
        return both

    def ended_alone(self, job: Job, result: JobResult) -> None:
        """The only job has come to its end."""
        self(Event(job.name, result.state, result.seconds, error=str(result.error or ""), host=here()))


def local_engine(
    jobs: Sequence[Work],
    count: int,
    watch: Watch,
    memory: Callable[[Any], int],
    *,
    debug: bool,
    patience: float = PATIENCE,
) -> Engine:
    """An engine on this machine: in ``count`` processes (0: one a core), or for one in this process."""
    from converters.release.estimate import memory_available
    from converters.release.pool import Pool
    from converters.release.workers import Here
    from verify.oracles.numpy.threads import cores

    count = min(count or cores(), len(jobs))
    if count > 1:
        return Engine(jobs, Pool(count, watch, debug=debug), watch, patience, memory=memory, budget=memory_available())
    here = Here(watch.steps, bars=False, tell=say_traceback if debug else None)
    return Engine(jobs, here, watch, patience)


def record_folder(jobs: Sequence[Job]) -> Path:
    """The folder that holds the models' folders; of several such, the one around them.

    Where that is above the working directory, the one of them that holds most.
    """
    folders = Counter(job.place.parent for job in jobs)
    around = Path(os.path.commonpath(folders))
    return around if around not in Path.cwd().parents else folders.most_common(1)[0][0]


@contextmanager
def _shown(total: int, verbose: bool) -> Iterator[Listener]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True)
    if verbose or not console.is_terminal:
        yield EventLines(verbose)
        return

    def show(text: str) -> None:
        console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)

    table = LiveTable(total, lambda: console.height)
    live = Live(table, console=console, transient=True, redirect_stdout=False, refresh_per_second=4)
    with live, above(show):
        yield table


@dataclass
class Running:
    """The step that a model is at, since when, and when it was last told of."""

    step: str
    since: float
    told: float
    attempt: int = 1
    bytes: int | None = None


class EventLines:
    """Lines with times: ``12:03:04 BiT-M-R50x1: verifying, 3.2 s``, for steps that end and for models that do.

    A step that takes less than a second has one only if ``verbose``; one that takes long has one now and then.
    """

    def __init__(self, verbose: bool, tell: Callable[[str], None] | None = None) -> None:
        self._verbose, self._tell = verbose, tell or _warn
        self._running: dict[Key, Running] = {}

    def __call__(self, event: Event) -> None:
        at = self._running.get(_key(event))
        if at is not None and (event.step != at.step or event.seconds is not None):
            self._end(event, self._running.pop(_key(event)))
        if event.step in ENDS or event.step in PUT_BACK:
            if event.step != State.NOT_TRIED:
                self._say(event, event.step, event.seconds)
        elif event.seconds is None:
            self._go_on(event)

    def _go_on(self, event: Event) -> None:
        at = self._running.setdefault(_key(event), Running(event.step, event.time, event.time))
        if event.time - at.told >= LONGEST:
            at.told = event.time
            self._say(event, event.step, event.time - at.since)

    def _end(self, event: Event, at: Running) -> None:
        seconds = event.time - at.since
        if at.step != "started" and (self._verbose or seconds >= TOLD_FROM):
            self._say(event, at.step, seconds)

    def _say(self, event: Event, step: str, seconds: float | None) -> None:
        took = "" if seconds is None else f", {seconds:.1f} s"
        again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        reason = f": {event.error.splitlines()[0]}" if event.error and step in PUT_BACK else ""
        moment = time.strftime("%H:%M:%S", time.localtime(event.time))
        self._tell(f"{moment} {event.model}: {step}{again}{took}{reason}")


class LiveTable:
    """The models that are being worked at, and how many have come to which end."""

    def __init__(self, total: int, height: Callable[[], int], now: Callable[[], float] = time.time) -> None:
        self.total, self.height, self.now = total, height, now
        self._running: dict[Key, Running] = {}
        self._ended: Counter[str] = Counter()
        self._begun = now()

    def __call__(self, event: Event) -> None:
        if event.step in ENDS or event.step in PUT_BACK:
            self._running.pop(_key(event), None)
            if event.step in ENDS:
                self._ended[event.step] += 1
        elif event.seconds is None:
            self._step(event)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(Text(self.title(), style="bold", no_wrap=True, overflow="ellipsis"), self.table())

    def table(self) -> Table:
        """The table as it is now; no higher than the terminal, but for the line of totals."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_edge=False)
        for name in ("Model", "Step", "Since", ""):
            table.add_column(name, no_wrap=True, overflow="ellipsis", header_style="dim")
        room = max(1, min(ROWS, self.height() - FRAME))
        running = list(self._running.items())
        for (model, _), at in running[: room if len(running) <= room else room - 1]:
            again = f"attempt {at.attempt}" if at.attempt > 1 else ""
            amount = f" {size(at.bytes)}" if at.bytes else ""
            words = (model, at.step + amount, clock(self.now() - at.since), again)
            table.add_row(*(escape(printable(word)) for word in words))
        if len(running) > room:
            table.add_row(f"and {len(running) - room + 1} more")
        return table

    def title(self) -> str:
        """The line of totals: ``12 of 40 done in 3:01: 11 published, 1 failed``."""
        counts = ", ".join(f"{count} {state}" for state, count in [*self._ended.items()])  # rich asks in a thread
        took = clock(self.now() - self._begun)
        return f"{self._ended.total()} of {self.total} done in {took}" + (f": {counts}" if counts else "")

    def _step(self, event: Event) -> None:
        at = self._running.get(_key(event))
        if at is None or at.step != event.step:
            at = Running(event.step, event.time, event.time)
        at.attempt, at.bytes = event.attempt, event.bytes if event.step == BYTES else None
        self._running[_key(event)] = at


def _key(event: Event) -> Key:
    return event.model, event.number


def _warn(line: str) -> None:
    say(line, err=True)
