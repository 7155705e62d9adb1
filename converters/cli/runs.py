"""From a command line to results: one checkpoint after another is found, converted, verified and published.

    Options → jobs → ``convert`` → ``publish`` → Result …, summary or JSON, exit status

A failure ends one job, not the run: the others go on, and the exit status is that of the first that failed.
"""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from converters.auditing.audits import RELEASE, Thoroughness, audit_target, write_report
from converters.catalogue import variants
from converters.catalogue.variants import Variant
from converters.cli.progress import shown
from converters.conversion import Conversion, Request, convert, plan_of
from converters.download.locations import fetch, locate
from converters.errors import BitConvertError, ParityError, UsageError
from converters.folder.plan import MAX_SHARD_BYTES
from converters.hub.guard import Publication
from converters.mapping.layouts import Exact
from converters.sources import open_checkpoint
from converters.sources.left_out import left_out_line
from verify import Report
from verify.precision import Computing
from verify.protocols import PoolPadding, Progress

DEFAULT_OUTPUT = Path("models")
UNSCALED = ("original", "npz")
"""Layouts whose own library, Google's, has the epsilon 1e-10."""


@dataclass(frozen=True)
class Options:
    """The options of ``bit-convert``, as DESIGN's table names them."""

    variant: str | None = None
    checkpoint: str | None = None
    output: Path | None = None
    layout: str = "transformers"
    dtype: str = "float32"
    max_shard_size: int = MAX_SHARD_BYTES
    exact: Exact = "bits"
    pool_padding: PoolPadding | None = None
    verify: bool = True
    images: Path | None = None
    oracles: tuple[str, ...] = ()
    force: bool = False
    push: bool = False
    repo_id: str | None = None
    namespace: str | None = None
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    tag: str | None = None
    hub: Path | None = None
    offline: bool = False
    dry_run: bool = False
    as_json: bool = False
    quiet: bool = False
    debug: bool = False


@dataclass(frozen=True)
class Job:
    """One checkpoint: a variant's own, or the one that was given."""

    variant: Variant | None
    checkpoint: str | None

    @property
    def name(self) -> str:
        return self.variant.name if self.variant else _printable(str(self.checkpoint))


@dataclass
class Result:
    """What became of a job."""

    name: str
    conversion: Conversion | None = None
    publication: Publication | None = None
    error: BitConvertError | None = None
    plan: dict[str, str] = field(default_factory=dict)
    """With ``--dry-run``: what would be done."""

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {"name": self.name, "exit_status": self.error.exit_status if self.error else 0}
        if self.error:
            content["error"] = str(self.error)
        if self.plan:
            content["plan"] = self.plan
        if self.conversion:
            report = self.conversion.report
            content |= {
                "folder": str(self.conversion.folder),
                "made": self.conversion.made,
                "architecture": str(self.conversion.plan.architecture),
                "left_out": self.conversion.left_out,
                "seconds": round(self.conversion.seconds, 3),
                "report": json.loads(report.to_json()) if report else None,
            }
        if self.publication:
            content["publication"] = asdict(self.publication)
        return content


def release(options: Options) -> int:
    """Does all that the options ask for; returns the exit status. Raises UsageError where they contradict."""
    _refuse_contradictions(options)
    jobs = _jobs(options)
    results = []
    for job in jobs:
        result = _run(job, options)
        results.append(result)
        if not options.as_json:
            _say(result, options, alone=len(jobs) == 1)
    failed = [result.error for result in results if result.error]
    status = failed[0].exit_status if failed else 0
    if options.as_json:
        content = {"release": RELEASE, "exit_status": status, "results": [result.to_json() for result in results]}
        click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    return status


