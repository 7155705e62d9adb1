"""Progress on stderr: one bar for what is being done now, or lines where there is no terminal or they are asked for.

(what, done, total) … → bar | lines
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from converters.amounts import clock, size
from converters.cli.output import say
from converters.errors import UsageError
from converters.redaction import printable
from converters.release.events import DOWNLOADING, phase_of
from verify.protocols import Progress

BYTES, IMAGES = DOWNLOADING, "evaluating"
"""The steps that are counted in bytes, and in images: of these a rate and the time left are shown."""
FIRST, BETWEEN, LONGEST = 2.0, 2.0, 30.0
"""Seconds before the first line, between two lines of different steps, and between two of the same."""


@dataclass(frozen=True)
class Output:
    """The options of a command's output."""

    as_json: bool = False
    as_markdown: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other. Leave one out.")
        if self.as_json and self.as_markdown:
            raise UsageError("--json and --markdown both ask for stdout. Leave one out.")


@contextmanager
def shown(title: str, output: Output) -> Iterator[Progress]:
    """A callback (what, done, total), which shows nothing when the output is to be quiet.

    Inside, what libraries print is lost: stdout is for what the command says at the end.
    """
    from rich.console import Console

    console = Console(stderr=True)
    with redirect_stdout(StringIO()):
        if output.quiet:
            yield lambda *_: None
        elif output.verbose or not console.is_terminal:
            lines = Lines(title, output.verbose)
            try:
                yield lines
            finally:
                lines.end()
        else:
            with _bar(title, console) as step:
                yield step


class Lines:
    """A line for each step that ends, with its seconds; or, not ``verbose``, a line now and then of what takes long."""

    def __init__(self, title: str, verbose: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._title, self._verbose, self._now = title, verbose, now
        self._what = self._told = ""
        self._begun = self._last = now()
        self._first = 0
        self._quiet_until = self._last + FIRST

    def __call__(self, what: str, done: int, total: int) -> None:
        now, phase = self._now(), phase_of(what)
        if phase != self._what:
            self.end()
            self._what, self._begun, self._first = phase, now, done
        if not self._verbose and now >= self._quiet_until:
            wait = BETWEEN if phase != self._told else LONGEST
            if now - self._last >= wait:
                self._told, self._last = phase, now
                done_so_far = amount(what, done, total, now - self._begun, self._first)
                self._say(", ".join(filter(None, (what, done_so_far))))

    def end(self) -> None:
        """The step that was begun is done."""
        if self._verbose and self._what:
            self._say(f"{self._what}: {self._now() - self._begun:.1f} s")
        self._what = ""

    def _say(self, line: str) -> None:
        say(f"{self._title}: {line}", err=True)


def amount(what: str, done: int, total: int, seconds: float, first: int = 0) -> str:
    """Tells how much of a step is done: ``512.0 MB of 4.4 GB, 35.1 MB/s, 1:52 left``; empty where that is not known.

    ``seconds`` are those since ``first`` of it was done: what goes on after an interruption does not begin with none.
    """
    if what not in (BYTES, IMAGES):
        return f"{done} of {total}" if total > 1 else ""
    if what == BYTES and not done:
        return ""
    speed = (done - first) / seconds if seconds >= 1 else 0.0
    if what == IMAGES:
        parts, rate = [f"{done} of {total} images"], f"{speed:.3g} images/s"
    else:
        parts, rate = [f"{size(done)} of {size(total)}" if total else size(done)], f"{size(speed)}/s"
    parts += [rate] if speed else []
    parts += [f"{clock((total - done) / speed)} left"] if speed and total else []
    return ", ".join(parts)


@contextmanager
def _bar(title: str, console: Any) -> Iterator[Progress]:
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("[bold]{task.fields[title]}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    begun = {"": (time.monotonic(), 0)}
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", title=escape(printable(title)), total=None)

        def step(what: str, done: int, total: int) -> None:
            if what not in begun:
                begun.clear()
                begun[what] = time.monotonic(), done
            since, first = begun[what]
            text = amount(what, done, total, time.monotonic() - since, first)
            bar.update(task, description=escape(printable(text or what)), completed=done, total=total or None)

        yield step
