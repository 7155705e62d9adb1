"""The conversion of one checkpoint: find, read, remap, write, verify, put in place; and then, publish.

checkpoint → source, Plan → files in a workspace → audit → report, card → OUTPUT (or OUTPUT.failed) → hub
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from converters import digests
from converters.auditing.audits import VERSION, audit_folder, oracles_of, write_report
from converters.auditing.report_check import held_departures, read_report
from converters.auditing.target import own_readers
from converters.catalogue.variants import Variant
from converters.download.locations import canonical, fetch, locate
from converters.download.retry import patient
from converters.errors import CheckpointError, ParityError, UsageError
from converters.files import CARD, PARITY, PARITY_PAGE, PROVENANCE, SIGNATURE, json_text, model_files, sha256
from converters.folder import card, keyless, signature
from converters.folder.config import json_files
from converters.folder.plan import Plan
from converters.folder.provenance import Provenance, read
from converters.hub.guard import Publication
from converters.mapping.layouts import TRANSFORMERS
from converters.mapping.storage import Storage
from converters.options import ConvertOptions, PublishOptions
from converters.placing import install, refuse_place, refuse_unwritable, workspace
from converters.sources import GoogleView, open_checkpoint
from converters.writers import model
from verify import Report
from verify.protocols import Progress
from verify.reader_apart import ReaderProcess
from verify.report.meaning import meaning
from verify.verdict import listed

DEFAULT_OUTPUT = Path("models")
APART_VALUES = 1 << 27
"""The most values of a checkpoint for which PyTorch has a process of its own: of a larger one, its import is a small
part of the time, and two processes take much memory at once."""


@dataclass(frozen=True)
class Request:
    """One checkpoint to convert, a variant's own or the one that was given, and how."""

    variant: Variant | None
    checkpoint: Path | str | None
    """A path, or an address; None for the variant's own."""
    output: Path | None
    """The folder for a given checkpoint; for a variant, the parent of a folder named after the model."""
    options: ConvertOptions
    command: str = ""
    """The command that repeats it, for the page of a conversion that did not pass."""
    apart: bool = False
    """Whether PyTorch may have a process of its own, where this one has not imported it: which saves seconds once."""

    def place(self, name: str = "") -> Path:
        """The folder to make of a model of this name, by default the variant's."""
        if self.checkpoint is not None and self.output is not None:
            return self.output
        if not name and self.variant is not None:
            name = self.variant.repository_name
        return (self.output or DEFAULT_OUTPUT) / name


@dataclass(frozen=True)
class Conversion:
    """The result of a request."""

    plan: Plan = field(repr=False)
    folder: Path
    report: Report | None
    """None with ``verify`` False."""
    made: bool
    """False where the folder held this result already."""
    seconds: float
    left_out: str
    """One line on what of the checkpoint is not in the folder, and why; empty where everything is."""
    sign_key: Path | None = None
    """The key that the folder was signed with, in this conversion or an earlier one."""

    @property
    def files(self) -> list[str]:
        """The names of the files that were made, sorted; others may lie beside them."""
        made = self.report.files if self.report else model_files(self.folder)
        return sorted(n for n in (*made, CARD, PARITY, PROVENANCE, SIGNATURE) if (self.folder / n).is_file())

    @property
    def bytes(self) -> int | None:
        """The size of these files; None where there are none any more."""
        try:
            return sum((self.folder / name).stat().st_size for name in self.files) or None
        except OSError:
            return None


def plan_of(source: GoogleView, variant: Variant | None, options: ConvertOptions) -> Plan:
    """Returns the plan of a conversion.

    Raises CheckpointError where it is not what it was said to be, UsageError where it cannot become what is asked for.
    """
    architecture = source.architecture
    if variant is not None and variant.network != architecture:
        raise CheckpointError(
            f"{source.path}: holds {architecture}, but {variant.name} is {variant.network}.\n"
            "Give the file of that variant, or leave --variant out."
        )
    plan = Plan.of(source, variant, Storage.of(options), options.pool_padding)
    if plan.storage.exact == "logits" and plan.pool_padding == "-inf":
        raise UsageError(
            f"{source.path}: its max-pool pads with -inf, which stock libraries, that --exact logits is for, cannot.\n"
            "Choose --exact bits, which bit_ref reads, or --pool-padding zeros if the network was trained with them."
        )
    json_files(plan)  # refuses what the layout cannot hold
    if plan.layout == "timm" and len(model.weight_files(plan)) > 1:
        raise UsageError(f"{plan.name}: timm reads one file of weights alone. Raise or leave out --max-shard-size.")
    return plan


