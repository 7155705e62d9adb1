"""The summary of a conversion, for people: one screen for one model, one line each for many."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from converters.amounts import some
from converters.conversion import Conversion
from converters.files import SIGNATURE
from converters.folder.plan import Plan
from converters.folder.snippet import loading_here, stock_remedy
from converters.redaction import printable
from verify.precision import error_in_words
from verify.report.comparison import ReportComparison
from verify.report.meaning import NOTHING, evaluation_lines, meaning
from verify.report.parity import HeldOutReport, ReaderReport, Report

if TYPE_CHECKING:
    from converters.hub.guard import Publication

MAX_WIDTH = 120
FAULTS = 5
UNKNOWN = 8
"""Faults, and unknown files and fields, that a summary names; the report has them all."""


def render(conversion: Conversion, publication: Publication | None, version: str, short: bool) -> str:
    """The text for a job that succeeded, in the terminal's width."""
    console = _console()
    if short:
        console.print(_shown(f"{conversion.plan.name}: {_one_line(conversion, publication)}"), soft_wrap=True)
    else:
        console.print(_table(conversion, publication, version))
        lines = loading_here(conversion.plan, str(conversion.folder))
        console.print(_shown("\n".join(["", *lines, ""])), soft_wrap=True)
        console.print(_conclusion(conversion), soft_wrap=True)
    return _text(console)


def render_report(report: Report, page: Path, replaced: str = "") -> str:
    """The text for an audit, whose report is ``page``; ``replaced`` says what that replaces."""
    console = _console()
    table = _names_and_texts(f"{_shown(report.title)} · {report.verdict}")
    table.add_row("what it means", _shown(meaning(report)))
    if not report.faults:
        table.add_row("why", _shown(report.reason))
    for fault in report.faults[1:FAULTS]:
        table.add_row("fault", _shown(fault))
    if len(report.faults) > FAULTS:
        table.add_row("", f"{len(report.faults) - FAULTS} more, in the report")
    _add_tensors(table, report)
    for reader in report.readers:
        table.add_row(_reader_name(reader), _reader_line(reader))
    declared = report.readers[0]
    if declared.real_top1 is not None and report.real_images:
        table.add_row("top-1 agreement", f"{declared.real_top1} of {report.real_images} real images")
    for each in report.inspected:
        if each.place == SIGNATURE:
            met = all(expectation.met for expectation in report.expectations if expectation.place == SIGNATURE)
            table.add_row("signature", escape(each.reason) if met else "[red]does not hold[/]")
    if report.held_out:
        _add_held_out(table, report.held_out, None)
    for name, text in evaluation_lines(report.evaluation) if report.evaluation else ():
        table.add_row(name, _shown(text))
    console.print(table)
    console.print(f"report: {_shown(page)}{_shown(replaced)}", soft_wrap=True)
    console.print(_audited(report), soft_wrap=True)
    return _text(console)


def render_comparison(found: ReportComparison, page: Path) -> str:
    """The text for two reports, of which ``page`` says more."""
    console = _console()
    table = Table(title="two reports", title_justify="left")
    table.add_column("", style="bold", overflow="fold")
    for title in found.titles:
        table.add_column(_shown(title), overflow="fold")
    for row in found.rows:
        table.add_row(_shown(row.name), *map(_shown, row.texts))
    for pair in found.faults:
        details = (NOTHING if fault is None else _shown(fault.detail) for fault in pair.faults)
        table.add_row(_shown(f"{pair.known.place}: {pair.known.kind}"), *details)
    console.print(table)
    for note in found.notes:
        console.print(_shown(note), soft_wrap=True)
    console.print(f"page: {_shown(page)}", soft_wrap=True)
    for title, report in zip(found.titles, found.reports, strict=True):
        console.print(f"{_shown(title)}: {_audited(report)}", soft_wrap=True)
    return _text(console)


def _audited(report: Report) -> str:
    """Returns the last line of an audit: the verdict, and the worst fault."""
    colour = {"passed": "green", "failed": "red"}.get(report.verdict, "yellow")
    return f"[{colour}]{report.verdict}[/]: {_shown(report.faults[0] if report.faults else meaning(report))}"


def _console() -> Console:
    terminal = Console()
    width = min(terminal.width, MAX_WIDTH) if terminal.is_terminal else MAX_WIDTH
    return Console(file=StringIO(), width=width, force_terminal=terminal.is_terminal, highlight=False)


