"""The audit: stored values, then what every reader computes, then one verdict on both.

target, source → weights.check → Stored; readers, oracle → forward.gather → Evidence → Report → derived_verdict
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare, weights
from verify.faults import RECORDS, Fault, Kind, causes
from verify.forward import Evidence, ReaderRun, Readings, Walk, done, gather, run_reader, walk_length, withheld
from verify.images import Image, Images, default_images, separate
from verify.measured import layer_reports, logit_reports, reader_report, top
from verify.oracles.agreement import OracleRequest
from verify.oracles.numpy import Arithmetic, NumpyOracle, oracle_name
from verify.protocols import (
    Expectation,
    ImportingReader,
    LibraryReader,
    PoolPadding,
    Progress,
    Reader,
    ReaderApart,
    Source,
    Target,
)
from verify.report.parity import (
    EvaluationReport,
    HeldOutReport,
    ReaderReport,
    Report,
    Role,
    WeightReport,
    figure,
    image_report,
)
from verify.steps import Steps
from verify.verdict import derived_verdict, explained, other_classes

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Everything that an audit uses beside target and source; functions are called when the readers have run."""

    images: Sequence[Array] | None = None
    """Normalised (n, 3, height, width) float32 arrays, of any sizes from ``images.SMALLEST`` up. Each image is judged
    by itself, and where it comes in a batch, again in that. None: ``default_images()``."""
    real_images: Sequence[Array] = ()
    """The same of photographs, beside these: what they are taken for counts as predictions."""
    pool_padding: PoolPadding = "zeros"
    """The checkpoint's own."""
    other_oracles: Sequence[OracleRequest] = ()
    """They must agree with the first oracle, on the source itself, before any judges."""
    judged_by: Source | None = None
    """The source as the target's dtype rounds it, where that is not float32: stored values are compared with it
    through the target's correspondences, and computed ones with its oracle."""
    device: str = "cpu"
    """The device that the first oracle computes on: NumPy on ``cpu``, otherwise PyTorch."""
    version: str = ""
    """The version of the program that audits."""
    held_out: Callable[[], HeldOutReport | None] = lambda: None
    """Gives the classes of held-out images."""
    evaluation: Callable[[], EvaluationReport | None] = lambda: None
    """Gives the classes of a data set's images."""
    changes: Callable[[], Mapping[str, str]] = dict
    """Gives the files of target and source that are not what they were, and what happened to each."""


@dataclass(frozen=True)
class _Findings:
    """The results of the comparisons, and the faults that explain them."""

    stored: weights.Stored
    runs: list[ReaderRun]
    evidence: Evidence
    rounding: float | None
    expectations: list[Expectation]
    faults: list[Fault]


@np.errstate(all="ignore")  # what is not finite is judged, not warned of
def audit(
    target: Target, source: Source, settings: AuditSettings | None = None, progress: Progress | None = None
) -> Report:
    """Returns the report on whether ``target`` is the model of ``source``.

    Whatever goes wrong in a reader or in the checkpoint's network is part of the report; errors of reading source and
    target are not caught. Raises ValueError for images that are none.
    """
    settings = settings or AuditSettings()
    images = separate(default_images() if settings.images is None else settings.images, settings.real_images)
    judged = settings.judged_by or source
    files = dict(sorted(target.files.items()))  # before anything is read
    forwards = len(target.readers) * images.runs + (judged is not source)
    step = Steps(progress, len(target.correspondences) + forwards + walk_length(judged))
    found = _examine(target, source, judged, settings, images, step)
    classes, evaluation, changed = settings.held_out(), settings.evaluation(), settings.changes()
    step.end("report")
    faults = [Fault(Kind.CHANGED, name, f"{what} while the audit ran") for name, what in changed.items()]
    faults += found.faults
    if others := other_classes(classes, evaluation):
        faults.append(Fault(Kind.OTHER_CLASSES, found.runs[0].name, others))
    report = _report(target, source, settings, images, found)
    return _judged(
        replace(
            report,
            files=files,
            held_out=classes,
            evaluation=evaluation,
            changed=tuple(f"{name} {what}" for name, what in changed.items()),
            faults=tuple(faults),
        )
    )


