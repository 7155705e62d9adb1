"""Inspection of a folder before anything runs it: every file and every field has one of three fates.

    folder, Plan, Weights → ``inspect_folder()`` → Inspection: expectations, fates, and why no library may be given it

    fates.py             what is noted, and how values of unknown origin are compared
    *.toml, tables.py    fields and files that are told by their names alone
    folder_files.py      files
    model_fields.py      config.json as transformers reads it
    timm_fields.py       config.json as timm reads it
    plain_fields.py      config.json that no library reads
    label_fields.py      the names of the classes
    processor_fields.py  image processors

No library is loaded, and nothing is built from a value before it has been compared.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from converters.auditing.inspection.fates import Fields, Notes, short_name, shown
from converters.auditing.inspection.folder_files import inspect_files
from converters.auditing.inspection.model_fields import inspect_model
from converters.auditing.inspection.plain_fields import inspect_plain
from converters.auditing.inspection.processor_fields import inspect_processors
from converters.auditing.inspection.timm_fields import inspect_timm
from converters.files import CONFIG, INDEX, PARITY, WEIGHTS, model_files, read_json, sha256
from converters.folder.plan import Plan
from converters.folder.stored_weights import Weights
from verify.checking import contradictions
from verify.protocols import Expectation, Inspected
from verify.report.parity import SCHEMA, Report

ALWAYS_RECORDED = (CONFIG, WEIGHTS, INDEX)
"""Files that no report leaves out."""
READ_BY_LIBRARIES = {"transformers": inspect_model, "timm": inspect_timm}


@dataclass(frozen=True)
class Inspection:
    """The fields of a folder's files, and the result for each."""

    expectations: tuple[Expectation, ...]
    inspected: tuple[Inspected, ...]
    misleading: str
    """Why no library may be given the folder, or nothing."""

    @property
    def unmet(self) -> list[Expectation]:
        return [each for each in self.expectations if not each.met]

    def wrong(self, file: str) -> bool:
        """Whether something in a file, or in a field of it, is not what it must be."""
        return any(each.place.partition(" ")[0] == file for each in self.unmet)

    @property
    def unknown(self) -> list[Inspected]:
        return [each for each in self.inspected if each.fate == "unknown"]


def inspect_folder(folder: Path, plan: Plan, weights: Weights) -> Inspection:
    """Everything beside the tensors, held against what a source demands. Raises CheckpointError for broken JSON."""
    notes = Notes()
    _inspect_config(notes, folder, plan)
    inspect_processors(notes, folder, plan)
    inspect_files(notes, folder, weights, plan.layout)
    if (folder / PARITY).is_file():
        _inspect_report(notes, folder)
    return Inspection(tuple(notes.expectations), tuple(notes.inspected), notes.misleading)


def _inspect_config(notes: Notes, folder: Path, plan: Plan) -> None:
    by_library = READ_BY_LIBRARIES.get(plan.layout)
    if (folder / CONFIG).is_file():
        (by_library or inspect_plain)(Fields(notes, CONFIG, read_json(folder / CONFIG)), plan)
    elif by_library is not None:
        notes.must(CONFIG, "a file, which the library reads first", "absent")


def _inspect_report(notes: Notes, folder: Path) -> None:
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
            notes.must(
                f"{PARITY} sha256 of {short_name(name)}", shown(sha256(folder / name)), shown(recorded.get(name))
            )


def _contradiction(content: dict[str, Any]) -> str:
    """The first thing in a report that does not follow from the rest of it."""
    try:
        found = contradictions(Report.from_json(json.dumps(content)))
    except (ValueError, RecursionError) as error:
        found = [str(error)]
    return found[0] if found else "what its verdict follows from"
