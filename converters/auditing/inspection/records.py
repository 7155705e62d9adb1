"""The records that a folder holds about itself: its report, its provenance, its signature.

folder, Plan, the source's sha256, a public key → ``inspect_records()`` → Notes
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import version
from os.path import exists
from pathlib import Path
from typing import Any

from converters.auditing.inspection.fates import Notes, short_name, shown
from converters.errors import CheckpointError
from converters.files import (
    CONFIG,
    INDEX,
    MODEL_FILES,
    PARITY,
    PREPROCESSOR,
    PROVENANCE,
    SIGNATURE,
    WEIGHTS,
    model_files,
    read_json,
)
from converters.folder import provenance, signature
from converters.folder.plan import Plan
from converters.folder.stored_weights import Weights
from converters.redaction import one_line
from verify.checking import contradictions
from verify.report.parity import SCHEMA, Report

ALWAYS_RECORDED = (CONFIG, WEIGHTS, INDEX)
"""Files that no report leaves out."""
HOLDS = "a signature that holds"
SHOWN = 16
"""Digits of a key's sha256."""

SHA256 = re.compile("[0-9a-f]{64}")

Digest = Callable[[Path], str]


def inspect_records(
    notes: Notes, folder: Path, plan: Plan, weights: Weights, sha256: str, verify_key: Path | None, digest: Digest
) -> None:
    """``sha256`` is the source's, or empty where it is not known; ``verify_key`` a file that holds a public key;
    ``digest`` gives the sha256 of a file of the folder.

    Raises CheckpointError for broken JSON, UsageError for a key that is none.
    """
    digest = cache(digest)
    if (folder / PARITY).is_file():
        _inspect_report(notes, folder, digest)
    if (folder / PROVENANCE).is_file():
        _inspect_provenance(notes, folder, plan, weights, sha256, digest)
    if (folder / SIGNATURE).is_file() or verify_key is not None:
        _inspect_signature(notes, folder, weights, verify_key, digest)


def _inspect_report(notes: Notes, folder: Path, digest: Digest) -> None:
    """Whether the report in the folder follows from its own figures, and is of the files in the folder."""
    content = read_json(folder / PARITY)
    # Another version may judge otherwise.
    if (content.get("schema"), content.get("release")) == (SCHEMA, version("bit-convert")):
        notes.must(f"{PARITY} figures", "what its verdict follows from", _contradiction(content))
    recorded = content.get("files")
    if not isinstance(recorded, dict):
        notes.unknown(PARITY, "no report of bit-convert")
        return
    for name in model_files(folder):
        if name in recorded or name in ALWAYS_RECORDED:
            place = f"{PARITY} sha256 of {short_name(name)}"
            notes.must(place, shown(digest(folder / name)), shown(recorded.get(name)))


def _contradiction(content: dict[str, Any]) -> str:
    """The first thing in a report that does not follow from the rest of it."""
    try:
        found = contradictions(Report.from_json(json.dumps(content)))
    except (ValueError, RecursionError) as error:
        found = [str(error)]
    return found[0] if found else "what its verdict follows from"


