"""``bit-verify --compare A B``: two reports that are there, side by side.

paths or repositories → Report, Report → Comparison → a table or JSON on stdout, a page in the folder of reports
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converters.auditing.audits import VERSION, write_texts
from converters.auditing.report_check import read_report
from converters.choices import JSON_SCHEMA
from converters.cli.output import say_json, say_styled
from converters.cli.progress import Output, shown
from converters.cli.words import command_line
from converters.download.locations import identity, report_of
from converters.errors import ParityError, UsageError
from converters.files import COMPARISON_PAGE, PARITY
from converters.placing import refuse_unwritable
from converters.redaction import printable, printable_values
from verify.checking import contradictions
from verify.protocols import Progress
from verify.report.comparison import compared, render
from verify.report.parity import Report
from verify.verdict import listed

PLACES = (PARITY, f"parity/{PARITY}")
"""The places of a report in a folder: beside a model, and where ``bit-verify`` leaves it."""


def compare(given: Sequence[str], report_folder: Path, offline: bool, output: Output) -> int:
    """Says two reports side by side; returns 0 where both passed.

    Raises UsageError for one that is missing, unreadable or contradicts itself, HubError where it cannot be fetched.
    """
    if output.as_markdown:
        raise UsageError("--markdown is for one report. Leave it out.")
    refuse_unwritable(report_folder, "--report")
    with shown("reports", output) as progress:
        one, other = (_report(each, offline, progress) for each in given)
    found = compared(one, other)
    status = 0 if found.passed else ParityError.exit_status
    write_texts({COMPARISON_PAGE: render(found, command_line("bit-verify"))}, report_folder)
    if output.as_json:
        reports = [
            {"given": printable(place), "report": json.loads(report.to_json())}
            for place, report in zip(given, found.reports, strict=True)
        ]
        head = {"schema": JSON_SCHEMA, "release": VERSION, "exit_status": status}
        say_json({**head, **found.to_json(), "reports": reports})
    else:
        from converters.cli.summary import render_comparison

        say_styled(render_comparison(found, report_folder / COMPARISON_PAGE))
    return status


def _report(given: str, offline: bool, progress: Progress) -> Report:
    """The report of a file, a folder or a repository; one without a revision is of the repository that it lies in."""
    place = report_of(given, offline, progress)
    path = place if place.is_file() else next(filter(Path.is_file, map(place.joinpath, PLACES)), None)
    if path is None:
        raise UsageError(f"{given}: no {PARITY} there. Make one: bit-verify {given} --against SOURCE")
    try:
        report = read_report(path)
    except (OSError, ParityError) as error:
        raise UsageError(str(error)) from error
    if found := contradictions(report):
        raise UsageError(f"{path}: does not hold: {listed(found)}. Audit the model again with bit-verify.")
    repository = identity(given, path.parent)
    is_named = "revision" in report.target or "revision" not in repository
    return report if is_named else replace(report, target=printable_values(repository))
