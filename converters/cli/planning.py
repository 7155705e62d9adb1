"""The jobs of a run, what they will take, and the collections that gather what was published of them.

options → ``jobs_of_plan()``, ``part()`` → jobs → ``estimate_lines()``, ``warn_of_disk()``; results → ``Collections``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from converters.cli.output import say
from converters.cli.progress import shown
from converters.errors import BitConvertError
from converters.failures import failure_of
from converters.options import ReleaseOptions
from converters.release.estimate import Estimate, weights_of
from converters.release.job import Job, Result
from converters.release.plan import read_plan
from converters.release.shard import Shard


def jobs_of_plan(path: Path, typed: Mapping[str, Any], release: ReleaseOptions, command: str) -> list[Job]:
    """The jobs of a plan, under the options that were typed beside it. Raises UsageError as ``read_plan``."""
    planned = [each.job for each in read_plan(path, typed, command)]
    return [replace(job, discard=release.discard, recheck=release.recheck) for job in planned]


def part(jobs: list[Job], shard: Shard | None) -> list[Job]:
    """The jobs of a shard, of which all are of about the same size."""
    return jobs if shard is None else shard.part(jobs, _weight)


def _weight(job: Job) -> int:
    return weights_of(job.request.variant.network) if job.request.variant else 0


def say_estimate(estimate: Estimate) -> None:
    rows = estimate.lines()
    widest = max(map(len, rows))
    for name, text in rows.items():
        say(f"{name.ljust(widest)}  {text}")


def warn_of_disk(estimate: Estimate, discarding: int) -> None:
    """Too little room is said in advance; nothing is refused for it, as it may yet be made."""
    for warning in estimate.shortages(discarding):
        say(f"bit-convert: {warning}", err=True)


class Collections:
    """The collections of the Hub that a run's results go to."""

    def __init__(self, jobs: Sequence[Job], *, quiet: bool, patience: float) -> None:
        self._jobs = jobs
        self._private = {job.collection for job in jobs if job.publish and job.publish.private}
        self._quiet, self._patience = quiet, patience
        self._found: dict[tuple[str, str], list[str]] = {}

    def add(self, result: Result) -> None:
        collection = self._jobs[result.number].collection
        if collection is not None and result.publication is not None:
            owner = result.publication.repo_id.partition("/")[0]
            self._found.setdefault((collection, owner), []).append(result.publication.repo_id)

    def gather(self) -> tuple[list[dict[str, Any]], BitConvertError | None]:
        """Adds what was published to its collections: what came of each, for ``--json``, and the first failure."""
        entries: list[dict[str, Any]] = []
        failure: BitConvertError | None = None
        for (name, _), repositories in self._found.items():
            try:
                entries.append(self._gathered(name, sorted(repositories)))
            except Exception as error:
                found = failure_of(error)
                failure = failure or found
                say(f"bit-convert: {found}", err=True)
                entries.append({"collection": name, "exit_status": found.exit_status, "error": str(found)})
        return entries, failure

    def _gathered(self, name: str, repositories: list[str]) -> dict[str, Any]:
        from converters.hub.collection import gather

        with shown(name, self._quiet) as progress:
            found = gather(
                name,
                repositories,
                private=name in self._private,
                patience=self._patience,
                progress=lambda line: progress(line, 0, 1),
            )
        if not self._quiet:
            say(f"{found.title}: {len(found.added)} models added, {found.url}", err=True)
        return {"collection": name, "exit_status": 0, **asdict(found)}
