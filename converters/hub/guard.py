"""A publication, to any hub, and the guard before it.

    folder + passed report → the files to publish → a hub (publish.py, folder_hub.py) → Publication

Only what a passed report vouches for is published: each file it names, whole and unchanged, with the model card and
the report itself. Whether a hub already has this result, and which of its files are leftovers of an earlier one, is
read from the parity.json that lies there; what it says is only a claim, so a hub also compares the digests it holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from converters.errors import ParityError
from converters.files import CARD, PARITY, sha256
from verify import Report

LARGE_SUFFIXES = {".safetensors", ".npz", ".h5", ".bin", ".pt"}
"""Kept in the Hub's large-file storage whatever the size: some of those in a new repository's .gitattributes."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Publication:
    """The place of a published result."""

    repo_id: str
    revision: str
    """The branch, or ``refs/pr/N``."""
    commit: str
    """The commit that holds it, 40 hexadecimal digits."""
    url: str
    changed: bool
    """False where the hub already had this result and nothing was committed."""
    pull_request: int | None = None


def verified_files(folder: Path, report: Report) -> dict[str, Path]:
    """The files to publish, by name: those of ``report.files`` with the recorded digest, the card and parity.json.

    Other files of the folder are left out. Raises ParityError where the report did not pass, where parity.json is not
    this report, or where a file is missing, changed, a link, or not a plain name.
    """
    if not report.passed:
        raise ParityError(f"{folder}: not published: verification {report.verdict}: {report.reason}")
    if not report.files:
        raise ParityError(f"{folder}: not published: the report names no file that was verified.")
    found = {name: _regular_file(folder, name) for name in sorted({*report.files, CARD, PARITY})}
    for name, digest in report.files.items():
        if sha256(found[name]) != digest:
            raise _changed(folder, name)
    if found[PARITY].read_bytes() != report.to_json().encode():
        raise _changed(folder, PARITY)
    return found


def same_result(report: Report, published_parity: str) -> bool:
    """Whether ``published_parity``, the text of a hub's parity.json, is of the result that ``report`` is of.

    That is a passed report on the same source, for the same --exact and --pool-padding, with files of the
    same digests. Measured figures, which differ in their last digits from machine to machine, do not count.
    """
    try:
        published = Report.from_json(published_parity)
    except ValueError:
        return False
    return published.passed and _identity(published) == _identity(report)


def our_stale_files(report: Report, published_parity: str | None, present: Collection[str]) -> tuple[str, ...]:
    """The files of an earlier result of ours that this one no longer has (shards, an index), sorted.

    They are those that ``published_parity`` (None: the hub has no parity.json) lists and that are among ``present``,
    the hub's file names; files that it does not list are others', and stay.
    """
    if published_parity is None:
        return ()
    try:
        published = Report.from_json(published_parity)
    except ValueError:
        return ()
    stale = {name for name in published.files if _PLAIN_NAME.fullmatch(name)} & {*present}
    return tuple(sorted(stale - {*report.files, CARD, PARITY}))


def _identity(report: Report) -> tuple[str | None, str, str, dict[str, str]]:
    return report.source.get("sha256"), report.exact, report.pool_padding, dict(report.files)


def _regular_file(folder: Path, name: str) -> Path:
    path = folder / name
    if not _PLAIN_NAME.fullmatch(name):
        raise ParityError(f"{folder}: not published: {name!r} is not a plain file name.")
    if path.is_symlink():
        raise ParityError(f"{path}: not published: it is a link. Convert again to get the file itself.")
    if not path.is_file():
        raise ParityError(f"{path}: not published: it is missing. Convert again.")
    return path


def _changed(folder: Path, name: str) -> ParityError:
    return ParityError(
        f"{folder / name}: not published: it is not the file that was verified. Convert again to restore it."
    )
