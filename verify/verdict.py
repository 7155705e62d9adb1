"""The verdict: one function of what a report records, for the audit that makes the report and for every check of it.

Report → ``derived_verdict()`` → verdict, and why
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from verify.compare import FACTOR, U
from verify.oracles.numpy import STANDARDIZATION_EPSILON
from verify.precision import error_in_words
from verify.report.parity import EvaluationReport, HeldOutReport, ReaderReport, Report, Verdict

ROUNDED = 2e-3
"""The relative difference that figures of four digits may have."""
SHOWN = 3
"""Lines spelt out in a one-line reason."""


Finding = tuple[Verdict, str]


def derived_verdict(report: Report) -> Finding:
    """The verdict that the recorded figures make, and why; what the report itself says of them is not looked at.

    It is that of the first of ``PRIORITY`` that finds anything.
    """
    found = next(filter(None, (reason(report) for reason in PRIORITY)), None)
    return found or ("passed", _summary(report))


def _changed(report: Report) -> Finding | None:
    """A file that changed comes before all, since the rest is then not of one content."""
    if not report.changed:
        return None
    return "failed", f"{listed(report.changed)} while the audit ran: run it again when nothing else writes there"


def _misfits(report: Report) -> Finding | None:
    return ("failed", listed(report.misfits)) if report.misfits else None


def _unmet(report: Report) -> Finding | None:
    unmet = [expectation for expectation in report.expectations if not expectation.met]
    others = len(unmet) - 1
    more = f"; and {others} more field{'s' * (others > 1)}" if others > 0 else ""
    return ("failed", f"{unmet[0]}{more}") if unmet else None


def _nothing_there(report: Report) -> Finding | None:
    if not report.tensors.bit_exact:
        return "inconclusive", "nothing was compared: no stored tensor"
    return None if report.readers else ("inconclusive", "nothing was compared: no reader")


def _unable(report: Report) -> Finding | None:
    failed = next((reader for reader in report.counting if reader.cannot_run), None)
    return ("failed", f"{failed.name}: {failed.reason}") if failed else None


def _undecided(report: Report) -> Finding | None:
    """Without the declared reader, the other oracles or a floor, nothing can be concluded from what readers compute."""
    declared = report.readers[0]
    if declared.verdict == "not run":
        return "inconclusive", f"{declared.name} was not run: {declared.reason}"
    if declared.verdict == "inconclusive":
        return "inconclusive", declared.reason
    without = next((other.reason for other in report.other_oracles if other.verdict in ("disagrees", "failed")), None)
    if without is not None:
        return "inconclusive", without
    if not report.layers or not report.images:
        return "inconclusive", "nothing was compared: no layer of any image"
    if report.feature_floor is None or report.feature_floor > math.sqrt(U):
        return "inconclusive", "the features' floor is too large to judge by"
    return None


def _over_a_limit(report: Report) -> Finding | None:
    """The declared reader is judged by each layer, each other by its largest error."""
    declared, *others = report.counting
    beyond = [(declared, _beyond(report)), *((reader, _beyond_limits(reader)) for reader in others)]
    for reader, reason in beyond:
        if reader.verdict == "failed" or reason:
            named = reader.exceeds_limit_at and report.faults
            fault = f"; {report.faults[0].kind}: {report.faults[0].detail}" if named else ""
            return "failed", f"{reader.name}: {reader.reason if reader.verdict == 'failed' else reason}{fault}"
    return None


def _other_classes(report: Report) -> Finding | None:
    found = other_classes(report.held_out, report.evaluation)
    return ("failed", f"{report.readers[0].name}: {found}") if found else None


def _missing(report: Report) -> Finding | None:
    """Nothing exceeds a limit, but a reader that was asked for has not run."""
    for reader in report.counting[1:]:
        if reader.verdict != "passed":
            why = f"{reader.name} was not run: {reader.reason}" if reader.verdict == "not run" else reader.reason
            return "inconclusive", why
    return None


PRIORITY = (
    _changed,
    _misfits,
    _unmet,
    _nothing_there,
    _unable,
    _undecided,
    _over_a_limit,
    _other_classes,
    _missing,
)
"""The reasons for a verdict other than passed, the first that counts first."""


def _summary(report: Report) -> str:
    declared, *others = report.counting
    return (
        f"{report.tensors.bit_exact} stored tensors bit-exact; {declared.name} within every limit "
        f"on {len(report.images)} images; error at most {error_in_words(declared.ratio or 0, declared.name)}"
        + "".join(f"; {reader.name} {reader.reason}" for reader in others if reader.reason)
    )


def other_classes(held_out: HeldOutReport | None, evaluation: EvaluationReport | None) -> str:
    """Returns how many images change a class that must be the same, in words; empty where none does."""
    if held_out and held_out.exact and held_out.same != held_out.images:
        return f"{held_out.images - held_out.same} of {held_out.images} held-out images get another class"
    if evaluation and evaluation.exact and evaluation.same is not None:
        changed = evaluation.images - evaluation.same
        if changed > evaluation.ties:
            return f"{changed} of {evaluation.images} images of {evaluation.dataset} get another class"
    return ""


def _beyond_limits(reader: ReaderReport) -> str:
    """Returns why a reader whose verdict is passed has not passed; empty where it has."""
    if reader.verdict != "passed":
        return ""
    if reader.ratio is None:
        return "was not compared"
    return "" if reader.ratio <= FACTOR * (1 + ROUNDED) else f"error is {error_in_words(reader.ratio, reader.name)}"


def _beyond(report: Report) -> str:
    """The first layer that was not compared or is beyond its limit; empty where there is none."""
    compared = [layer for layer in report.layers if layer.limit is not None]
    if len(compared) < len(report.layers) and [layer.name for layer in compared] != ["logits"]:
        missing = next(layer.name for layer in report.layers if layer.limit is None)
        return f"{missing} was not compared"  # only a reader of logits alone leaves a layer out
    return next((f"{la.name} is beyond its limit" for la in compared if not _within(la.error, la.limit)), "")


def _within(error: float | None, limit: float | None) -> bool:
    return error is not None and limit is not None and error <= limit * (1 + ROUNDED)


def listed(lines: Sequence[str]) -> str:
    """The first lines, and how many more there are, each once."""
    lines = list(dict.fromkeys(lines))
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def explained(reader: ReaderReport, report: Report) -> ReaderReport:
    """A reader that passed, with what it is exact but for where it was judged by constants of its own."""
    return replace(reader, reason=_exception(reader, report)) if reader.verdict == "passed" else reader


def _exception(reader: ReaderReport, report: Report) -> str:
    reasons = []
    if reader.epsilon != STANDARDIZATION_EPSILON:
        reasons.append(f"the library's epsilon ({_short(reader.epsilon)})")
    if reader.pool_padding != report.pool_padding:
        reasons.append(f"its max-pool, which pads with {reader.pool_padding}")
    if not reasons:
        return ""
    final = "logits" if any(layer.name == "logits" for layer in report.layers) else "features"
    moves = f"{final} move by {_short(reader.moved)}"
    count = report.real_images
    if reader.real_top1 is not None and count and len(report.logits) != 1:
        changed = count - reader.real_top1
        moves += f"; {f'{changed} of {count}' if changed else f'none of {count}'} predictions on real images changed"
    return f"exact except for {' and '.join(reasons)}: {moves}"


def _short(value: float | None) -> str:
    """One digit, and no more of an exponent than it needs: 3e-7."""
    return "an unknown amount" if value is None else re.sub(r"e([+-])0*", r"e\1", f"{value:.1g}")