def _names_and_texts(title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _text(console: Console) -> str:
    output: StringIO = console.file  # type: ignore[assignment]
    return output.getvalue()


def _shown(text: object) -> str:
    """A text that may quote anything, as rich is to show it: no markup, nothing that a terminal obeys."""
    return escape(printable(text))


def _one_line(conversion: Conversion, publication: Publication | None) -> str:
    state = "converted" if conversion.made else f"was already there (known in {conversion.seconds:.1f} s)"
    verdict = conversion.report.verdict if conversion.report else "not verified"
    return f"{state}, {verdict}, {conversion.folder}" + (f"; {_published(publication)}" if publication else "")


def _table(conversion: Conversion, publication: Publication | None, version: str) -> Table:
    plan, report = conversion.plan, conversion.report
    table = _names_and_texts(f"{plan.name} · bit-convert {version}")
    if report is not None:
        table.add_row("what it means", _shown(meaning(report)))
    table.add_row("architecture", str(plan.architecture))
    if conversion.left_out:
        table.add_row("left out", _shown(conversion.left_out))
    if report is not None:
        _add_tensors(table, report)
        for reader in report.readers:
            table.add_row(_reader_name(reader), _distance(reader, plan, str(conversion.folder)))
        if report.held_out:
            _add_held_out(table, report.held_out, plan.labels)
    state = "" if conversion.made else ", to know that it was already there"
    table.add_row("seconds", f"{conversion.seconds:.1f}{state}")
    table.add_row("folder", _shown(conversion.folder))
    if publication:
        table.add_row("published", _shown(_published(publication)))
    return table


def _conclusion(conversion: Conversion) -> str:
    """Returns the last line: the verdict, or that nothing was verified."""
    report = conversion.report
    if report is None:
        return "[yellow]not verified[/]: --no-verify"
    declared = report.readers[0]
    error = error_in_words(report.ratio, declared.name)
    checkpoint = "its checkpoint" + ("" if report.dtype == "float32" else f", rounded to {report.dtype},")
    return f"[green]{report.verdict}[/]: {conversion.plan.name} computes what {checkpoint} computes; error is {error}"


def _add_tensors(table: Table, report: Report) -> None:
    tensors = report.tensors
    table.add_row("tensors", f"{tensors.used} of {tensors.source} used, {tensors.filled} of {tensors.target} filled")
    table.add_row("bit-exact", f"{tensors.bit_exact} of {tensors.target} stored tensors, exactness: {report.exact}")
    if report.unknown:
        places = some([each.place for each in report.unknown], UNKNOWN)
        table.add_row("unknown", f"{len(report.unknown)} files and fields: {_shown(places)}")
    for other in report.other_oracles:
        reason = f": {_shown(other.reason)}" if other.reason else ""
        table.add_row(f"oracle {other.oracle}", f"{other.verdict}{reason}")


def _reader_name(reader: ReaderReport) -> str:
    return "transformers, timm" if "arithmetic" in reader.name else reader.name


def _distance(reader: ReaderReport, plan: Plan, folder: str) -> str:
    """Returns how far a library is off on a folder that passed, and what makes it exact where it is not."""
    if not reader.reason:
        return f"exact; largest error {reader.max_abs_error or 0:.1e}"
    remedy = stock_remedy(plan, folder)
    return _shown(reader.reason + (f"; {remedy} makes a loaded model exact" if remedy else ""))


def _reader_line(reader: ReaderReport) -> str:
    colour = "green" if reader.verdict == "passed" else "yellow"
    if reader.ratio is None or reader.max_abs_error is None:
        return f"[{colour}]{reader.verdict}[/]: {_shown(reader.reason)}"
    error = error_in_words(reader.ratio, reader.name)
    line = f"[{colour}]{reader.verdict}[/], error is {error}, largest {reader.max_abs_error:.1e}"
    return f"{line}; {_shown(reader.reason)}" if reader.reason else line


def _add_held_out(table: Table, found: HeldOutReport, labels: list[str] | None) -> None:
    def name(index: int) -> str:
        return _shown(labels[index]) if labels and 0 <= index < len(labels) else f"class {index}"

    if labels:
        shown, source, folder = map(name, (found.label, found.source_class, found.target_class))
        table.add_row("a real image", f"a handwritten {shown}: Google's layout says {source}, the folder {folder}")
    source, folder = (
        f"{right} of {found.images} ({right / found.images:.1%})" for right in (found.source_right, found.target_right)
    )
    table.add_row("held-out accuracy", f"Google's layout {source}, the folder {folder}, agreeing on {found.same}")


def _published(publication: Publication) -> str:
    state = "" if publication.changed else " (nothing new)"
    return f"{publication.repo_id}@{publication.revision} {publication.commit[:12]}{state}, {publication.url}"
