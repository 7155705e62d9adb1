"""The measured figures of an audit, as a report records them.

Run, Evidence → ReaderReport; comparisons → LayerReport for each layer; logits → LogitReport for some classes
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from verify.report.parity import LayerReport, LogitReport, ReaderReport, Role, figure

if TYPE_CHECKING:
    from verify.compare import Comparison
    from verify.forward import Evidence, ReaderRun

PLOTTED = 100
"""Logits that a report keeps for a plot."""


def reader_report(run: ReaderRun, role: Role, evidence: Evidence, real: Collection[int]) -> ReaderReport:
    """Returns the verdict on one reader, with the reason and its figures; ``real`` are the images that are no noise."""
    failing = next((c for c in run.comparisons if not c.passed), None)
    verdict, reason = _verdict(run, failing, evidence)
    return ReaderReport(
        name=run.name,
        role=role,
        verdict=verdict,
        ratio=top(c.ratio for c in run.comparisons),
        max_abs_error=top(c.max_abs_error for c in run.comparisons if c.name == evidence.final),
        top1=sum(run.same_class.values()) if run.same_class else None,
        real_top1=sum(run.same_class.get(image, False) for image in real) if run.same_class else None,
        exceeds_limit_at=failing.name if failing else None,
        reason=reason,
        epsilon=run.arithmetic.standardization_epsilon,
        pool_padding=run.arithmetic.pool_padding,
        moved=figure(evidence.moved.get(run.arithmetic, math.nan)),
    )


def _verdict(
    run: ReaderRun, failing: Comparison | None, evidence: Evidence
) -> tuple[Literal["passed", "failed", "inconclusive", "not run"], str]:
    if not run.installed:
        return "not run", run.error
    if run.error:
        return "failed", f"cannot run the folder: {run.error}"
    if evidence.inconclusive_reasons or not run.comparisons:
        return "inconclusive", next(iter(evidence.inconclusive_reasons), "nothing was compared")
    return ("passed", "") if failing is None else ("failed", _excess(failing))


def _excess(comparison: Comparison) -> str:
    batch = f" in a batch of {comparison.batch}" if comparison.batch > 1 else ""
    where = f"on image {comparison.image + 1}{batch}"
    if not math.isfinite(comparison.error):
        return f"{comparison.name} differs {where}: {comparison.detail}"
    figures = f"error {comparison.error:.2e}, limit {comparison.limit:.2e}"
    return f"{comparison.name} exceeds its limit {where}: {figures}; {comparison.detail}"


def layer_reports(comparisons: Sequence[Comparison], floors: Mapping[str, float]) -> tuple[LayerReport, ...]:
    """Returns one report a layer, in the order of the oracle's ``floors`` first."""
    by_name: dict[str, list[Comparison]] = {name: [] for name in floors}
    for comparison in comparisons:
        by_name.setdefault(comparison.name, []).append(comparison)
    return tuple(_layer_report(name, group, floors) for name, group in by_name.items())


def _layer_report(name: str, group: Sequence[Comparison], floors: Mapping[str, float]) -> LayerReport:
    if not group:
        return LayerReport(name, None, figure(floors[name]), None, None, None, 0)
    worst = max(group, key=lambda c: math.inf if math.isnan(c.ratio) else c.ratio)
    return LayerReport(
        name=name,
        max_abs_error=top(c.max_abs_error for c in group),
        floor=top(c.floor for c in group),
        error=figure(worst.error),
        limit=figure(worst.limit),
        ratio=figure(worst.ratio),
        image=worst.image,
    )


def logit_reports(run: ReaderRun) -> tuple[LogitReport, ...]:
    """Returns some classes of the first image, evenly spaced; none for a network without a head."""
    if run.logits is None:
        return ()
    oracle, model = run.logits
    chosen = np.unique(np.linspace(0, len(oracle) - 1, min(len(oracle), PLOTTED)).astype(int))
    return tuple(LogitReport(int(i), figure(float(oracle[i])), figure(float(model[i]))) for i in chosen)


def top(values: Iterable[float]) -> float | None:
    """Returns the largest figure; None of nothing, and where one is not finite."""
    listed = list(values)
    return figure(max(listed)) if listed and all(math.isfinite(value) for value in listed) else None
