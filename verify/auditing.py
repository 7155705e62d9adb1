"""The audit: stored values, then what every reader computes, then one verdict on both.

target, source → stored.check → Stored; readers, oracle → evidence.gather → Evidence → Report → derived_verdict
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verify import compare, diagnosis, stored
from verify.compare import Comparison
from verify.evidence import Evidence, Run, gather, run_reader, walk_length
from verify.faults import CHANGED, OTHER_CLASSES, Fault, causes
from verify.oracles.numpy import NAME, NumpyOracle
from verify.panel import Witness
from verify.protocols import Expectation, PoolPadding, Progress, Source, Target
from verify.report import (
    HeldOutReport,
    LayerReport,
    LogitReport,
    ReaderReport,
    Report,
    WeightReport,
    figure,
    image_report,
)
from verify.steps import Steps
from verify.verdict import derived_verdict, other_classes

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]

PLOTTED = 100
"""Logits that a report keeps for a plot."""
EXTREME = 1e3
"""Amplitude of the largest of the thorough images."""
DIM = 1e-3
"""Amplitude of the second default image: so dim that the group norms' epsilon shows."""


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
    witnesses: Sequence[Witness] = (),
    progress: Progress | None = None,
    release: str = "",
    judged_by: Source | None = None,
    held_out: Callable[[], HeldOutReport | None] = lambda: None,
    changes: Callable[[], Mapping[str, str]] = dict,
) -> Report:
    """Is ``target`` the model of ``source``?

    ``judged_by`` is the source as the target's dtype rounds it, where that is not float32: the stored values are then
    held against it through the target's correspondences, and what is computed from them against its oracle; witnesses
    are held against the oracle of ``source`` itself.
    ``images`` are normalised (n, 3, height, width) float32 arrays, of any sizes, each of which is judged by itself
    (default: ``default_images()``); ``pool_padding`` is the checkpoint's own. ``witnesses`` make oracles that must
    agree with the first before any judges (``verify.panel.MAKERS``). ``held_out`` is called when the readers have run,
    and gives the classes of labelled images; ``changes``, when all has been read, gives the files of target and source
    that are not what they were, and what happened to each. Whatever goes wrong in a reader or in the checkpoint's
    network is part of the report; errors of reading source and target are not caught.
    Raises ValueError for images that are none.
    """
    singles = _single_images(default_images() if images is None else images)
    judged = judged_by or source
    forwards = len(target.readers) * len(singles) + (judged is not source)
    files = dict(sorted(target.files.items()))  # before anything is read
    step = Steps(progress, len(target.correspondences) + forwards + walk_length(judged))
    with np.errstate(all="ignore"):  # what is not finite is judged, not warned of
        accounts = stored.check(target, source, step)
        runs = [run_reader(reader, singles, step) for reader in target.readers]
        own = judged is source
        evidence = gather(judged, pool_padding, singles, runs, witnesses if own else (), step)
        if witnesses and not own:
            step.expect(walk_length(source))
            evidence.hear(gather(source, pool_padding, singles, (), witnesses, step))
        rounding = _rounding(source, judged, pool_padding, singles, evidence, step)
        unmet = [expectation for expectation in target.expectations if not expectation.met]
        faults = _faults(judged, pool_padding, singles, accounts, unmet, runs, evidence, step)
    classes = held_out()
    if classes and classes.exact and classes.same != classes.images:
        faults.append(Fault(OTHER_CLASSES, runs[0].name, other_classes(classes)))
    changed = changes()
    faults[:0] = [Fault(CHANGED, name, f"{what} while the audit ran") for name, what in changed.items()]
    step.end("report")
    readers = [_reader_report(run, evidence) for run in runs]
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
        oracle=" and ".join([NAME, *(w.name for w in evidence.witnesses if w.verdict == "agrees")]),
        witnesses=tuple(evidence.witnesses),
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
        expectations=tuple(target.expectations),
        inspected=tuple(target.inspected),
        feature_floor=figure(evidence.feature_floor),
        logits=_logit_reports(runs[0]) if runs else (),
        faults=tuple(faults),
    )
    verdict, reason = derived_verdict(report)
    return replace(report, verdict=verdict, reason=reason, faults=report.faults if verdict == "failed" else ())


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
    if not images or evidence.grounds:
        return None
    exact, moved = (
        NumpyOracle(tensors, pool_padding=pool_padding).forward(images[0])[evidence.final]
        for tensors in (source, rounded)
    )
    return figure(compare.peak(moved - exact))


def _faults(
    source: Source,
    pool_padding: PoolPadding,
    images: Sequence[Image],
    accounts: stored.Stored,
    unmet: Sequence[Expectation],
    runs: Sequence[Run],
    evidence: Evidence,
    step: Steps,
) -> list[Fault]:
    """What is wrong with what is stored, what the files say, and what the declared reader makes of it."""
    faults = diagnosis.stored_faults(accounts, source, step) if accounts.misfits else []
    faults += map(_unmet_fault, unmet)
    declared = runs[0] if runs else None
    departs = declared is not None and (declared.error or not all(c.passed for c in declared.comparisons))
    if declared is None or not departs or evidence.grounds or declared.unit > compare.U:
        return causes(faults)
    oracle = NumpyOracle(source, pool_padding=pool_padding)
    wrong = [account.pair.source for account in accounts.accounts if not account.exact]
    return causes(faults, diagnosis.computed_faults(oracle, source, images, declared, wrong, step))


def _unmet_fault(expectation: Expectation) -> Fault:
    kind = "stale report" if expectation.place.startswith("parity.json") else "configuration"
    if expectation.place == "parity.json figures":
        kind = "forged report"
    return Fault(kind, expectation.place, f"is {expectation.found}, not {expectation.expected}")


def _single_images(images: Sequence[Array]) -> list[Image]:
    singles: list[Image] = []
    for batch in images:
        if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape or batch.dtype != np.float32:
            raise ValueError(f"an image is a (n, 3, height, width) float32 array, not {batch.shape} {batch.dtype}")
        if not np.isfinite(batch).all():
            raise ValueError("an image holds NaN or Inf")
        singles += [np.ascontiguousarray(image[None]) for image in batch]
    return singles


def _reader_report(run: Run, evidence: Evidence) -> ReaderReport:
    verdict: Literal["passed", "failed", "inconclusive", "not run"]
    departing = next((c for c in run.comparisons if not c.passed), None)
    reason = ""
    if not run.installed:
        verdict, reason = "not run", run.error
    elif run.error:
        verdict, reason = "failed", f"cannot run the folder: {run.error}"
    elif evidence.grounds or not run.comparisons:
        verdict, reason = "inconclusive", evidence.grounds[0] if evidence.grounds else "nothing was compared"
    elif departing is not None:
        verdict, reason = "failed", _departure(departing)
    else:
        verdict = "passed"
    return ReaderReport(
        name=run.name,
        verdict=verdict,
        ratio=_top(c.ratio for c in run.comparisons),
        max_abs_error=_top(c.max_abs_error for c in run.comparisons if c.name == evidence.final),
        top1=run.top1,
        departs=departing.name if departing else None,
        reason=reason,
    )


def _departure(comparison: Comparison) -> str:
    figures = f"error {comparison.error:.2e} over the limit {comparison.limit:.2e}; "
    place = f"{comparison.name} departs on image {comparison.image + 1}: "
    return place + (figures if math.isfinite(comparison.error) else "") + comparison.detail


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