def _examine(
    target: Target, source: Source, judged: Source, settings: AuditSettings, images: Images, step: Steps
) -> _Findings:
    pairs = _constants(target, settings.pool_padding)

    def read(step: Callable[[str], None]) -> list[ReaderRun]:
        return [run_reader(reader, images, constants, target.misleading, step) for reader, constants in pairs]

    with _reading(target, read, step) as begun:
        with _importing(target):
            stored = weights.check(target, source, step)
        readings = Readings(begun(), [constants for _, constants in pairs])
        evidence = _evidence(source, judged, settings, images, readings, step)
        runs = readings.runs.result()
    rounding = _rounding(source, judged, settings.pool_padding, images.singles, evidence, step)
    expectations = [*target.expectations, *(each for run in runs for each in run.effective)]
    counting = [run for run, role in zip(runs, _roles(target), strict=True) if role != "shown"]
    faults = _faults(judged, images.singles, stored, expectations, counting, evidence, step)
    return _Findings(stored, runs, evidence, rounding, expectations, faults)


@contextmanager
def _importing(target: Target) -> Iterator[None]:
    """Inside, the libraries of the readers are imported, in a thread of its own."""
    given = [r for r in target.readers if isinstance(r, ImportingReader) and not withheld(r, target.misleading)]

    def prepare() -> None:
        for reader in given:
            with suppress(Exception):  # which the reader raises again
                reader.prepare()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(prepare)
        yield


@contextmanager
def _reading(
    target: Target, read: Callable[[Callable[[str], None]], list[ReaderRun]], step: Steps
) -> Iterator[Callable[[], Future[list[ReaderRun]]]]:
    """Gives a function for the runs of readers. Where each has a process of its own, they run from now on; otherwise
    when it is called, and it returns when they have ended."""
    if not all(isinstance(reader, ReaderApart) for reader in target.readers):
        yield lambda: done(read(step))
        return
    thread = ThreadPoolExecutor(1)
    begun = thread.submit(copy_context().run, read, lambda _: step.skip(1))
    try:
        yield lambda: begun
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _evidence(
    source: Source, judged: Source, settings: AuditSettings, images: Images, readings: Readings, step: Steps
) -> Evidence:
    """Compares the runs with the oracle of what is judged, and other oracles with the oracle of the source itself."""
    others, walk = settings.other_oracles, Walk(settings.pool_padding, images.singles, step, settings.device)
    if judged is source or not others:
        return gather(judged, walk, readings, others)
    evidence = gather(judged, walk, readings, ())
    step.expect(walk_length(source))
    evidence.take_oracles(gather(source, walk, Readings(done([]), ()), others))
    return evidence


def _constants(target: Target, pool_padding: PoolPadding) -> list[tuple[Reader, Arithmetic]]:
    """Returns each reader with the constants of the oracle that it is judged by.

    The declared reader must compute what the checkpoint computes. A library beside it, which has constants of its own,
    must compute what the checkpoint computes with those: zeros around the max-pool, and its epsilon, unless the stored
    kernels are such that its epsilon has the effect of the checkpoint's.
    """
    own = Arithmetic(pool_padding=pool_padding)
    pairs: list[tuple[Reader, Arithmetic]] = []
    for reader in target.readers:
        constants = own
        if pairs and isinstance(reader, LibraryReader) and reader.epsilon is not None:
            constants = replace(own, pool_padding="zeros")
            if target.exact != "logits":
                constants = replace(constants, standardization_epsilon=reader.epsilon)
        pairs.append((reader, constants))
    return pairs


def _roles(target: Target) -> list[Role]:
    """A reader beside the declared one counts if it says what it computes with; of others nothing is expected."""
    beside: list[Role] = ["judged" if isinstance(reader, LibraryReader) else "shown" for reader in target.readers[1:]]
    return ["declared", *beside][: len(target.readers)]


def _rounding(
    source: Source,
    rounded: Source,
    pool_padding: PoolPadding,
    images: Sequence[Image],
    evidence: Evidence,
    step: Steps,
) -> float | None:
    """Returns how far rounding the stored values moved a logit (a feature, without a head) of the first image."""
    if rounded is source:
        return 0.0
    step("rounding")
    if not images or evidence.inconclusive_reasons:
        return None
    exact, moved = (
        NumpyOracle(tensors, pool_padding=pool_padding).forward(images[0])[evidence.final]
        for tensors in (source, rounded)
    )
    return figure(compare.peak(moved - exact))


