"""The collections of the Hub that gather what a run published.

results → ``Collections`` → what came of each collection
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from converters.cli.output import say
from converters.cli.progress import shown
from converters.errors import BitConvertError
from converters.failures import failure_of
from converters.release.job import Job, Result


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
