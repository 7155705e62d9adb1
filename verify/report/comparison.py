"""Two reports side by side: what was audited, what was found, and the faults that only one of them has.

Report, Report → ``compared()`` → Comparison → ``render()`` (with comparison.html.jinja), JSON, a table on the terminal
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from verify.compare import FACTOR
from verify.faults import Fault
from verify.precision import error_in_words
from verify.report.meaning import NOTHING, evaluation_lines, figure_text, meaning
from verify.report.pages import page
from verify.report.parity import ReaderReport, Report

TEMPLATE = "comparison.html.jinja"
DIGITS = 8
"""Digits of a report's digest, which tell apart two of one title."""
NAMED = 3
"""Tensors that a note names."""

Pair = tuple[Report, Report]


@dataclass(frozen=True)
class ComparedRow:
    """One thing that both reports say, in words."""

    name: str
    texts: tuple[str, str]

    @property
    def is_same(self) -> bool:
        return self.texts[0] == self.texts[1]


@dataclass(frozen=True)
class FaultPair:
    """One fault by its kind and place, as each report has it; None where it has not."""

    faults: tuple[Fault | None, Fault | None]

    @property
    def known(self) -> Fault:
        """The fault of the first report that has it."""
        return next(fault for fault in self.faults if fault is not None)

    @property
    def is_in_both(self) -> bool:
        return None not in self.faults


@dataclass(frozen=True)
class ReportComparison:
    """Two reports, and what comes of holding one against the other."""

    reports: Pair
    titles: tuple[str, str]
    """The titles of the reports, which differ wherever the reports do."""
    rows: tuple[ComparedRow, ...]
    layers: tuple[ComparedRow, ...]
    """The error of each tensor of the forward pass, in floors."""
    faults: tuple[FaultPair, ...]
    notes: tuple[str, ...]
    """Sentences on both together: whether they are of one checkpoint, whether they store the same values."""

    @property
    def passed(self) -> bool:
        """Whether both passed."""
        return all(report.passed for report in self.reports)

    def to_json(self) -> dict[str, Any]:
        """Rows and faults as JSON has them: each with a list of two, None where a report has no such fault."""
        return {
            "titles": list(self.titles),
            "verdicts": [report.verdict for report in self.reports],
            "notes": list(self.notes),
            "rows": [{**asdict(row), "same": row.is_same} for row in self.rows],
            "layers": [asdict(row) for row in self.layers],
            "faults": [
                {
                    "kind": pair.known.kind,
                    "place": pair.known.place,
                    "details": [None if fault is None else fault.detail for fault in pair.faults],
                }
                for pair in self.faults
            ],
        }


def compared(one: Report, other: Report) -> ReportComparison:
    """Holds one report against another, of the same port or of two."""
    pair = one, other
    return ReportComparison(pair, _titles(pair), tuple(_rows(pair)), _layers(pair), _faults(pair), tuple(_notes(pair)))


def render(comparison: ReportComparison, command: str) -> str:
    """The page; ``command`` is what repeats the comparison."""
    return page("verify.report", TEMPLATE, comparison=comparison, command=command, factor=FACTOR, nothing=NOTHING)


def _titles(pair: Pair) -> tuple[str, str]:
    """The reports' titles; two of one title also have what tells them apart, at last their digests."""
    told_by: list[Callable[[Report], str]] = [
        lambda report: report.title,
        lambda report: f"{report.title} ({report.layout}, {report.dtype}, exactness: {report.exact})",
        lambda report: f"{report.title} (report {json.loads(report.to_json())['digest'][:DIGITS]})",
    ]
    titles = [(told(pair[0]), told(pair[1])) for told in told_by]
    return next((both for both in titles if both[0] != both[1]), titles[0])


def _rows(pair: Pair) -> Iterator[ComparedRow]:
    for name, told in _TOLD.items():
        texts = told(pair[0]), told(pair[1])
        if texts != (NOTHING, NOTHING):
            yield ComparedRow(name, texts)
    for name in dict.fromkeys(reader.name for report in pair for reader in report.readers):
        yield ComparedRow(f"read by {name}", (_reader(pair[0], name), _reader(pair[1], name)))
    lines = [dict(evaluation_lines(report.evaluation)) if report.evaluation else {} for report in pair]
    for name in dict.fromkeys([*lines[0], *lines[1]]):
        yield ComparedRow(name, (lines[0].get(name, NOTHING), lines[1].get(name, NOTHING)))


