"""The check of a report that is there: it follows from its own figures, and is of these files and of this checkpoint.

parity.json, folder, source → ``check()`` → Check, or ParityError with what does not hold

Nothing is run. Without a source that proves only that the report agrees with itself and with the files beside it:
whoever edits both can make them agree. With a source, what a folder must store is derived from the checkpoint, and what
its files must say from the catalogue; a head in another order is then found whatever the digests say. Measured figures
are only held against each other: an audit measures them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path

from converters.amounts import counted
from converters.auditing.audits import refuse_own_source
from converters.auditing.target import Folder
from converters.catalogue.variants import Variant
from converters.errors import CheckpointError, ParityError
from converters.files import PROVENANCE, SIGNATURE, model_files, sha256
from converters.folder.provenance import read, unlike
from converters.folder.signature import fault, public_key
from converters.folder.stored_weights import open_weights
from converters.mapping.dtypes import DTYPES
from converters.mapping.layouts import KERNEL_FACTOR, LAYOUTS
from converters.mapping.names import GOOGLE, parameters
from converters.mapping.storage import Storage
from converters.redaction import printable
from converters.sources import GoogleView
from verify import Report, default_images
from verify.checking import changed_files, changed_tensors, contradictions
from verify.oracles.numpy import NumpyOracle
from verify.protocols import OracleError, PoolPadding
from verify.report.parity import image_report
from verify.verdict import listed
from verify.weights import Stored, digest
from verify.weights import check as check_stored

MAX_REPORT = 64 << 20
"""Bytes of a parity.json that are read; one of 459 tensors has 200 kB."""


@dataclass(frozen=True)
class Check:
    """Everything that a report was compared with, and agrees with."""

    report: Report
    files: int
    """The number of the folder's files; 0 where there was no folder."""
    tensors: int
    against_source: bool

    @property
    def what(self) -> str:
        folder = f", {counted(self.files, 'file')} and {counted(self.tensors, 'tensor')}" if self.files else ""
        return "figures and digest" + folder + (", the checkpoint" if self.against_source else "")

    @property
    def proves(self) -> str:
        """The meaning of this result for the model."""
        if self.against_source:
            of = "the folder" if self.files else "the recorded digests"
            return f"{of} against what the checkpoint gives; the figures, which an audit measures, against each other"
        beside = " and with the files beside it" if self.files else ""
        return f"only that the report agrees with itself{beside}; --against SOURCE holds it against the checkpoint"

    def to_json(self) -> dict[str, object]:
        return {
            "against_source": self.against_source,
            "files": self.files,
            "tensors": self.tensors,
            "proves": self.proves,
        }


def check(
    parity: Path,
    folder: Path | None,
    source: GoogleView | None = None,
    variant: Variant | None = None,
    pool_padding: PoolPadding | None = None,
    verify_key: Path | None = None,
) -> Check:
    """The report of a parity.json that holds, and what it was held against.

    ``folder`` is the model's (default: the report's own, where the files are); ``source`` the checkpoint, of which
    ``variant`` and ``pool_padding`` are what is known beside it.
    Raises ParityError where the report contradicts itself, the files, or the checkpoint; UsageError where the folder is
    its own source.
    """
    report = read_report(parity)
    if folder is None and any(isfile(parity.parent / name) for name in report.files):
        folder = parity.parent
    found = contradictions(report)
    if source is not None:
        if folder is not None:
            refuse_own_source(folder, source)
        found += source_departures(report, source, folder, variant, pool_padding)
    if folder is not None:
        found += _file_lines(report, folder) + _tensor_lines(report, folder) + _record_lines(report, folder, verify_key)
    if found:
        raise ParityError(f"{parity}: does not hold: {listed(found)}.")
    counts = (len(report.files), len(report.weights)) if folder is not None else (0, 0)
    return Check(report, *counts, against_source=source is not None)


def held_departures(
    report: Report, source: GoogleView, folder: Path, variant: Variant | None, pool_padding: PoolPadding | None
) -> list[str]:
    """Lists what contradicts a folder that claims, by its report, to be a converted checkpoint already."""
    found = contradictions(report) or source_departures(report, source, folder, variant, pool_padding)
    return found or _file_lines(report, folder)


def read_report(parity: Path) -> Report:
    """Raises ParityError where it is none, or was edited without its digest."""
    try:
        with parity.open("rb") as file:
            return Report.from_json(file.read(MAX_REPORT).decode())
    except (ValueError, RecursionError) as error:
        raise ParityError(f"{parity}: {error}. Audit the model again with bit-verify.") from error


def _file_lines(report: Report, folder: Path) -> list[str]:
    """Files of a folder that are not those of the report."""

    names = {printable(name): name for name in model_files(folder)}  # as a report has them

    def found(name: str) -> str | None:
        path = folder / names.get(name, name)
        return sha256(path) if Path(name).name == name and isfile(path) else None

    unknown = sorted(set(names) - set(report.files))
    return [*changed_files(report, found), *(f"{name} is not in the report" for name in unknown)]


