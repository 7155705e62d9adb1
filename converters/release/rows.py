"""The content of release.json: a row a model, totals, and how rows of several runs become one list.

Job, Event, JobResult → ``Row``;  rows → ``Content`` → release.json, release.html
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from converters.auditing.report_check import read_report
from converters.conversion import failed_folder
from converters.errors import BitConvertError, DefectError, ParityError
from converters.files import PARITY, PARITY_PAGE
from converters.redaction import printable_values
from converters.release.again import again, audit, is_ours
from converters.release.events import Event
from converters.release.job import Job, JobResult, State
from verify.typed import converted

SCHEMA: Literal[1] = 1
"""Version of release.json's layout."""

RowState = Literal["failed", "not tried", "running", "waiting", "published", "converted", "unchanged", "planned"]
"""A job's ``State``, or what it is at before that; in the order of rows, since failures are to be looked at first."""
ORDER: tuple[RowState, ...] = get_args(RowState)
TOLD = ("published", "converted", "unchanged", "planned", "failed", "not tried", "running", "waiting")
"""The states in the order in which a headline tells them."""
BEGUN = ("waiting", "running")
"""States of a model that has not ended."""
Key = str
Figure = Annotated[float, msgspec.Meta(ge=0)] | None
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a release."""

    model: str
    state: RowState
    exit_status: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    """That of its job; null until it has ended."""
    verdict: Literal["passed", "failed", "inconclusive"] | None = None
    """That of its proof; null where there was none."""
    ratio: Figure = None
    """The largest error as a multiple of float32 rounding; see parity.json."""
    seconds: Figure = None
    """The duration of the attempt that ended it."""
    bytes: Count = None
    """The size of the files that were made."""
    folder: str = ""
    """The folder that is, or was to be, made: from that of release.json if it lies below it."""
    discarded: bool = False
    """Whether the folder was removed when it was published."""
    link: str = ""
    """The address at which it was published."""
    report: str = ""
    """The page of the proof that it did not pass."""
    error: str = ""
    next: str = ""
    """The command to type next: to try it again, or to audit it."""
    step: str = ""
    """The step that it is at, while it runs."""
    attempt: Count = 1
    host: str = ""
    """The machine that did it, or does it."""
    updated: float = 0.0
    """Seconds since 1970."""

    @property
    def key(self) -> Key:
        """The same for the same model in another run's record."""
        return self.folder or self.model


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers over all rows."""

    models: int
    states: dict[str, int]
    """State → number of models, in the order of rows."""
    seconds: float
    bytes: int

    @property
    def headline(self) -> str:
        """The outcome in a line: ``38 of 40 published, 2 failed``."""
        if not self.states:
            return "no models"
        found = [(state, self.states[state]) for state in TOLD if state in self.states]
        (state, count), *rest = found
        first = f"all {count} {state}" if not rest and count > 1 else f"{count} of {self.models} {state}"
        return ", ".join([first, *(f"{count} {state}" for state, count in rest)])


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """All of release.json."""

    schema: Literal[1] = SCHEMA
    version: str
    """The version of bit-convert."""
    command: str
    """That of the run which wrote this."""
    updated: float
    """Seconds since 1970."""
    finished: bool
    """Whether no model waits or runs."""
    totals: Totals
    models: list[Row]
    """Failures first."""

    @classmethod
    def of(cls, rows: Iterable[Row], version: str, command: str) -> Content:
        models = sorted(rows, key=lambda row: (ORDER.index(row.state), row.model.casefold(), row.folder))
        counts = Counter(row.state for row in models)
        totals = Totals(
            models=len(models),
            states={state: counts[state] for state in ORDER if counts[state]},
            seconds=round(sum(row.seconds or 0.0 for row in models), 3),
            bytes=sum(row.bytes or 0 for row in models),
        )
        finished = not counts["waiting"] and not counts["running"]
        return cls(
            version=version,
            command=command,
            updated=round(time.time(), 3),
            finished=finished,
            totals=totals,
            models=models,
        )


def waiting(jobs: Iterable[Job], folder: Path) -> list[Row]:
    """The rows of jobs that were not begun; ``folder`` is that of the record."""
    now = time.time()
    return _safe(
        {"model": job.name, "state": "waiting", "folder": _place(job, folder), "next": again(job), "updated": now}
        for job in jobs
    )


def _place(job: Job, folder: Path) -> str:
    """The folder to make, where its name is known before the checkpoint is."""
    request = job.request
    return relative(request.place(), folder) if request.variant or request.output else ""


def after(row: Row, event: Event) -> Row:
    """The row of a job that has not ended, after an event of it."""
    if row.state not in BEGUN or event.step in ORDER:
        return row
    put_back = event.step in ("waiting", "retried", "postponed")
    return _replaced(
        row,
        state="waiting" if put_back else "running",
        step=event.step,
        error=event.error,
        attempt=event.attempt,
        host=event.host or row.host,
        updated=event.time,
    )


def not_tried(row: Row, before: Row | None, exit_status: int) -> Row:
    """The row of a job whose turn did not come: what came of the model in an earlier run is still so."""
    if before is not None:
        return _replaced(before, updated=time.time())
    return _replaced(row, state="not tried", exit_status=exit_status, step="", updated=time.time())


def ended(before: Row, job: Job, result: JobResult, folder: Path, earlier: Row | None = None) -> Row:
    """The row of a job that has ended; figures of what was there already are those of an ``earlier`` run's row."""
    conversion, error = result.conversion, result.error
    report = conversion.report if conversion else None
    page = ""
    if isinstance(error, ParityError) and conversion is None:
        failed = failed_folder(folder / before.folder)
        with suppress(OSError, BitConvertError):
            report = read_report(failed / PARITY)
            page = relative(failed / PARITY_PAGE, folder)
    row = _row(
        model=before.model,
        state=result.state.value,
        exit_status=result.exit_status,
        verdict=report.verdict if report is not None else None,
        ratio=report.ratio if report is not None else None,
        seconds=round(result.seconds, 3),
        bytes=result.bytes,
        discarded=result.discarded,
        folder=relative(conversion.folder, folder) if conversion else before.folder,
        link=result.publication.url if result.publication else "",
        report=page,
        error=str(error or ""),
        next=_next(job, result),
        attempt=before.attempt,
        host=before.host,
        updated=time.time(),
    )
    if conversion is None and error is None and earlier is not None:
        return _replaced(row, verdict=earlier.verdict, ratio=earlier.ratio, bytes=earlier.bytes)
    return row


