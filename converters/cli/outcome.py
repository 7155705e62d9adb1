"""The text of a run over its models: a line each as it ends, or one JSON document at the end; and the exit status.

Result … → text, or JSON kept until the end → exit status;  Result … → ``Collections`` of the Hub that gather them
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from converters.amounts import counted
from converters.auditing.audits import VERSION
from converters.choices import JSON_SCHEMA
from converters.cli.output import say, say_json_list, say_styled
from converters.cli.progress import Output, shown
from converters.errors import BitConvertError
from converters.failures import failure_of
from converters.release.job import Job, JobResult, State

if TYPE_CHECKING:
    from converters.release.estimate import Estimate
    from converters.release.schemas.document import CollectionEntry


class Outcome:
    """The outcome of a run over one model, or over ``many``; of each only what is said at the end is kept."""

    def __init__(self, output: Output, many: bool) -> None:
        self._output, self._many = output, many
        self._states: Counter[State] = Counter()
        self._entries: list[bytes] = []
        self._status = 0

    def add(self, result: JobResult) -> None:
        """A model has come to its end."""
        self._states[result.state] += 1
        self._status = self._status or result.exit_status
        if self._output.as_json:
            self._entries.append(zlib.compress(json.dumps(result.to_json(), default=asdict).encode()))
        else:
            _say(result, alone=not self._many)

    def end(
        self,
        stopped: BitConvertError | None = None,
        *,
        estimate: Estimate | None = None,
        collections: Sequence[CollectionEntry] = (),
    ) -> int:
        """Says what is to be said at the end; returns the exit status.

        ``stopped`` is what ended the run before its time, ``estimate`` what a run that was not made would take,
        ``collections`` what came of gathering.
        """
        failures = (entry["exit_status"] for entry in collections if entry["exit_status"])
        status = stopped.exit_status if stopped else self._status or next(failures, 0)
        if self._many and estimate is None:
            counts = ", ".join(f"{count} {state}" for state, count in self._states.items()) or "no models to do"
            ended = f"{str(stopped).splitlines()[0]}; run it again to go on: " if stopped else ""
            say(f"bit-convert: {ended}{counts}", err=stopped is not None or self._output.as_json)
        if self._output.as_json:
            head = {
                "schema": JSON_SCHEMA,
                "release": VERSION,
                "exit_status": status,
                **({"error": str(stopped)} if stopped else {}),
                **({"estimate": estimate.to_json()} if estimate else {}),
                **({"collections": [*collections]} if collections else {}),
            }
            say_json_list(head, "results", (json.loads(zlib.decompress(entry)) for entry in self._entries))
        elif estimate is not None and self._states[State.PLANNED]:
            _say_estimate(estimate)
        return status


class Collections:
    """The collections of the Hub that a run's results go to."""

    def __init__(self, jobs: Sequence[Job], output: Output, patience: float) -> None:
        self._jobs, self._output, self._patience = jobs, output, patience
        self._private = {job.collection for job in jobs if job.publish and job.publish.private}
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, result: JobResult) -> None:
        collection = self._jobs[result.number].collection
        if collection is not None and result.publication is not None:
            owner = result.publication.repo_id.partition("/")[0]
            self._found.setdefault((collection, owner), []).append(result.publication.repo_id)

    def gather(self) -> list[CollectionEntry]:
        """Adds what was published to its collections; returns what came of each."""
        entries: list[CollectionEntry] = []
        for (name, _), repositories in self._found.items():
            try:
                entries.append(self._gathered(name, sorted(repositories)))
            except Exception as error:
                found = failure_of(error)
                say(f"bit-convert: {found}", err=True)
                entries.append({"collection": name, "exit_status": found.exit_status, "error": str(found)})
        return entries

    def _gathered(self, name: str, repositories: list[str]) -> CollectionEntry:
        from converters.hub.collection import gather

        with shown(name, self._output) as progress:
            found = gather(
                name,
                repositories,
                private=name in self._private,
                patience=self._patience,
                progress=lambda line: progress(line, 0, 1),
            )
        if not self._output.quiet:
            say(f"{found.title}: {counted(len(found.added), 'model')} added, {found.url}", err=True)
        slug, title, url, added = found.slug, found.title, found.url, [*found.added]
        return {"collection": name, "exit_status": 0, "slug": slug, "title": title, "url": url, "added": added}


def _say_estimate(estimate: Estimate) -> None:
    rows = estimate.lines()
    widest = max(map(len, rows))
    for name, text in rows.items():
        say(f"{name.ljust(widest)}  {text}")


def _say(result: JobResult, alone: bool) -> None:
    if result.error is not None:
        say(f"bit-convert: {result.error}", err=True)
    elif result.plan:
        say(f"{result.name}: " + "; ".join(f"{key} {value}" for key, value in result.plan.items()))
    elif result.conversion is not None:
        from converters.cli import summary

        say_styled(summary.render(result.conversion, result.publication, VERSION, short=not alone))
    else:
        say(f"{result.name}: {result.state}, and discarded here")