def _reader(report: Report, name: str) -> str:
    found = next((reader for reader in report.readers if reader.name == name), None)
    if found is None:
        return NOTHING
    declared = ", declared" if found is report.readers[0] else ""
    return f"{found.verdict}{declared}: {_figures(found)}"


def _figures(reader: ReaderReport) -> str:
    if reader.ratio is None or reader.max_abs_error is None:
        return reader.reason
    error = error_in_words(reader.ratio, reader.name)
    return f"error is {error}, largest {reader.max_abs_error:.1e}" + (f"; {reader.reason}" if reader.reason else "")


def _error(report: Report) -> str:
    if report.ratio is None or not report.nearest or not report.readers:
        return NOTHING
    return f"{error_in_words(report.ratio, report.readers[0].name)}, at {report.nearest}"


def _real(report: Report) -> str:
    declared = report.readers[0].real_top1 if report.readers else None
    return NOTHING if declared is None or not report.real_images else f"{declared} of {report.real_images}"


def _held_out(report: Report) -> str:
    found = report.held_out
    if found is None:
        return NOTHING
    return f"{found.target_right} of {found.images} right, the source {found.source_right}; {found.same} the same class"


_TOLD: dict[str, Callable[[Report], str]] = {
    "verdict": lambda report: report.verdict,
    "what it means": meaning,
    "why": lambda report: NOTHING if report.passed else report.reason,
    "audited": lambda report: report.target.get("name", NOTHING),
    "revision": lambda report: report.target.get("revision", NOTHING),
    "stored as": lambda report: f"{report.layout}, {report.dtype}, exactness: {report.exact}",
    "source": lambda report: f"{report.source.get('file', NOTHING)} ({report.source.get('format', NOTHING)})",
    "source's sha256": lambda report: report.source.get("sha256", NOTHING),
    "max-pool padding": lambda report: report.pool_padding,
    "stored tensors": lambda report: f"{report.tensors.bit_exact} of {report.tensors.target} bit-exact",
    "source's tensors": lambda report: f"{report.tensors.used} of {report.tensors.source} used",
    "error": _error,
    "largest error": lambda report: figure_text(report.max_abs_error),
    "floor": lambda report: figure_text(report.floor),
    "top-1 of real images": _real,
    "held-out images": _held_out,
    "fields that are wrong": lambda report: f"{sum(not each.met for each in report.expectations)}",
    "unknown files and fields": lambda report: f"{len(report.unknown)}",
    "images": lambda report: f"{len(report.images) - report.real_images} of noise, {report.real_images} real",
    "oracle": lambda report: report.oracle,
    "made by": lambda report: f"bit-convert {report.release}" if report.release else NOTHING,
}
"""The rows of the table, and how a report says them."""


def _layers(pair: Pair) -> tuple[ComparedRow, ...]:
    ratios = [{layer.name: figure_text(layer.ratio, ".3g") for layer in report.layers} for report in pair]
    names = dict.fromkeys([*ratios[0], *ratios[1]])
    return tuple(ComparedRow(name, (ratios[0].get(name, NOTHING), ratios[1].get(name, NOTHING))) for name in names)


def _faults(pair: Pair) -> tuple[FaultPair, ...]:
    """Those of the first report in its order, then what only the second has."""
    known = [{(fault.kind, fault.place): fault for fault in report.faults} for report in pair]
    return tuple(FaultPair((known[0].get(key), known[1].get(key))) for key in dict.fromkeys([*known[0], *known[1]]))


def _notes(pair: Pair) -> Iterator[str]:
    one, other = pair
    if one == other:
        yield "Both are the same report."
        return
    if one.source.get("sha256") == other.source.get("sha256"):
        yield "Both were judged by the same checkpoint."
    else:
        yield "They were judged by two checkpoints: their errors do not compare."
    if [image.sha256 for image in one.images] != [image.sha256 for image in other.images]:
        yield "They were judged on other images: their errors differ by that, too."
    if (one.layout, one.dtype) == (other.layout, other.dtype) and one.weights and other.weights:
        yield _stored(pair)


def _stored(pair: Pair) -> str:
    one, other = ({weight.name: weight.sha256 for weight in report.weights} for report in pair)
    differ = [name for name in one | other if one.get(name) != other.get(name)]
    if not differ:
        return f"All {len(one)} stored tensors hold the same bits in both."
    more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
    return f"{len(differ)} of {len(one | other)} stored tensors differ: {', '.join(differ[:NAMED])}{more}."