def read_rows(content: object) -> list[Row]:
    """The rows of a release.json of any origin: nothing in them is believed but that they are rows.

    Raises ValueError where it is none, or of another schema.
    """
    try:
        rows = converted(content, Content).models
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    return _safe(map(msgspec.structs.asdict, rows))


def newest(*lists: Iterable[Row]) -> dict[Key, Row]:
    """Returns each model's row that was written last; of two of the same time that of the later list."""
    return {row.key: row for row in sorted(chain.from_iterable(lists), key=lambda row: row.updated)}


def relative(path: Path, folder: Path) -> str:
    """The path from ``folder``, or the whole of it where it lies elsewhere; ``/`` between its parts."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _replaced(row: Row, **values: object) -> Row:
    return _row(**{**msgspec.structs.asdict(row), **values})


def _row(**values: object) -> Row:
    (row,) = _safe([values])
    return row


def _safe(rows: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows that may be shown and written: no secrets, no control characters, figures finite, commands of ours."""
    return [Row(**{name: _checked(name, value) for name, value in row.items()}) for row in printable_values([*rows])]


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0 if name == "updated" else None
    return "" if name == "next" and not is_ours(value) else value


def _next(job: Job, result: JobResult) -> str:
    if result.state in (State.FAILED, State.NOT_TRIED):
        return again(job, *(["--debug"] if isinstance(result.error, DefectError) else []))
    return audit(job, result)
