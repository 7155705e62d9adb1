"""A publication, to any hub, and the guard before it.

    folder + passed report → the files to publish → a hub (upload.py, local_folder.py) → Publication

Only what a passed report vouches for is published: each file it names, whole and unchanged, with the model card and
the report itself. Whether a hub already has this result, and which of its files are leftovers of an earlier one, is
read from the parity.json that lies there; what it says is only a claim, so a hub also compares the digests it holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from converters.digests import known_sha256
from converters.download.retry import Pace, Postponed
from converters.errors import CheckpointError, ParityError, UsageError
from converters.files import CARD, PARITY, PROVENANCE, SIGNATURE, sha256
from converters.folder import signature, snippet
from converters.folder.provenance import read, unlike
from converters.options import PublishOptions
from verify import Report

MAIN = "main"
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


def is_there(publication: Publication, options: PublishOptions) -> bool:
    """Whether the commit of a publication is still in its repository, by one request; in a folder hub, by a look.

    Where the Hub cannot be asked, offline too, it is taken to be there: nothing would be gained by downloading a model
    again.
    """
    if options.hub is not None:
        return Path(unquote(urlsplit(publication.url).path)).is_dir()
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    from converters.download.hub_client import client, guarded, patience_with

    try:
        with guarded(patience_with(Pace(patience=options.patience))):
            client(None).model_info(publication.repo_id, revision=publication.commit)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return False
    except Postponed:
        raise
    except Exception:  # whatever the Hub or the network answers instead
        return True
    return True


def refuse_repository(repo_id: str) -> None:
    """Raises UsageError for what no repository of a Hub can be called."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UsageError(
            f"{repo_id!r} is not a repository's name: NAMESPACE/NAME, of letters, digits, -_. Choose another --repo-id."
        ) from None


def verified_files(folder: Path, report: Report) -> dict[str, Path]:
    """The files to publish, by name: those of ``report.files`` with the recorded digest, the card, parity.json and,
    where they are there, provenance.json and model.sig.

    Other files of the folder are left out. Raises ParityError where the report did not pass, where parity.json is not
    this report, where provenance or signature are of other files, or where a file is missing, changed, a link, or not a
    plain name.
    """
    if not report.passed:
        raise ParityError(f"{folder}: not published: verification {report.verdict}: {report.reason}")
    if not report.files:
        raise ParityError(f"{folder}: not published: the report names no file that was verified.")
    records = [name for name in (PROVENANCE, SIGNATURE) if (folder / name).exists()]
    found = {name: _regular_file(folder, name) for name in sorted({*report.files, CARD, PARITY, *records})}
    for name, digest in report.files.items():
        if known_sha256(found[name]) != digest:
            raise _changed(folder, name)
    if found[PARITY].read_bytes() != report.to_json().encode():
        raise _changed(folder, PARITY)
    if PROVENANCE in found and unlike(read(folder), report):
        raise _changed(folder, PROVENANCE)
    if SIGNATURE in found and (why := _stale(found)):
        raise ParityError(
            f"{folder / SIGNATURE}: not published: {why}. Remove it, or sign again with --sign-key or --sign."
        )
    return found


def published_card(files: Mapping[str, Path], repo_id: str) -> bytes:
    """The card as a repository has it, whose lines load the repository; of a signed folder the card that was signed."""
    card = files[CARD].read_bytes()
    return card if SIGNATURE in files else snippet.published(card.decode("utf-8"), repo_id).encode()


def is_signed(ours: Mapping[str, Path], held: Mapping[str, Path], sign_key: Path | None) -> bool:
    """Whether what a hub holds is signed where ``ours`` is; ``held`` are the hub's files of our names.

    A signature by ``sign_key`` counts that holds for the hub's files, since no two are the same; without a key, ours,
    or where an identity made it one of the hub's files that an identity made.
    """
    if SIGNATURE not in ours:
        return True
    if SIGNATURE not in held:
        return False
    if sign_key is None:
        if sha256(ours[SIGNATURE]) == sha256(held[SIGNATURE]):
            return True
        return all(signature.by_identity(files[SIGNATURE], files) for files in (ours, held))
    return not signature.fault(held[SIGNATURE], held, signature.public_half(sign_key))


def _stale(files: Mapping[str, Path]) -> str:
    """Why the signature cannot be one of these files."""
    try:
        return signature.changed(signature.read(files[SIGNATURE]), files)
    except CheckpointError as error:
        return str(error)


def same_result(report: Report, published_parity: str | None, refresh: bool = False) -> bool:
    """Whether ``published_parity``, the text of a hub's parity.json, is of the result that ``report`` is of; with
    ``refresh``, and by the same version.

    That is a passed report on the same source, for the same --exact and --pool-padding, with files of the
    same digests. Measured figures, which differ in their last digits from machine to machine, do not count.
    """
    published = _report(published_parity)
    if published is None or (refresh and published.release != report.release):
        return False
    return published.passed and _identity(published) == _identity(report)


def our_stale_files(ours: Collection[str], published_parity: str | None, present: Collection[str]) -> tuple[str, ...]:
    """The files of an earlier result of ours that are no longer among ``ours`` (shards, an index), sorted.

    They are those that ``published_parity`` (None: the hub has no parity.json) lists and that are among ``present``,
    the hub's file names; files that it does not list are others', and stay. But for a signature: it was of what is
    replaced, and would not hold.
    """
    published = _report(published_parity)
    if published is None:
        return ()
    stale = {name for name in (*published.files, SIGNATURE) if _PLAIN_NAME.fullmatch(name)} & {*present}
    return tuple(sorted(stale - {*ours}))


def _report(published_parity: str | None) -> Report | None:
    """The report that a hub has; None where it has none, or another file of that name."""
    try:
        return None if published_parity is None else Report.from_json(published_parity)
    except ValueError:
        return None


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
