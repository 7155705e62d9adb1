"""Inspection of a folder before anything runs it: every file and every field has one of three fates.

    folder, Plan, Weights → ``inspect_folder()`` → Notes: expectations, fates, and why no library may be given it

    fates.py             what is noted, and how values of unknown origin are compared
    *.toml, tables.py    fields and files that are told by their names alone
    folder_files.py      files
    records.py           parity.json, provenance.json, model.sig
    model_fields.py      config.json as transformers reads it, or no library
    timm_fields.py       config.json as timm reads it
    label_fields.py      the names of the classes
    processor_fields.py  image processors

No library is loaded, and nothing is built from a value before it has been compared.
"""

from __future__ import annotations

from pathlib import Path

from converters.auditing.inspection.fates import Fields, Notes
from converters.auditing.inspection.folder_files import inspect_files
from converters.auditing.inspection.model_fields import inspect_model, inspect_plain
from converters.auditing.inspection.processor_fields import inspect_processors
from converters.auditing.inspection.records import Digest, inspect_records
from converters.auditing.inspection.timm_fields import inspect_timm
from converters.files import CONFIG, read_json
from converters.files import sha256 as sha256_of
from converters.folder.plan import Plan
from converters.folder.stored_weights import Weights
from converters.reading import reading

READ_BY_LIBRARIES = {"transformers": inspect_model, "timm": inspect_timm}


def inspect_folder(
    folder: Path,
    plan: Plan,
    weights: Weights,
    sha256: str = "",
    verify_key: Path | None = None,
    digest: Digest = sha256_of,
) -> Notes:
    """Everything beside the tensors, held against what a source demands. Raises CheckpointError for broken JSON.

    ``sha256`` is the source's, where it is known; ``verify_key`` a PEM file with the public key that the folder must be
    signed by; ``digest`` gives the sha256 of a file of the folder.
    """
    notes = Notes()
    with reading(folder, "what lies beside its weights"):
        _inspect_config(notes, folder, plan)
        inspect_processors(notes, folder, plan)
        inspect_files(notes, folder, weights, plan.layout)
        inspect_records(notes, folder, plan, weights, sha256, verify_key, digest)
    return notes


def _inspect_config(notes: Notes, folder: Path, plan: Plan) -> None:
    by_library = READ_BY_LIBRARIES.get(plan.layout)
    if (folder / CONFIG).is_file():
        (by_library or inspect_plain)(Fields(notes, CONFIG, read_json(folder / CONFIG)), plan)
    elif by_library is not None:
        notes.must(CONFIG, "a file, which the library reads first", "absent")