def convert(request: Request, progress: Progress) -> Conversion:
    """Finds, converts and verifies one checkpoint.

    Raises CheckpointError for a checkpoint that is unreadable or another than said, HubError where it cannot be
    downloaded, UsageError for an output folder that holds something else, and ParityError where verification does not
    pass; its report is then all there is, in ``OUTPUT.failed``.
    """
    variant, options = request.variant, request.options
    if variant is not None or request.output is not None:  # what is wrong with the folder is said before a download
        asked = request.place()
        refuse_place(asked, options.force)
        if not asked.exists():
            refuse_unwritable(asked.parent, "--output")
    if options.sign_key is not None:
        signature.public_half(options.sign_key)  # refuses a wrong one before the work
    if options.sign:
        keyless.refuse_without_identity(options.offline)
    place = locate(request.checkpoint, variant)
    size = variant.bytes if variant and request.checkpoint is None else None
    with patient(options.patience):
        checkpoint = fetch(place, size=size, offline=options.offline, progress=progress)
    with open_checkpoint(checkpoint) as source:
        conversion = _convert(source, request, _uri(place, variant), progress)
    if options.sign_key is not None or options.sign:
        _sign(conversion, options)
    return conversion


def _sign(conversion: Conversion, options: ConvertOptions) -> None:
    names = [name for name in conversion.files if name != SIGNATURE]
    if options.sign_key is not None:
        signature.sign(conversion.folder, names, options.sign_key)
    if options.sign:
        keyless.sign(conversion.folder, names)


def _convert(source: GoogleView, request: Request, uri: str, progress: Progress) -> Conversion:
    start = time.monotonic()
    options, variant = request.options, request.variant
    plan, left_out = plan_of(source, variant, options), source.left_out
    place = request.place(plan.name)
    refuse_place(place, options.force)
    held = _held(place, plan, source, options, progress)
    if held.report is not None:
        return Conversion(plan, place, held.report, False, time.monotonic() - start, left_out, options.sign_key)
    replaces = options.force or held.is_ours
    if options.verify:  # an unverified folder that is already there can only be told by making it again
        _refuse_occupied(place, replaces, held.why)
    with workspace(place) as folder, _reader_process(source, request, plan) as process:
        written = model.write(folder, source, plan, progress)
        report = None
        if options.verify:
            readers = own_readers if process is None else partial(own_readers, process=process)
            report = audit_folder(folder, source, readers, options, progress, variant=variant, digests=written)
            report = replace(report, target={"name": plan.name})
            if not report:
                raise _failed(report, place, request.command)
            (folder / PARITY).write_text(report.to_json(), encoding="utf-8")
        files = report.files if report else {n: written.get(n) or sha256(folder / n) for n in model_files(folder)}
        provenance = Provenance.of(plan, files, source, uri, VERSION).content()
        (folder / PROVENANCE).write_text(json_text(provenance), encoding="utf-8")
        (folder / CARD).write_text(card.render(plan, source, report, VERSION), encoding="utf-8")
        states = digests.states_of(place, files)
        # By force also where every file of ours is there: something beside them was not.
        made = replaces or not (place.exists() and _same_files(folder, place))
        if made:
            _refuse_occupied(place, replaces, held.why)
            states = digests.private_states_of(folder, files)  # in the place another run may put its own
            install(folder, place)
    if report is not None:
        digests.remember(place, files, states, _compared(report, source, plan))
    else:
        digests.remember_made(place, files, states)
    return Conversion(plan, place, report, made, time.monotonic() - start, left_out, options.sign_key)


def _reader_process(source: GoogleView, request: Request, plan: Plan) -> AbstractContextManager[ReaderProcess | None]:
    """A process for PyTorch, where that saves time and is no matter of memory."""
    is_small = sum(map(math.prod, source.shapes.values())) <= APART_VALUES
    is_wanted = request.apart and request.options.verify and plan.layout == TRANSFORMERS.name
    with suppress(OSError):  # without one, PyTorch is imported here
        if is_small and is_wanted and "torch" not in sys.modules:
            return ReaderProcess()
    return nullcontext()


def _uri(place: Path | str, variant: Variant | None) -> str:
    """The address at which others find a checkpoint; empty of one that only lies here."""
    if isinstance(place, str):
        return canonical(place)
    if variant is None or place != variant.file:
        return ""
    return f"pkg:pypi/bit-convert@{VERSION}#{place.relative_to(Path(__file__).parents[1]).as_posix()}"


def publish(conversion: Conversion, options: PublishOptions, progress: Progress, *, bars: bool = False) -> Publication:
    """Takes a conversion to the Hub, or to a folder hub. ``bars`` shows huggingface_hub's own progress on stderr.

    Raises ParityError where it was not verified, or its files have changed since, HubError where the hub refuses or
    cannot be reached, UsageError for a name that cannot be.
    """
    report, name = conversion.report, conversion.plan.name
    if report is None:
        raise ParityError(f"{conversion.folder}: not published: it was not verified. Convert it without --no-verify.")
    progress("publishing", 0, 1)
    if options.hub is not None:
        from converters.hub import local_folder

        return local_folder.publish(conversion.folder, report, name, options, sign_key=conversion.sign_key)
    from converters.download.hub_client import without_bars
    from converters.hub import upload

    def say(line: str) -> None:
        progress(line, 0, 1)

    with nullcontext() if bars else without_bars():
        return upload.publish(conversion.folder, report, name, options, progress=say, sign_key=conversion.sign_key)


