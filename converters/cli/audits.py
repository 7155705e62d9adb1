"""``bit-verify`` of several targets: the worst is told first, and the exit status is that of the worst.

targets or a plan → AuditJob … → engine → Result …, a line each, or one JSON document
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from converters.auditing.audits import VERSION
from converters.auditing.named_source import named_by
from converters.catalogue.variants import named
from converters.choices import JSON_SCHEMA
from converters.cli.output import say, say_json
from converters.cli.progress import Output
from converters.cli.watching import Watch, local_engine
from converters.cli.words import missing_source
from converters.download.locations import variant_of
from converters.errors import BitConvertError, ParityError, UsageError
from converters.options import AuditOptions
from converters.placing import refuse_unwritable
from converters.release.estimate import memory_of, weights_of
from converters.release.job import AuditJob, JobResult
from converters.release.plan import with_places

WORST = ("failed", "error", "inconclusive", "passed")
"""Verdicts, the worst first; an error is a target that could not be audited."""


def typed_audits(
    targets: Sequence[str], against: str | None, report_folder: Path, options: AuditOptions
) -> list[AuditJob]:
    """The jobs of the command line. Raises UsageError for a folder that names no checkpoint where none is given."""
    if against is None:
        for target in (target for target in targets if "://" not in target and Path(target).is_dir()):
            if named_by(Path(target)) is None:
                raise missing_source(target)
    return with_places((AuditJob(target, against, options, Path()) for target in targets), report_folder)


def audit_all(jobs: Sequence[AuditJob], report_folder: Path, count: int, output: Output) -> int:
    """Audits all of them, ``count`` at once (0: as many as there are cores); returns the exit status of the worst."""
    if output.as_markdown:
        raise UsageError("--markdown is for one target. Leave it out.")
    refuse_unwritable(report_folder, "--report")
    for against in dict.fromkeys(job.against for job in jobs if job.against is not None):
        variant_of(against)
    watch = Watch(jobs, shown=not output.quiet, verbose=output.verbose)
    engine = local_engine(jobs, count, watch, _memory, debug=output.debug)
    results: list[JobResult] = []
    with closing(watch):
        engine.run(results.append)
    stopped = engine.stopped if engine.is_interrupted else None
    return _say(sorted(results, key=_rank), jobs, output, stopped)


def _memory(job: AuditJob) -> int:
    """Bytes that an audit is expected to take; of a checkpoint that is no variant only what any takes."""
    variant = named(job.against) if job.against else None
    return memory_of(weights_of(variant.network) if variant else 0, verify=True)


def _rank(result: JobResult) -> tuple[int, int]:
    return WORST.index(_verdict(result)), result.number


def _verdict(result: JobResult) -> str:
    return "error" if result.audit is None else str(result.audit.verdict)


def _status(result: JobResult) -> int:
    if result.error is not None:
        return result.error.exit_status
    return 0 if result.audit else ParityError.exit_status


def _say(
    results: Sequence[JobResult], jobs: Sequence[AuditJob], output: Output, stopped: BitConvertError | None
) -> int:
    """Says what became of each, the worst first."""
    status = stopped.exit_status if stopped else _status(results[0])
    if output.as_json:
        entries = [_entry(result, jobs[result.number]) for result in results]
        say_json({"schema": JSON_SCHEMA, "release": VERSION, "exit_status": status, "audits": entries})
        return status
    for result in results:
        if result.error is not None:
            say(f"bit-verify: {result.error}", err=True)
        elif result.audit is not None:
            place = jobs[result.number].report
            say(f"{result.name}: {result.audit.verdict}, against {result.against}: {result.audit.reason} ({place})")
    return status


def _entry(result: JobResult, job: AuditJob) -> dict[str, Any]:
    entry: dict[str, Any] = {"target": result.name, "exit_status": _status(result), "verdict": _verdict(result)}
    if result.error is not None:
        return entry | {"error": str(result.error)}
    assert result.audit is not None, "an attempt ends in a report or an error"
    return entry | {"against": result.against, "folder": str(job.report), "report": json.loads(result.audit.to_json())}
