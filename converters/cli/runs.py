"""From a command line to results: one checkpoint after another is found, converted, verified and published.

    options → jobs → ``release_one`` → Result …, summary or JSON, exit status

A failure ends one job, not the run: the others go on, and the exit status is that of the first that failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from converters.auditing.audits import audit_target, write_report
from converters.catalogue import variants
from converters.cli.outcome import Collections, Outcome
from converters.cli.output import say, say_json, say_styled, say_traceback
from converters.cli.progress import Output, shown
from converters.cli.watching import Watch, local_engine, record_folder
from converters.cli.words import command_line, missing_source
from converters.conversion import Request, plan_of
from converters.download.locations import checkpoint_of, locate, target_of, variant_of
from converters.errors import ParityError, UsageError
from converters.failures import deaf, failure_of
from converters.files import PARITY, PARITY_PAGE
from converters.memory import keep_freed_memory
from converters.options import AuditOptions, ConvertOptions, PublishOptions, ReleaseOptions, taken
from converters.placing import refuse_unwritable
from converters.redaction import printable
from converters.release.discarding import Shared
from converters.release.engine import Engine
from converters.release.estimate import estimate, memory_expected, weights_of
from converters.release.job import Job, JobResult, State
from converters.release.one import release_one, share_gates
from converters.release.plan import read_plan
from converters.release.shard import Shard
from converters.sources import open_checkpoint
from verify import Report
from verify.oracles.numpy.threads import cores


@dataclass(frozen=True)
class RunOptions:
    """The options of ``bit-convert``, grouped by who uses them."""

    variant: str | None
    checkpoint: str | None
    output: Path | None
    push: bool
    dry_run: bool
    how: ConvertOptions
    publish: PublishOptions
    release: ReleaseOptions
    shown: Output
    plan: Path | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    """Options that were typed beside a plan, by field."""
    shard: Shard | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RunOptions:
        """Raises UsageError where options contradict each other."""
        parts = {
            "how": taken(ConvertOptions, options),
            "publish": taken(PublishOptions, options),
            "release": taken(ReleaseOptions, options),
            "shown": taken(Output, options),
            "shard": Shard.of(options["shard"]) if options.get("shard") else None,
        }
        return taken(cls, {**options, **parts})

    def __post_init__(self) -> None:
        if self.plan is not None:
            given = {"variant": self.variant, "checkpoint": self.checkpoint, "repo-id": self.publish.repo_id}
            for option in (option for option, value in given.items() if value is not None):
                raise UsageError(f"--{option} is said in the tables of a plan. Leave out --{option} or --plan.")
            return
        if self.variant is None and self.checkpoint is None:
            raise UsageError(
                "nothing to convert. Give --variant NAME (see --list), --checkpoint PATH_OR_URL; or either word alone."
            )
        if self.push and not self.how.verify:
            raise UsageError("--push publishes only what was verified. Leave out --no-verify or --push.")
        if self.publish.given and not self.push:
            raise UsageError(f"{self.publish.given[0]} is for publishing. Add --push.")
        if self.release.discard and not self.push:
            raise UsageError("--discard removes what was published. Add --push.")


def convert_all(run: RunOptions) -> int:
    """Does all that the options ask for; returns the exit status."""
    every = _jobs(run)
    jobs = run.shard.part(every, _weight) if run.shard else every
    expected = estimate(jobs) if run.dry_run or not run.shown.quiet else None
    outcome = Outcome(run.shown, many=len(jobs) != 1)
    if expected is not None and not run.shown.quiet:  # nothing is refused for it: there may yet be room
        for warning in expected.shortages((run.release.jobs or cores()) if run.release.discard else 0):
            say(f"bit-convert: {warning}", err=True)
    if run.dry_run:
        for job in jobs:
            outcome.add(_planned(job, run))
        return outcome.end(estimate=expected)
    if not jobs:
        return outcome.end()
    share_gates()
    with closing(_watch(jobs, run, record_folder(every))) as watch:
        return _released(jobs, run, outcome, watch)


def _watch(jobs: list[Job], run: RunOptions, folder: Path) -> Watch:
    """Whoever watches: a run over several models, or over what a glob or plan names, leaves a record in ``folder``."""
    many, output = len(jobs) > 1, run.shown
    named = run.plan is not None or (run.variant is not None and variants.is_glob(run.variant))
    return Watch(
        jobs,
        record=folder if many or named else None,
        shard=run.shard,
        events=run.release.events,
        shown=many and not output.quiet,
        verbose=output.verbose,
        command=command_line("bit-convert"),
    )


def _released(jobs: list[Job], run: RunOptions, outcome: Outcome, watch: Watch) -> int:
    collections = Collections(jobs, run.shown, run.publish.patience)
    shared = Shared(jobs)

    def add(result: JobResult) -> None:
        for each in (watch, outcome, collections, shared):
            each.add(result)

    if len(jobs) == 1 and run.release.scheduler is None:
        add(_alone(jobs[0], run, watch))
        return outcome.end(collections=collections.gather())
    engine = _engine(shared.jobs, run, watch)
    engine.run(add)
    with deaf() if engine.is_interrupted else nullcontext():
        watch.close()
        return outcome.end(engine.stopped, collections=() if engine.is_interrupted else collections.gather())


def _alone(job: Job, run: RunOptions, watch: Watch) -> JobResult:
    """The one job, in this process, which waits for whatever has to be waited for."""
    tell = say_traceback if run.shown.debug else None
    job = replace(job, request=replace(job.request, apart=True))
    with shown(job.name, run.shown) as bar:
        result = release_one(job, watch.alone(job, bar), bars=not run.shown.quiet, tell=tell)
    assert isinstance(result, JobResult), "it waits"
    watch.ended_alone(job, result)
    return result


def _engine(jobs: list[Job], run: RunOptions, watch: Watch) -> Engine:
    if run.release.scheduler is not None:
        from converters.release.cluster import Cluster

        return Engine(jobs, Cluster(run.release.scheduler, watch), watch, run.publish.patience)
    return local_engine(
        jobs, run.release.jobs, watch, memory_expected, debug=run.shown.debug, patience=run.publish.patience
    )


def verify(target: str | None, against: str | None, report_folder: Path, options: AuditOptions, output: Output) -> int:
    """``bit-verify``: audits a folder against a checkpoint; returns the exit status."""
    if target is None:
        raise UsageError("nothing to audit. Give a folder and --against SOURCE, or --check PARITY_JSON.")
    if against is None:
        raise missing_source(target)
    refuse_unwritable(report_folder, "--report")
    variant_of(against)
    keep_freed_memory()
    with shown(target, output) as progress:
        report = audit_target(target, against, options, progress)
    replaced = _replaced(report_folder / PARITY)
    write_report(report, report_folder, command_line("bit-verify"))
    if not _said(report, output):
        from converters.cli import summary

        say_styled(summary.render_report(report, report_folder / PARITY_PAGE, replaced))
    return 0 if report else ParityError.exit_status


def _said(report: Report, output: Output, **more: object) -> bool:
    """Says the report itself where that is what stdout is for; whether it is."""
    if output.as_json:
        say_json(json.loads(report.to_json()) | more)
    elif output.as_markdown:
        from verify.report.markdown import document

        say(document(report, command_line("bit-verify")), nl=False)
    return output.as_json or output.as_markdown


def _replaced(parity: Path) -> str:
    """Returns what is known of the report that a new one is about to replace."""
    if not parity.is_file():
        return ""
    from converters.auditing.report_check import read_report

    try:
        held = read_report(parity)
    except (OSError, ParityError):
        return ", in place of one that cannot be read"
    checkpoint = printable(held.source.get("file", "another checkpoint"))
    return f", in place of one that said {held.verdict}, against {checkpoint}"


def check(parity: Path, target: str | None, against: str | None, options: AuditOptions, output: Output) -> int:
    """``bit-verify --check``: a report, the files it speaks of, and the checkpoint where one is given."""
    from converters.auditing import report_check

    with shown(parity.name, output) as progress, ExitStack() as opened:
        folder = None if target is None else target_of(target, options.offline, progress)
        source, known = None, None
        if against is not None:
            checkpoint, known = checkpoint_of(against, options.offline, progress)
            source = opened.enter_context(open_checkpoint(checkpoint))
        if options.variant is not None:
            known = variants.find_one(options.variant)
        found = report_check.check(parity, folder, source, known, options.pool_padding, options.verify_key)
    report = found.report
    if not _said(report, output, checked=found.to_json()):
        say(f"{parity}: holds ({found.what}); {report.verdict}: {report.reason}")
        say(f"This compares {found.proves}." if found.against_source else f"This proves {found.proves}.")
    return 0 if report else ParityError.exit_status


def _jobs(run: RunOptions) -> list[Job]:
    command = command_line("bit-convert")
    if run.plan is not None:
        planned = read_plan(run.plan, run.typed, command)
        return [replace(job, discard=run.release.discard, recheck=run.release.recheck) for job in planned]
    to = run.publish if run.push else None
    todo = partial(Job, publish=to, discard=run.release.discard, recheck=run.release.recheck)
    if run.variant is None:
        return [todo(Request(None, run.checkpoint, run.output, run.how, command))]
    found = variants.find(run.variant)
    if len(found) > 1 and (run.checkpoint or run.publish.repo_id):
        option = "--checkpoint" if run.checkpoint else "--repo-id"
        raise UsageError(f"{run.variant} names {len(found)} variants, but {option} is for one. Name one variant.")
    return [todo(Request(variant, run.checkpoint, run.output, run.how, command)) for variant in found]


def _weight(job: Job) -> int:
    return weights_of(job.request.variant.network) if job.request.variant else 0


def _planned(job: Job, run: RunOptions) -> JobResult:
    try:
        return JobResult(job.name, State.PLANNED, plan=_plan(job))
    except Exception as error:
        if run.shown.debug:
            say_traceback()
        return JobResult(job.name, State.FAILED, error=failure_of(error))


def _plan(job: Job) -> dict[str, str]:
    """Returns what would be done, as far as it is known without a download."""
    request, to = job.request, job.publish
    variant, how = request.variant, request.options
    place = locate(request.checkpoint, variant)
    if isinstance(place, Path):
        with open_checkpoint(place) as source:
            plan, left_out = plan_of(source, variant, how), source.left_out
        name, network, read = plan.name, str(plan.architecture), str(place)
    else:
        left_out = ""
        name = variant.repository_name if variant else "(named after its architecture)"
        network = str(variant.network) if variant else "known when it is downloaded"
        read = f"{place} (download)"
    plan_lines = {
        "read": read,
        "architecture": network,
        **({"left out": left_out} if left_out else {}),
        "write": str(request.place(name)),
        "layout": f"{how.layout}, {how.dtype}, exact {how.exact}",
        "verify": "yes" if how.verify else "no",
    }
    if to is not None:
        repository = to.repository(name)
        plan_lines["publish"] = f"{repository} in {to.hub}" if to.hub else f"{repository} on the Hub"
        plan_lines |= {"collection": to.collection} if to.collection else {}
    return plan_lines
