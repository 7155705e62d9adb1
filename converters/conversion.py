"""The conversion of one checkpoint: read, remap, write, verify, put in place.

checkpoint → source, Plan → files in a workspace → audit → report, card → OUTPUT (or OUTPUT.failed)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.auditing.audits import RELEASE, Thoroughness, audit_folder, oracles_of, write_report
from converters.auditing.report_check import held_departures, listed, read_report
from converters.auditing.target import own_readers
from converters.catalogue.variants import Variant
from converters.errors import CheckpointError, ParityError, UsageError
from converters.files import CARD, PARITY, PARITY_PAGE, json_text, sha256
from converters.folder import card
from converters.folder.config import json_files
from converters.folder.placing import install, workspace
from converters.folder.plan import MAX_SHARD_BYTES, Plan, preprocessing_of
from converters.mapping.layouts import Exact
from converters.sources import GoogleView, open_checkpoint
from converters.sources.left_out import left_out_line
from converters.writers import model
from converters.writers.weights import weight_files
from verify import Report
from verify.protocols import PoolPadding, Progress


@dataclass(frozen=True)
class Request:
    """One checkpoint to convert, and how."""

    checkpoint: Path
    output: Path | None
    """The folder itself; None makes one named after the model in ``parent``."""
    parent: Path
    variant: Variant | None = None
    layout: str = "transformers"
    dtype: str = "float32"
    max_shard_bytes: int = MAX_SHARD_BYTES
    exact: Exact = "bits"
    pool_padding: PoolPadding | None = None
    """None: as the checkpoint has it."""
    verify: bool = True
    images: Path | None = None
    oracles: tuple[str, ...] = ()
    """Keys of ``verify.oracles.agreement.MAKERS``."""
    force: bool = False
    command: str = ""
    """What repeats it, for the page of a conversion that did not pass."""


@dataclass(frozen=True)
class Conversion:
    """What became of a request."""

    plan: Plan
    folder: Path
    report: Report | None
    """None with ``verify`` False."""
    made: bool
    """False where the folder held this result already."""
    seconds: float
    left_out: str
    """What of the checkpoint is not in the folder, and why, in one line; empty where all is."""


def plan_of(request: Request, source: GoogleView) -> Plan:
    """What the checkpoint is and is to become.

    Raises CheckpointError where it is not what it was said to be, UsageError where it cannot become what is asked for.
    """
    architecture = source.architecture
    variant = request.variant
    if variant is not None and variant.network != architecture:
        raise CheckpointError(
            f"{source.path}: holds {architecture}, but {variant.name} is {variant.network}.\n"
            "Give the file of that variant, or leave --variant out."
        )
    name = variant.repository_name if variant else f"BiT-{architecture.name}"
    plan = Plan(
        name=name,
        architecture=architecture,
        variant=variant,
        exact=request.exact,
        pool_padding=request.pool_padding or source.pool_padding,
        layout=request.layout,
        dtype=request.dtype,
        max_shard_bytes=request.max_shard_bytes,
        found=None if variant else preprocessing_of(source),
    )
    _refuse_unattainable(plan, source)
    json_files(plan)  # refuses what the layout cannot hold
    if plan.layout == "timm" and len(weight_files(plan)) > 1:
        raise UsageError(f"{plan.name}: timm reads one file of weights alone. Raise or leave out --max-shard-size.")
    return plan


def _refuse_unattainable(plan: Plan, source: GoogleView) -> None:
    """An answer that no stock library could give."""
    if plan.exact == "logits" and plan.pool_padding == "-inf":
        raise UsageError(
            f"{source.path}: its max-pool pads with -inf, which stock libraries, that --exact logits is for, cannot.\n"
            "Choose --exact bits, which bit_ref reads, or --pool-padding zeros if the network was trained with them."
        )


def place_of(request: Request, plan: Plan) -> Path:
    """The folder to make."""
    return request.output or request.parent / plan.name


def convert(request: Request, progress: Progress) -> Conversion:
    """Converts and verifies one checkpoint.

    Raises CheckpointError for a checkpoint that is unreadable or another than said, UsageError for an output folder
    that holds something else, and ParityError where verification does not pass; its report is then all there is, in
    ``OUTPUT.failed``.
    """
    start = time.monotonic()
    with open_checkpoint(request.checkpoint) as source:
        plan = plan_of(request, source)
        place, left_out = place_of(request, plan), left_out_line(source)
        _refuse_place(place, request.force)
        held, otherwise = _held_report(place, plan, source, oracles_of(source, request.oracles), progress)
        if held is not None:
            return Conversion(plan, place, held, False, time.monotonic() - start, left_out)
        if request.verify:  # an unverified folder that is already there can only be told by making it again
            _refuse_occupied(place, request.force, otherwise)
        with workspace(place) as folder:
            digests = model.write(folder, source, plan, progress, hashed=request.verify)
            report = None
            if request.verify:
                report = audit_folder(
                    folder,
                    source,
                    own_readers,
                    plan.pool_padding,
                    request.images,
                    progress,
                    variant=plan.variant,
                    thoroughness=Thoroughness(oracles=request.oracles),
                    digests=digests,
                )
            if report is not None and not report:
                raise _failed(report, place, request.command)
            if report is not None:
                (folder / PARITY).write_text(report.to_json(), encoding="utf-8")
            (folder / CARD).write_text(card.render(plan, source, report, RELEASE), encoding="utf-8")
            # By force also where every file of ours is there: something beside them was not.
            made = request.force or not (place.exists() and _same_files(folder, place))
            if made:
                _refuse_occupied(place, request.force, otherwise)
                install(folder, place)
    return Conversion(plan, place, report, made, time.monotonic() - start, left_out)


def failed_folder(place: Path) -> Path:
    """Where the report of a conversion that did not pass is left."""
    return place.with_name(place.name + ".failed")


def _refuse_place(place: Path, force: bool) -> None:
    """What can never be replaced by a folder, --force or not."""
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UsageError(f"{place}: is not a folder. Choose another with --output.")
    if force and any(place.resolve() in (here, *here.parents) for here in (Path.cwd(), Path.home())):
        raise UsageError(f"{place}: holds the working or home directory and is not replaced. Choose another --output.")


def _refuse_occupied(place: Path, force: bool, why: str) -> None:
    if place.exists() and any(place.iterdir()) and not force:
        raise UsageError(
            f"{place}: holds something else: {why}.\nReplace it with --force, or choose another with --output."
        )


def _held_report(
    place: Path, plan: Plan, source: GoogleView, oracles: Sequence[str], progress: Progress
) -> tuple[Report | None, str]:
    """The report of the folder that is there already, where it holds this very result, whole; or what is not so.

    Nothing that lies there is believed: every stored value is held against the source, every file against what would
    be written, and the report against its own figures.
    """
    if not (place / PARITY).is_file():
        return None, "it has no report"
    try:
        report = read_report(place / PARITY)
    except (OSError, ParityError) as error:
        return None, str(error)
    wanted = (source.sha256, plan.layout, plan.dtype, plan.exact, plan.pool_padding, RELEASE)
    held = (report.source.get("sha256"), report.layout, report.dtype, report.exact, report.pool_padding, report.release)
    if held != wanted or {witness.oracle for witness in report.witnesses} != set(oracles) or not report.passed:
        return None, f"{PARITY} is of another conversion"
    progress("comparing with the checkpoint", 0, 1)
    texts = {name: json_text(content) for name, content in json_files(plan).items()}
    texts[CARD] = card.render(plan, source, report, RELEASE)
    try:
        found = [f"{name} is another" for name, text in texts.items() if (place / name).read_bytes() != text.encode()]
        found += [f"{name} is missing" for name in weight_files(plan) if not (place / name).is_file()]
        found = found or held_departures(report, source, place, plan.variant, plan.pool_padding)
    except OSError as error:
        return None, f"{error.filename}: {error.strerror}"
    return (None, listed(found)) if found else (report, "")


def _same_files(folder: Path, place: Path) -> bool:
    """Whether ``place`` already holds every file of ``folder``, byte for byte."""
    return all((place / path.name).is_file() and sha256(place / path.name) == sha256(path) for path in folder.iterdir())


def _failed(report: Report, place: Path, command: str) -> ParityError:
    failed = failed_folder(place)
    with workspace(failed) as folder:
        write_report(report, folder, command)
        install(folder, failed)
    return ParityError(
        f"{place}: not made, verification {report.verdict}: {report.reason}.\nSee {failed / PARITY_PAGE}."
    )