def verify(
    target: str | None,
    against: str | None,
    check_report: Path | None,
    report_folder: Path,
    pool_padding: PoolPadding | None,
    variant: str | None,
    images: Path | None,
    inputs: str,
    runners: tuple[str, ...],
    compute: str,
    device: str,
    oracles: tuple[str, ...],
    offline: bool,
    as_json: bool,
    as_markdown: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """``bit-verify``: audits a folder against a checkpoint, or checks a report; returns the exit status."""
    if as_json and as_markdown:
        raise UsageError("--json and --markdown are two answers. Leave one out.")
    if check_report is not None:
        return _check(check_report, target, against, variant, pool_padding, offline, as_json, as_markdown, quiet)
    if target is None or against is None:
        raise UsageError("nothing to audit. Give a folder and --against SOURCE, or --check PARITY_JSON.")
    computing = Computing(compute, device)
    if refusal := computing.refusal():
        raise UsageError(f"--compute {compute} --device {device}: {refusal}. Leave them out, or run it elsewhere.")
    thoroughness = Thoroughness(inputs, images, runners, computing, oracles)
    with shown(target, quiet) as progress:
        folder = _target(target, offline, progress)
        checkpoint, known = _against(against, offline, progress)
        if variant is not None:
            known = variants.find_one(variant)
        report = audit_target(folder, checkpoint, pool_padding, progress, known, thoroughness)
    write_report(report, report_folder, _command_line("bit-verify"))
    if as_json:
        click.echo(report.to_json(), nl=False)
    elif as_markdown:
        click.echo(_markdown(report, target), nl=False)
    else:
        from converters.cli import summary

        click.echo(summary.render_report(folder, report), nl=False)
    return 0 if report else ParityError.exit_status


def _markdown(report: Report, target: str | Path) -> str:
    from verify.report.markdown import document

    title = _printable(target) if isinstance(target, str) and "://" in target else Path(target).resolve().name
    return document(report, title, _command_line("bit-verify"))


def _command_line(command: str) -> str:
    """What the user typed, to be typed again, but for the credentials in a URL."""
    return shlex.join([command, *map(_printable, sys.argv[1:])])


def _printable(word: str) -> str:
    """A path, or a URL without the credentials that it may hold; after an option's name too."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if "://" not in value:
        return word
    from converters.download import http

    return option + equals + http.shown(value)


def _target(target: str, offline: bool, progress: Progress) -> Path:
    """The folder to audit: a name of the catalogue is none, so here a path of that name is meant."""
    folder = fetch(locate(target, None), offline=offline, whole=True, progress=progress)
    if not folder.is_dir():
        is_name = not folder.exists() and variants.named(target) is not None
        what = "a released checkpoint, not a converted folder" if is_name else "not a folder"
        raise UsageError(f"{target}: {what}. Give a converted folder, or hf://NAMESPACE/NAME.")
    return folder


def _against(against: str, offline: bool, progress: Progress) -> tuple[Path, Variant | None]:
    """The checkpoint of a name of the catalogue, a path or a URL, and the variant of a name.

    A variant's name wins over a path; its other spellings (a glob, the published file's path or URL) do not.
    """
    variant = variants.named(against)
    if variant is None and "://" not in against and not _is_checkpoint(against):
        variant = variants.find_one(against)
    place = locate(None if variant else against, variant)
    return fetch(place, size=variant.bytes if variant else None, offline=offline, progress=progress), variant


def _is_checkpoint(path: str) -> bool:
    """Whether there is such a file or folder, or a TensorFlow checkpoint of this prefix."""
    return any(Path(candidate).exists() for candidate in (path, path + ".index"))


def _check(
    parity: Path,
    target: str | None,
    against: str | None,
    variant: str | None,
    pool_padding: PoolPadding | None,
    offline: bool,
    as_json: bool,
    as_markdown: bool,
    quiet: bool,
) -> int:
    """``bit-verify --check``: a report, the files it speaks of, and the checkpoint where one is given."""
    from converters.auditing.report_check import check

    with shown(parity.name, quiet) as progress, ExitStack() as opened:
        folder = None if target is None else _target(target, offline, progress)
        source, known = None, None
        if against is not None:
            checkpoint, known = _against(against, offline, progress)
            source = opened.enter_context(open_checkpoint(checkpoint))
        if variant is not None:
            known = variants.find_one(variant)
        found = check(parity, folder, source, known, pool_padding)
    report = found.report
    if as_json:
        content = json.loads(report.to_json()) | {"checked": found.to_json()}
        click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
    elif as_markdown:
        click.echo(_markdown(report, target or parity.resolve().parent), nl=False)
    else:
        click.echo(f"{parity}: holds ({found.what}); {report.verdict}: {report.reason}")
        click.echo(f"This compares {found.proves}." if found.against_source else f"This proves {found.proves}.")
    return 0 if report else ParityError.exit_status


def _jobs(options: Options) -> list[Job]:
    if options.variant is None:
        return [Job(None, options.checkpoint)]
    found = variants.find(options.variant)
    if len(found) > 1 and (options.checkpoint or options.repo_id):
        option = "--checkpoint" if options.checkpoint else "--repo-id"
        raise UsageError(f"{options.variant} names {len(found)} variants, but {option} is for one. Name one variant.")
    return [Job(variant, options.checkpoint) for variant in found]


def _run(job: Job, options: Options) -> Result:
    result = Result(job.name)
    try:
        with shown(job.name, options.quiet) as progress:
            if options.dry_run:
                result.plan = _plan(job, options)
                return result
            size = job.variant.bytes if job.variant and not job.checkpoint else None
            place = locate(job.checkpoint, job.variant)
            checkpoint = fetch(place, size=size, offline=options.offline, progress=progress)
            result.conversion = convert(_request(job, options, checkpoint), progress)
            result.name = result.conversion.plan.name
            if options.push:
                result.publication = _publish(result.conversion, options, progress)
    except BitConvertError as error:
        if options.debug:
            import traceback

            traceback.print_exc()
        result.error = error
    return result


def _request(job: Job, options: Options, checkpoint: Path) -> Request:
    """With --output, a variant's folder lies in it; a given checkpoint's folder is it."""
    return Request(
        checkpoint=checkpoint,
        output=options.output if job.checkpoint else None,
        parent=options.output or DEFAULT_OUTPUT,
        variant=job.variant,
        layout=options.layout,
        dtype=options.dtype,
        max_shard_bytes=options.max_shard_size,
        exact=options.exact,
        pool_padding=options.pool_padding,
        verify=options.verify,
        images=options.images,
        oracles=options.oracles,
        force=options.force,
        command=_command_line("bit-convert"),
    )


def _publish(conversion: Conversion, options: Options, progress: Progress) -> Publication:
    report, name = conversion.report, conversion.plan.name
    assert report is not None, "--push without verification is refused"
    progress("publishing", 0, 1)
    if options.hub is not None:
        from converters.hub.local_folder import publish_to_folder

        repo_id = options.repo_id or (f"{options.namespace}/{name}" if options.namespace else name)
        return publish_to_folder(
            conversion.folder, report, repo_id, options.hub, revision=options.revision or "main", tag=options.tag
        )
    from converters.hub.upload import publish

    return publish(
        conversion.folder,
        report,
        options.repo_id,
        name=name,
        namespace=options.namespace,
        private=options.private,
        create_pr=options.create_pr,
        revision=options.revision,
        tag=options.tag,
        progress=lambda what: progress(what, 0, 1),
    )


def _plan(job: Job, options: Options) -> dict[str, str]:
    """What would be done, as far as it can be said without a download."""
    place = locate(job.checkpoint, job.variant)
    request = _request(job, options, Path(place))
    if isinstance(place, Path):
        with open_checkpoint(place) as source:
            plan, left_out = plan_of(request, source), left_out_line(source)
        name, network, read = plan.name, str(plan.architecture), str(place)
    else:
        left_out = ""
        name = job.variant.repository_name if job.variant else "(named after its architecture)"
        network = str(job.variant.network) if job.variant else "known when it is downloaded"
        read = f"{place} (download)"
    plan_lines = {
        "read": read,
        "architecture": network,
        **({"left out": left_out} if left_out else {}),
        "write": str(request.output or request.parent / name),
        "layout": f"{options.layout}, {options.dtype}, exact {options.exact}",
        "verify": "yes" if options.verify else "no",
    }
    if options.push:
        repository = options.repo_id or f"{options.namespace or '(the token’s user)'}/{name}"
        plan_lines["publish"] = f"{repository} in {options.hub}" if options.hub else f"{repository} on the Hub"
    return plan_lines


def _say(result: Result, options: Options, alone: bool) -> None:
    if result.error is not None:
        click.echo(f"bit-convert: {result.error}", err=True)
    elif result.plan:
        click.echo(f"{result.name}: " + "; ".join(f"{key} {value}" for key, value in result.plan.items()))
    elif result.conversion is not None:
        from converters.cli import summary

        click.echo(summary.render(result.conversion, result.publication, RELEASE, short=not alone), nl=False)


def _refuse_contradictions(options: Options) -> None:
    if options.variant is None and options.checkpoint is None:
        raise UsageError("nothing to convert. Give --variant NAME (see --list) or --checkpoint PATH_OR_URL.")
    if options.push and not options.verify:
        raise UsageError("--push publishes only what was verified. Leave out --no-verify or --push.")
    if options.layout in UNSCALED and options.exact == "logits":
        raise UsageError(f"--exact logits is for libraries that hard-code 1e-8; --layout {options.layout} has none.")
    if options.exact == "logits" and options.pool_padding == "-inf":
        raise UsageError("--exact logits is for libraries that pad with zeros. Leave out --pool-padding -inf.")
    if options.layout == "npz" and options.dtype != "float32":
        raise UsageError("--layout npz is Google's own file, in float32. Leave out --dtype.")
    publishing = {
        "--repo-id": options.repo_id,
        "--namespace": options.namespace,
        "--private": options.private,
        "--create-pr": options.create_pr,
        "--revision": options.revision,
        "--tag": options.tag,
        "--hub": options.hub,
    }
    given = [name for name, value in publishing.items() if value]
    if given and not options.push:
        raise UsageError(f"{given[0]} is for publishing. Add --push.")
    if options.repo_id and options.namespace:
        raise UsageError("--repo-id names the namespace already. Leave out --namespace.")
    networked = [name for name in ("--private", "--create-pr") if publishing[name]]
    if options.hub and networked:
        raise UsageError(f"a folder hub has no {networked[0]}. Leave out {networked[0]} or --hub.")