def _faults(
    source: Source,
    images: Sequence[Image],
    stored: weights.Stored,
    expectations: Sequence[Expectation],
    runs: Sequence[ReaderRun],
    evidence: Evidence,
    step: Steps,
) -> list[Fault]:
    """Diagnoses the stored values, the fields of the files, and what the first failing reader computes."""
    faults = [_unmet_fault(each) for each in expectations if not each.met]
    if stored.misfits:
        from verify.diagnosis.computed import stored_faults

        faults[:0] = stored_faults(stored, source, step)
    failing = next((r for r in runs if r.installed and (r.error or not all(c.passed for c in r.comparisons))), None)
    if failing is None or evidence.inconclusive_reasons:
        return causes(faults)
    found = _computed_faults(source, images, stored, failing, step)
    if failing is not runs[0]:
        found = [replace(fault, detail=f"in {failing.name}: {fault.detail}") for fault in found]
    return causes(faults, found)


def _computed_faults(
    source: Source, images: Sequence[Image], stored: weights.Stored, run: ReaderRun, step: Steps
) -> list[Fault]:
    alone = [comparison for comparison in run.comparisons if comparison.batch == 1]
    if not run.error and all(comparison.passed for comparison in alone):
        worst = next(c for c in run.comparisons if not c.passed)
        return [Fault(Kind.BATCH, worst.name, f"image {worst.image + 1} in a batch of {worst.batch}: {worst.detail}")]
    if run.unit > compare.U:  # nothing is known of the faults of other precisions
        return []
    from verify.diagnosis.computed import computed_faults

    oracle = NumpyOracle(source, arithmetic=run.arithmetic)
    return computed_faults(oracle, source, images, run, [each.pair.source for each in stored.differing], step)


def _unmet_fault(expectation: Expectation) -> Fault:
    kind = RECORDS.get(expectation.place.partition(" ")[0], Kind.CONFIGURATION)
    if expectation.place == "parity.json figures":
        kind = Kind.FORGED_REPORT
    return Fault(kind, expectation.place, f"is {expectation.found}, not {expectation.expected}")


def _report(target: Target, source: Source, settings: AuditSettings, images: Images, found: _Findings) -> Report:
    """Returns the report without its verdict."""
    evidence, runs = found.evidence, found.runs
    comparisons = runs[0].comparisons if runs else []
    oracle = oracle_name(settings.device)
    return Report(
        verdict="inconclusive",
        reason="",
        max_abs_error=top(c.max_abs_error for c in comparisons if c.name == evidence.final),
        floor=figure(evidence.floors.get(evidence.final, np.nan)),
        ratio=top(c.ratio for c in comparisons),
        tensors=found.stored.tensors,
        layers=layer_reports(comparisons, evidence.floors),
        readers=tuple(
            reader_report(run, role, evidence, images.real) for run, role in zip(runs, _roles(target), strict=True)
        ),
        oracle=" and ".join([oracle, *(each.name for each in evidence.other_oracles if each.verdict == "agrees")]),
        other_oracles=tuple(evidence.other_oracles),
        layout=target.layout,
        dtype=target.dtype,
        rounding=found.rounding,
        exact=target.exact,
        pool_padding=settings.pool_padding,
        source={"file": PurePath(source.path).name, "format": source.format, "sha256": source.sha256},
        files={},
        images=tuple(image_report(image, index in images.real) for index, image in enumerate(images.singles)),
        release=settings.version,
        misfits=found.stored.misfits,
        weights=tuple(
            WeightReport(each.pair.target, each.pair.source, each.stored_sha256, each.exact)
            for each in found.stored.compared
        ),
        expectations=tuple(found.expectations),
        inspected=tuple(target.inspected),
        feature_floor=figure(evidence.feature_floor),
        logits=logit_reports(runs[0]) if runs else (),
    )


def _judged(report: Report) -> Report:
    """Derives the verdict from a report's figures; faults are listed only where it is ``failed``."""
    readers: tuple[ReaderReport, ...] = tuple(explained(reader, report) for reader in report.readers)
    report = replace(report, readers=readers)
    verdict, reason = derived_verdict(report)
    return replace(report, verdict=verdict, reason=reason, faults=report.faults if verdict == "failed" else ())