def _record_lines(report: Report, folder: Path, verify_key: Path | None) -> list[str]:
    """Lines on the provenance and the signature, where these do not hold."""
    found, content = [], read(folder)
    is_known = any(each.place.startswith(PROVENANCE) for each in report.expectations if not each.met)
    if content is not None and not is_known:
        found += [f"{PROVENANCE} has another {place}" for place in unlike(content, report)]
    if verify_key is not None:
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        found += [f"{SIGNATURE}: {why}" for why in [fault(folder / SIGNATURE, files, public_key(verify_key))] if why]
    return found


def _tensor_lines(report: Report, folder: Path) -> list[str]:
    """Tensors of a folder whose values are not those of the report."""
    try:
        weights = open_weights(folder)
    except CheckpointError as error:
        return [str(error)]
    with closing(weights):
        names = [weight.name for weight in report.weights if weight.name in weights.shapes]
        return changed_tensors(report, {name: digest(weights.read(name)) for name in names})


def source_departures(
    report: Report, source: GoogleView, folder: Path | None, variant: Variant | None, pool_padding: PoolPadding | None
) -> list[str]:
    """Lists what does not follow from the checkpoint, in a report and in its folder."""
    if source.sha256 != report.source.get("sha256"):
        return [f"the checkpoint is another: sha256 {source.sha256}"]
    if report.layout not in LAYOUTS or report.dtype not in DTYPES or report.exact not in KERNEL_FACTOR:
        return [f"the report is of {report.layout!r}, {report.dtype!r}, {report.exact!r}, which is no kind of folder"]
    found = [*_network_departures(report, source)]
    if source.format != report.source.get("format"):
        found.append(f"the report is of a checkpoint in {report.source.get('format')!r}, this one is {source.format}")
    padding = pool_padding or source.pool_padding
    if report.pool_padding != padding:
        found.append(f"the report is of the pool padding {report.pool_padding}, the checkpoint has {padding}")
    if folder is None:
        return found + _wrong_values(report, _expected(report, source))
    try:
        target = Folder(folder, source, lambda _: (), variant=variant, pool_padding=pool_padding)
    except CheckpointError as error:
        return [*found, str(error)]
    with target:
        if target.storage != Storage.of(report):
            found.append(f"the folder is {target.layout}, {target.dtype}, {target.exact}, the report of another")
        stored = check_stored(target, source, lambda _: None)
        found += [f"{line}, which the report does not say" for line in stored.misfits if line not in report.misfits]
        if report.passed:
            found += _wrong_values(report, {a.pair.target: (a.pair.source, a.expected_sha256) for a in stored.compared})
        else:
            found += _misreported(report, stored)
        known = {str(expectation) for expectation in report.expectations if not expectation.met}
        unmet = map(str, target.inspection.unmet)
        found += [line for line in unmet if line not in known]
    return found


def _network_departures(report: Report, source: GoogleView) -> Iterator[str]:
    """Counts, layers and images of a report that are not those of the checkpoint's network."""
    count = len(source.shapes)
    if report.tensors.source != count:
        yield f"the report counts {report.tensors.source} source tensors, the checkpoint has {count}"
    if report.passed:
        try:
            oracle = NumpyOracle(source)
        except OracleError as error:
            yield f"no report on this checkpoint can have passed: {error}"
            return
        layers = [*oracle.layer_names, *(["logits"] if oracle.classes is not None else [])]
        if [layer.name for layer in report.layers] != layers:
            yield "the report's layers are not those of the checkpoint's network"
        if any(not 0 <= logit.index < (oracle.classes or 0) for logit in report.logits):
            yield f"the report plots other logits than the checkpoint's {oracle.classes}"
    usual = tuple(image_report(image) for image in default_images())
    if report.images[: len(usual)] != usual:
        yield "the report's images are not those that every audit has"


def _expected(report: Report, source: GoogleView) -> dict[str, tuple[str, str]]:
    """Parameter → its source tensor, and the sha256 of what a folder of the report's kind must store."""
    storage = Storage.of(report)
    rows = [(storage.name(row), row.names[GOOGLE], row) for row in parameters(source.architecture)]
    return {name: (google, digest(storage.values(row, source.read(google)))) for name, google, row in rows}


def _wrong_values(report: Report, expected: Mapping[str, tuple[str, str]]) -> list[str]:
    """Tensors whose recorded digest is not that of what must be stored, or is said to be and is not."""
    recorded = {weight.name: weight for weight in report.weights}
    missing = [name for name in expected if name not in recorded] if report.passed else []
    found = [f"{name} is not in the report" for name in missing]
    for name, weight in recorded.items():
        source, must = expected.get(name, ("", ""))
        if weight.source != source:
            found.append(f"{name} is not made from {weight.source}")
        elif (weight.sha256 == must) != weight.bit_exact:
            found.append(f"{name} is not recorded as what the checkpoint gives")
    return found


def _misreported(report: Report, stored: Stored) -> list[str]:
    """Tensors of which a report that did not pass says something else than what the folder holds."""
    found = {each.pair.target: (each.pair.source, each.exact) for each in stored.compared}
    recorded = {weight.name: (weight.source, weight.bit_exact) for weight in report.weights}
    return [f"{name} is not what the report says" for name in found | recorded if found.get(name) != recorded.get(name)]
