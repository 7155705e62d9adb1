"""The audit: stored values, then what every reader computes, then one verdict on both.

target, source → weights.check → Stored; readers, oracle → evidence.gather → Evidence → Report → derived_verdict
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verify import compare, weights
from verify.compare import Comparison
from verify.diagnosis import computed
from verify.diagnosis.faults import Fault, Kind, causes
from verify.forward import Evidence, Run, gather, run_reader, walk_length
from verify.oracles.agreement import OracleRequest
from verify.oracles.numpy import NAME, Arithmetic, NumpyOracle
from verify.protocols import Expectation, LibraryReader, PoolPadding, Progress, Reader, Source, Target
from verify.report.parity import (
    HeldOutReport,
    LayerReport,
    LogitReport,
    ReaderReport,
    Report,
    Role,
    WeightReport,
    figure,
    image_report,
)
from verify.report.verdict import derived_verdict, explained, other_classes
from verify.steps import Steps

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

PLOTTED = 100
"""Logits that a report keeps for a plot."""
EXTREME = 1e3
"""Amplitude of the largest of the thorough images."""
DIM = 1e-3
"""Amplitude of the second default image: so dim that the group norms' epsilon shows."""
SMALLEST = 9
"""Pixels on a side of an image that is judged by: from 8 on down the last maps are of one pixel, and the group norms
before them of a few, whose floors are too large."""


def default_images(height: int = 224, width: int | None = None, seed: int = 0) -> list[Image]:
    """N(0, 1) noise, and the same at amplitude 1e-3: two (1, 3, height, width) float32 arrays."""
    noise = np.random.default_rng(seed).standard_normal((1, 3, height, width or height), dtype=np.float32)
    return [noise, noise * np.float32(DIM)]