def _inspect_provenance(notes: Notes, folder: Path, plan: Plan, weights: Weights, sha256: str, digest: Digest) -> None:
    """Whether the provenance is of these files, of this source, and of the options that the folder shows."""
    content = provenance.read(folder)
    if content is None:
        notes.unknown(PROVENANCE, "no provenance of bit-convert")
        return
    said = provenance.Provenance.said(content)
    recorded = _to_record(folder, weights, said.files)
    pickles = [name for name in recorded if name.endswith(".bin") and name not in said.files]
    for name in pickles:  # which bit-convert never writes: its tensors are compared, as in any other folder
        notes.unknown(f"{PROVENANCE} {short_name(name)}", "not a file of the conversion")
    there = {name: digest(folder / name) for name in recorded if name not in pickles}
    gone = {name: sha for name, sha in said.files.items() if name not in there and not exists(folder / name)}
    files = gone | there  # whether a file may be missing, the loader decides
    origin = _origin(folder, said.sha256, sha256)
    found = provenance.differences(content, files, origin, provenance.options_of(plan.storage, plan.pool_padding))
    for place, wanted, value in found:
        if notes.may_note():
            notes.must(f"{PROVENANCE} {short_name(place)}", shown(wanted), shown(value))
    if not found:
        what = "what follows from files, source and options"
        notes.must(PROVENANCE, what, what, "each subject's sha256, the source's, and the options that the folder shows")
    where = short_name(said.uri or said.name)
    if sha256 and said.sha256 == origin != sha256:
        notes.harmless(f"{PROVENANCE} origin", f"another file than the source, with tensors to be compared: {where}")
    else:
        notes.harmless(f"{PROVENANCE} origin", f"the converter's word: the source was {where}; its sha256 is compared")


def _origin(folder: Path, said: str, sha256: str) -> str:
    """The sha256 that the provenance must give for its source.

    It need not be that of the source at hand, whose tensors may lie in files of several formats; but then it is that of
    the report beside it.
    """
    if said == sha256 or not SHA256.fullmatch(said):
        return sha256 or said
    report = read_json(folder / PARITY) if (folder / PARITY).is_file() else {}
    source = report.get("source")
    recorded = source.get("sha256") if isinstance(source, dict) else None
    return recorded if isinstance(recorded, str) else said


def _to_record(folder: Path, weights: Weights, said: Collection[str] = ()) -> list[str]:
    """The files that a record must name, and those others that it does name, as far as they are there."""
    must = {*weights.file_names, CONFIG, PREPROCESSOR}
    return [name for name in model_files(folder) if name in must or name in said]


def _inspect_signature(notes: Notes, folder: Path, weights: Weights, verify_key: Path | None, digest: Digest) -> None:
    """Whether the signature holds, or without a key, whether it could."""
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    try:
        signed = signature.read(folder / SIGNATURE)
    except CheckpointError as error:
        if verify_key is None:
            notes.unknown(SIGNATURE, "no signature that model-signing made")
        else:
            notes.must(SIGNATURE, HOLDS, one_line(error) if SIGNATURE in files else "absent")
        return
    unsigned = [f"{short_name(name)} is not signed" for name in _to_record(folder, weights) if name not in signed.files]
    if verify_key is None:
        _compare_signed(notes, signed, files, unsigned, digest)
        return
    public = signature.public_key(verify_key)
    why = signature.fault(folder / SIGNATURE, files, public) or next(iter(unsigned), HOLDS)
    key = hashlib.sha256(public).hexdigest()[:SHOWN]
    notes.must(SIGNATURE, HOLDS, why, f"holds: {len(signed.files)} files are signed with the key sha256 {key}…")


def _compare_signed(
    notes: Notes, signed: signature.Signature, files: Mapping[str, Path], unsigned: list[str], digest: Digest
) -> None:
    """Digests of the model's files must be the signed ones, whoever signed; a card edited since is no fault."""
    model = [name for name in signed.files if name in files and any(fnmatch(name, each) for each in MODEL_FILES)]
    for name in model:
        place = f"{SIGNATURE} sha256 of {short_name(name)}"
        notes.must(place, shown(digest(files[name])), shown(signed.files[name]))
    others = {name: value for name, value in signed.files.items() if name not in model}
    why = signature.changed(signature.Signature(others, signed.key), files) or next(iter(unsigned), "")
    if why:
        notes.unknown(SIGNATURE, f"it does not hold: {why}")
    elif signed.is_keyless:
        notes.harmless(SIGNATURE, "not verified: made with an identity; verify it with: model_signing verify sigstore")
    else:
        key = short_name(signed.key)[:SHOWN]
        notes.harmless(SIGNATURE, f"not verified: give --verify-key the public key, sha256 {key}…")