def failed_folder(place: Path) -> Path:
    """Returns the folder for the report of a conversion that did not pass."""
    return place.with_name(place.name + ".failed")


def _refuse_occupied(place: Path, replaces: bool, why: str) -> None:
    if not replaces and place.exists() and any(place.iterdir()):  # another run may be replacing it, too
        raise UsageError(
            f"{place}: holds something else: {why}.\nReplace it with --force, or choose another with --output."
        )


@dataclass(frozen=True)
class _Held:
    """The folder that is in a conversion's place already."""

    report: Report | None = None
    """The report of this very result, whole; None where something else is there, or nothing."""
    why: str = ""
    """The reason why it is not this result."""
    is_ours: bool = False
    """Another version's folder of the same model, that is to be renewed."""


def _held(place: Path, plan: Plan, source: GoogleView, options: ConvertOptions, progress: Progress) -> _Held:
    """Finds whether the folder that is there already holds this very result, whole.

    Nothing that lies there is believed: every stored value is held against the source, every file against what would
    be written, and the report against its own figures; unless that was done before, and no file has changed since.
    Of another version's folder the weights and what is read with them count: its card and report are its own.
    """
    if not (place / PARITY).is_file():
        return _Held(why="it has no report")
    try:
        report = read_report(place / PARITY)
    except (OSError, ParityError) as error:
        return _Held(why=str(error))
    stored = replace(plan.storage, max_shard_size=None)
    wanted = (source.sha256, stored, plan.pool_padding)
    held = (report.source.get("sha256"), Storage.of(report), report.pool_padding)
    oracles = {*oracles_of(source, options.oracles)}
    is_current = report.release == VERSION
    if held != wanted or not report.passed or (is_current and {o.oracle for o in report.other_oracles} != oracles):
        return _Held(why=f"{PARITY} is of another conversion")
    progress("comparing with the checkpoint", 0, 1)
    try:
        found = _departures(place, plan, source, report)
    except OSError as error:
        found = [f"{error.filename}: {error.strerror}"]
    if found:
        return _Held(why=listed(found))
    if options.refresh and not is_current:
        return _Held(why=f"version {report.release} made it", is_ours=True)
    return _Held(report)


def _departures(place: Path, plan: Plan, source: GoogleView, report: Report) -> list[str]:
    """Lists what of the folder is not what a conversion would make."""
    texts = {name: json_text(content) for name, content in json_files(plan).items()}
    if report.release == VERSION:
        texts[CARD] = card.render(plan, source, report, VERSION)
    missing = [name for name in (*texts, *model.weight_files(plan)) if not (place / name).is_file()]
    found = [f"{name} is missing" for name in missing]
    present = {name: text for name, text in texts.items() if name not in missing}
    found += [f"{name} is another" for name, text in present.items() if (place / name).read_bytes() != text.encode()]
    found += [f"{PROVENANCE} is another"] if read(place) is None else []
    if found or _is_remembered(place, report, source, plan):
        return found
    states = digests.states_of(place, report.files)
    found = held_departures(report, source, place, plan.variant, plan.pool_padding)
    if not found:
        digests.remember(place, report.files, states, _compared(report, source, plan))
    return found


def _is_remembered(place: Path, report: Report, source: GoogleView, plan: Plan) -> bool:
    """Whether this folder was held against this checkpoint before, and has the very files that it had then."""
    return (
        digests.is_remembered(place, _compared(report, source, plan))
        and model_files(place) == sorted(report.files)
        and all(digests.known_sha256(place / name) == digest for name, digest in report.files.items())
    )


def _compared(report: Report, source: GoogleView, plan: Plan) -> str:
    """The name of what a folder was held against."""
    return digests.result_name(VERSION, source.sha256, plan.storage, plan.pool_padding, report.to_json())


def _same_files(folder: Path, place: Path) -> bool:
    """Whether ``place`` already holds every file of ``folder``, byte for byte."""
    return all((place / path.name).is_file() and sha256(place / path.name) == sha256(path) for path in folder.iterdir())


def _failed(report: Report, place: Path, command: str) -> ParityError:
    failed = failed_folder(place)
    with workspace(failed) as folder:
        write_report(report, folder, command)
        install(folder, failed)
    return ParityError(
        f"{place}: not made, verification {report.verdict}: {report.reason}.\n"
        f"{meaning(report)} See {failed / PARITY_PAGE}."
    )