def thorough_images(height: int = 224, seed: int = 0) -> list[Image]:
    """The default images, and those on which rarer faults show.

    Two more seeds as a batch, impulses at the corners and borders, odd and non-square sizes, extreme values.
    """
    images = default_images(height, seed=seed)
    random = np.random.default_rng(seed + 1)
    batch = random.standard_normal((2, 3, height, height), dtype=np.float32)
    impulses = random.standard_normal((1, 3, height, height), dtype=np.float32) * np.float32(DIM)
    for y in (0, height // 2, height - 1):
        for x in (0, height // 2, height - 1):
            impulses[:, :, y, x] = 10 if (y, x) != (height // 2, height // 2) else 0
    odd = default_images(height // 2 + 1 - height // 2 % 2, height // 2 + 20, seed=seed + 2)[0]
    wide = default_images(height // 3, height, seed=seed + 3)[0]
    return [*images, batch, impulses, odd, wide, images[0] * np.float32(EXTREME)]


IMAGES: Mapping[str, Callable[[], list[Image]]] = {"default": default_images, "thorough": thorough_images}
"""Sets of images by the name that a user asks for."""


def audit(
    target: Target,
    source: Source,
    *,
    images: Sequence[Array] | None = None,
    pool_padding: PoolPadding = "zeros",
    other_oracles: Sequence[OracleRequest] = (),
    progress: Progress | None = None,
    release: str = "",
    judged_by: Source | None = None,
    held_out: Callable[[], HeldOutReport | None] = lambda: None,
    changes: Callable[[], Mapping[str, str]] = dict,
) -> Report:
    """Is ``target`` the model of ``source``?

    ``judged_by`` is the source as the target's dtype rounds it, where that is not float32: the stored values are then
    held against it through the target's correspondences, and what is computed from them against its oracle; other
    oracles are compared with the oracle of ``source`` itself.
    ``images`` are normalised (n, 3, height, width) float32 arrays, of any sizes from ``SMALLEST`` up: each is judged
    by itself, and where they come in a batch, again in that (default: ``default_images()``); ``pool_padding`` is the
    checkpoint's own. ``other_oracles`` must agree with the first oracle before any judges
    (``oracles.agreement.MAKERS``). ``held_out`` is called when the readers have run, and gives the classes of labelled
    images; ``changes``, when all has been read, gives the files of target and source
    that are not what they were, and what happened to each. Whatever goes wrong in a reader or in the checkpoint's
    network is part of the report; errors of reading source and target are not caught.
    Raises ValueError for images that are none.
    """
    singles, batches = _single_images(default_images() if images is None else images)
    judged = judged_by or source
    forwards = len(target.readers) * (len(singles) + len(batches)) + (judged is not source)
    files = dict(sorted(target.files.items()))  # before anything is read
    step = Steps(progress, len(target.correspondences) + forwards + walk_length(judged))
    with np.errstate(all="ignore"):  # what is not finite is judged, not warned of
        accounts = weights.check(target, source, step)
        runs = [
            run_reader(reader, singles, batches, constants, target.misleading, step)
            for reader, constants in _constants(target, pool_padding)
        ]
        own = judged is source
        evidence = gather(judged, pool_padding, singles, runs, other_oracles if own else (), step)
        if other_oracles and not own:
            step.expect(walk_length(source))
            evidence.take_oracles(gather(source, pool_padding, singles, (), other_oracles, step))
        rounding = _rounding(source, judged, pool_padding, singles, evidence, step)
        expectations = [*target.expectations, *(each for run in runs for each in run.effective)]
        unmet = [expectation for expectation in expectations if not expectation.met]
        counting = [run for index, run in enumerate(runs) if _role(index, target.readers[index]) != "shown"]
        faults = _faults(judged, singles, accounts, unmet, counting, evidence, step)
    classes = held_out()
    if classes and classes.exact and classes.same != classes.images:
        faults.append(Fault(Kind.OTHER_CLASSES, runs[0].name, other_classes(classes)))
    changed = changes()
    faults[:0] = [Fault(Kind.CHANGED, name, f"{what} while the audit ran") for name, what in changed.items()]
    step.end("report")
    readers = [
        _reader_report(run, _role(index, reader), evidence)
        for index, (run, reader) in enumerate(zip(runs, target.readers, strict=True))
    ]
    comparisons = runs[0].comparisons if runs else []
    report = Report(
        verdict="inconclusive",
        reason="",
        max_abs_error=_top(c.max_abs_error for c in comparisons if c.name == evidence.final),
        floor=figure(evidence.floors.get(evidence.final, math.nan)),
        ratio=_top(c.ratio for c in comparisons),
        tensors=accounts.tensors,
        layers=_layer_reports(comparisons, evidence.floors),
        readers=tuple(readers),
        oracle=" and ".join([NAME, *(w.name for w in evidence.other_oracles if w.verdict == "agrees")]),
        other_oracles=tuple(evidence.other_oracles),
        layout=target.layout,
        dtype=target.dtype,
        rounding=rounding,
        exact=target.exact,
        pool_padding=pool_padding,
        source={"file": PurePath(source.path).name, "format": source.format, "sha256": source.sha256},
        files=files,
        images=tuple(image_report(image) for image in singles),
        release=release,
        held_out=classes,
        changed=tuple(f"{name} {what}" for name, what in changed.items()),
        misfits=accounts.misfits,
        weights=tuple(WeightReport(a.pair.target, a.pair.source, a.holds, a.exact) for a in accounts.accounts),
        expectations=tuple(expectations),
        inspected=tuple(target.inspected),
        feature_floor=figure(evidence.feature_floor),
        logits=_logit_reports(runs[0]) if runs else (),
        faults=tuple(faults),
    )
    report = replace(report, readers=tuple(explained(reader, report) for reader in report.readers))
    verdict, reason = derived_verdict(report)
    return replace(report, verdict=verdict, reason=reason, faults=report.faults if verdict == "failed" else ())


def _constants(target: Target, pool_padding: PoolPadding) -> list[tuple[Reader, Arithmetic]]:
    """Each reader, and the constants of the oracle that it is judged by.

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


def _rounding(
    source: Source,
    rounded: Source,
    pool_padding: PoolPadding,
    images: Sequence[Image],
    evidence: Evidence,
    step: Steps,
) -> float | None:
    """How far the rounding of the stored values moved what the model is for, on the first image."""
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
    accounts: weights.Stored,
    unmet: Sequence[Expectation],
    runs: Sequence[Run],
    evidence: Evidence,
    step: Steps,
) -> list[Fault]:
    """What is wrong with what is stored, what the files say, and what the first failing reader computes."""
    faults = computed.stored_faults(accounts, source, step) if accounts.misfits else []
    faults += map(_unmet_fault, unmet)
    failing = next((r for r in runs if r.installed and (r.error or not all(c.passed for c in r.comparisons))), None)
    if failing is None or evidence.inconclusive_reasons:
        return causes(faults)
    found: list[Fault] = []
    alone = [comparison for comparison in failing.comparisons if comparison.batch == 1]
    if not failing.error and all(comparison.passed for comparison in alone):
        worst = next(c for c in failing.comparisons if not c.passed)
        found = [Fault(Kind.BATCH, worst.name, f"image {worst.image + 1} in a batch of {worst.batch}: {worst.detail}")]
    elif failing.unit <= compare.U:
        oracle = NumpyOracle(source, arithmetic=failing.arithmetic)
        wrong = [account.pair.source for account in accounts.accounts if not account.exact]
        found = computed.computed_faults(oracle, source, images, failing, wrong, step)
    if failing is not runs[0]:
        found = [replace(fault, detail=f"in {failing.name}: {fault.detail}") for fault in found]
    return causes(faults, found)


def _unmet_fault(expectation: Expectation) -> Fault:
    kind = Kind.STALE_REPORT if expectation.place.startswith("parity.json") else Kind.CONFIGURATION
    if expectation.place == "parity.json figures":
        kind = Kind.FORGED_REPORT
    return Fault(kind, expectation.place, f"is {expectation.found}, not {expectation.expected}")


def _single_images(images: Sequence[Array]) -> tuple[list[Image], list[range]]:
    """Every image by itself, and which of them came in a batch."""
    singles: list[Image] = []
    batches: list[range] = []
    for batch in images:
        if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape or batch.dtype != np.float32:
            raise ValueError(f"an image is a (n, 3, height, width) float32 array, not {batch.shape} {batch.dtype}")
        if min(batch.shape[2:]) < SMALLEST:
            raise ValueError(f"an image of {batch.shape[2]} × {batch.shape[3]} is too small: give {SMALLEST} or more")
        if not np.isfinite(batch).all():
            raise ValueError("an image holds NaN or Inf")
        if len(batch) > 1:
            batches.append(range(len(singles), len(singles) + len(batch)))
        singles += [np.ascontiguousarray(image[None]) for image in batch]
    return singles, batches


def _role(index: int, reader: Reader) -> Role:
    """A reader beside the declared one counts where it says what it computes with; of others nothing is expected."""
    if not index:
        return "declared"
    return "judged" if isinstance(reader, LibraryReader) else "shown"


def _reader_report(run: Run, role: Role, evidence: Evidence) -> ReaderReport:
    verdict: Literal["passed", "failed", "inconclusive", "not run"]
    failing = next((c for c in run.comparisons if not c.passed), None)
    if not run.installed:
        verdict, reason = "not run", run.error
    elif run.error:
        verdict, reason = "failed", f"cannot run the folder: {run.error}"
    elif evidence.inconclusive_reasons or not run.comparisons:
        verdict, reason = "inconclusive", next(iter(evidence.inconclusive_reasons), "nothing was compared")
    elif failing is not None:
        verdict, reason = "failed", _excess(failing)
    else:
        verdict, reason = "passed", ""
    return ReaderReport(
        name=run.name,
        role=role,
        verdict=verdict,
        ratio=_top(c.ratio for c in run.comparisons),
        max_abs_error=_top(c.max_abs_error for c in run.comparisons if c.name == evidence.final),
        top1=run.top1,
        exceeds_limit_at=failing.name if failing else None,
        reason=reason,
        epsilon=run.arithmetic.standardization_epsilon,
        pool_padding=run.arithmetic.pool_padding,
        moved=figure(evidence.moved.get(run.arithmetic, math.nan)),
    )


def _excess(comparison: Comparison) -> str:
    batch = f" in a batch of {comparison.batch}" if comparison.batch > 1 else ""
    where = f"on image {comparison.image + 1}{batch}"
    if not math.isfinite(comparison.error):
        return f"{comparison.name} differs {where}: {comparison.detail}"
    figures = f"error {comparison.error:.2e}, limit {comparison.limit:.2e}"
    return f"{comparison.name} exceeds its limit {where}: {figures}; {comparison.detail}"


def _layer_reports(comparisons: Sequence[Comparison], floors: Mapping[str, float]) -> tuple[LayerReport, ...]:
    """One line a layer, the oracle's order first."""
    by_name: dict[str, list[Comparison]] = {name: [] for name in floors}
    for comparison in comparisons:
        by_name.setdefault(comparison.name, []).append(comparison)
    reports = []
    for name, group in by_name.items():
        if not group:
            reports.append(LayerReport(name, None, figure(floors[name]), None, None, None, 0))
            continue
        worst = max(group, key=lambda c: math.inf if math.isnan(c.ratio) else c.ratio)
        reports.append(
            LayerReport(
                name=name,
                max_abs_error=_top(c.max_abs_error for c in group),
                floor=_top(c.floor for c in group),
                error=figure(worst.error),
                limit=figure(worst.limit),
                ratio=figure(worst.ratio),
                image=worst.image,
            )
        )
    return tuple(reports)


def _logit_reports(run: Run) -> tuple[LogitReport, ...]:
    if run.logits is None:
        return ()
    oracle, model = run.logits
    chosen = np.unique(np.linspace(0, len(oracle) - 1, min(len(oracle), PLOTTED)).astype(int))
    return tuple(LogitReport(int(i), figure(float(oracle[i])), figure(float(model[i]))) for i in chosen)


def _top(values: Iterable[float]) -> float | None:
    """The largest figure; None of nothing, and where one is not finite."""
    listed = list(values)
    return figure(max(listed)) if listed and all(math.isfinite(value) for value in listed) else None
