"""The check of a published report: it follows from its own figures, and from the files it speaks of.

parity.json, folder → ``check()`` → Report, or ParityError with what does not hold
"""

from __future__ import annotations

from pathlib import Path

from converters.errors import CheckpointError, ParityError
from converters.files import sha256
from converters.weights import open_weights
from verify import Report
from verify.checking import contradictions, departures
from verify.stored import digest

MAX_REPORT = 64 << 20
"""Bytes of a parity.json that are read; one of 459 tensors has 200 kB."""


def check(parity: Path, folder: Path | None, source_sha256: str | None = None) -> tuple[Report, str]:
    """The report of a parity.json that holds, and what was checked; nothing is run.

    ``folder`` is the model's (default: the report's own, where the files are); ``source_sha256`` the checkpoint's.
    Raises ParityError where the report contradicts itself, the files, or the checkpoint.
    """
    try:
        with parity.open("rb") as file:
            report = Report.from_json(file.read(MAX_REPORT).decode())
    except (ValueError, RecursionError) as error:
        raise ParityError(f"{parity}: {error}. Audit the model anew with bit-verify.") from error
    found, checked = contradictions(report), "figures and digest"
    if folder is None and any((parity.parent / name).is_file() for name in report.files):
        folder = parity.parent
    if folder is not None:
        found += _file_departures(report, folder)
        checked += f", {len(report.files)} files and {len(report.weights)} tensors"
    if source_sha256 is not None:
        checked += ", the checkpoint"
        if source_sha256 != report.source.get("sha256"):
            found.append(f"the checkpoint is another: sha256 {source_sha256}")
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ParityError(f"{parity}: does not hold: {'; '.join(found[:3])}{more}.")
    return report, checked


def _file_departures(report: Report, folder: Path) -> list[str]:
    def found(name: str) -> str | None:
        path = folder / name
        return sha256(path) if Path(name).name == name and path.is_file() else None

    try:
        weights = open_weights(folder)
    except CheckpointError as error:
        return [str(error)]
    try:
        names = [weight.name for weight in report.weights if weight.name in weights.shapes]
        tensors = {name: digest(weights.read(name)) for name in names}
    finally:
        weights.close()
    return departures(report, found, tensors)
