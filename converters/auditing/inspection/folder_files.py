"""The files of a folder: which are read, which no loader reads, which a loader would read instead.

folder, its weights → ``inspect_files()`` → Notes
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import numpy as np

from converters.auditing.inspection.fates import MAX_LISTED, Fields, NoEffect, Notes, short_name, shown
from converters.auditing.inspection.tables import table
from converters.errors import CheckpointError
from converters.files import (
    CONFIG,
    INDEX,
    PARITY,
    PREPROCESSOR,
    PROCESSOR,
    PROVENANCE,
    SIGNATURE,
    TORCH_INDEX,
    TORCH_WEIGHTS,
    WEIGHTS,
    is_macos_metadata,
    read_json,
)
from converters.folder.stored_weights import Weights, open_file, open_index
from converters.mapping.dtypes import round_to, widened
from converters.redaction import one_line
from converters.sources.safetensors import LENGTH, metadata_of
from converters.sources.shards import shards_of

MAX_FILES = 10_000
"""Files that are looked at; of more, their number is noted."""

READ = {CONFIG, PREPROCESSOR, PROCESSOR, PARITY, PROVENANCE, SIGNATURE}
"""Files whose fields are noted one by one."""

ADAPTERS = ("adapter_config.json", "adapter_model.*")
"""transformers integrations/peft.py maybe_load_adapters: loaded on top of the weights where peft is installed."""
DISTRIBUTED = ("shard-?????-model-?????-of-?????.safetensors", ".metadata", "*.distcp")
"""transformers distributed/checkpoint.py is_sharded_checkpoint: read instead of the weights."""
_TABLE = table("folder_files")
CODE, WEIGHT_ENDINGS = ([f"*.{ending}" for ending in _TABLE[kind].split()] for kind in ("code", "weights"))
FOR_PEOPLE = _TABLE["people"].split()
NO_EFFECT, FOLDERS = (
    {name: row["reason"] for row in _TABLE["no_effect"] for name in row.get(kind, "").split()}
    for kind in ("files", "folders")
)
_PEOPLE = "for people: no loader opens it"
_MACOS = FOLDERS["__MACOSX"]

MAGIC: Mapping[bytes, str] = {
    **dict.fromkeys((b"#!", b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm"), "code"),
    **dict.fromkeys(
        (
            *(bytes((0x80, protocol)) for protocol in range(2, 6)),  # a pickle
            *(b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd"),  # archives
            *(b"\x89HDF", b"\x93NUMPY", b"GGUF"),
        ),
        "weights",
    ),
}
"""The first bytes of files of code, and of files that may hold weights, under any name."""
TAR = (257, b"ustar")
"""The place of the mark of a tar archive."""

INDEX_FIELDS = dict.fromkeys(
    ("total_size", "total_parameters"),
    NoEffect("transformers utils/hub.py get_checkpoint_shard_files passes it on unread"),
)


def inspect_files(notes: Notes, folder: Path, weights: Weights, layout: str) -> None:
    """Notes every file of the folder. Raises CheckpointError where what is read is broken."""
    for name in weights.file_names:
        notes.must(name, "the weights", "the weights", "these are read: each tensor is compared, bit for bit")
    _inspect_choice(notes, folder, weights, layout)
    _inspect_metadata(notes, folder, weights, layout)
    for name in sorted(READ):
        if _is_odd(folder / name):
            notes.must(name, "a file", "a folder, a pipe, a device or a broken link")
    others = [name for name in _names(folder, notes) if name not in weights.file_names]
    told = _inspect_indexes(notes, folder, weights, others)
    for name in others:
        if name not in told and name not in READ:
            _inspect_file(notes, folder, name, weights)


def _names(folder: Path, notes: Notes) -> list[str]:
    """Paths of files relative to the folder, but for those in folders that no loader opens."""
    found = list(islice(_walk(folder, folder, notes), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        notes.unknown("…", f"more than {MAX_FILES} files")
    return sorted(found[:MAX_FILES])


def _walk(root: Path, folder: Path, notes: Notes) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        if not path.is_dir():
            yield name
        elif (reason := _row(FOLDERS, path.name)) is not None:
            notes.harmless(short_name(name) + "/", reason)
        elif path.is_symlink() or len(path.relative_to(root).parts) > 8:
            notes.unknown(short_name(name) + "/", "not followed")
        else:
            yield from _walk(root, path, notes)


def _row(table: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in table.items() if fnmatchcase(name, pattern)), None)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _inspect_choice(notes: Notes, folder: Path, weights: Weights, layout: str) -> None:
    """timm reads one file, whatever an index says: models/_hub.py load_state_dict_from_path."""
    if layout == "timm":
        found = weights.file_names[0] if len(weights.file_names) == 1 else f"{len(weights.file_names)} shards"
        wanted = found if found in (WEIGHTS, TORCH_WEIGHTS) else WEIGHTS
        notes.must("the file that timm reads", wanted, found)


def _inspect_metadata(notes: Notes, folder: Path, weights: Weights, layout: str) -> None:
    """transformers 4 modeling_utils.py from_pretrained loads weights of TensorFlow or Flax through these."""
    for name in weights.file_names if layout == "transformers" else ():
        kind = metadata_of(folder / name).get("format", "pt") if name.endswith(".safetensors") else "pt"
        if kind.lower() in ("tf", "flax"):
            notes.must(f"{name} metadata.format", shown("pt"), shown(kind))


def _is_odd(path: Path) -> bool:
    """Whether something other than a file has the name of one."""
    return (path.exists() or path.is_symlink()) and not path.is_file()


def _inspect_indexes(notes: Notes, folder: Path, weights: Weights, others: list[str]) -> set[str]:
    """The index that is read, field by field; and one beside the weights, with its shards. Returns what was noted."""
    told: set[str] = set()
    for name in (INDEX, TORCH_INDEX):
        if name in weights.file_names:
            _inspect_index(notes, folder / name, weights.dtype)
        elif name in others:
            told |= _inspect_second_index(notes, folder / name, weights)
    return told


def _inspect_index(notes: Notes, index: Path, dtype: str) -> None:
    fields = Fields(notes, index.name, read_json(index))
    fields.take("weight_map")
    notes.must(fields.place("weight_map"), "where the tensors are", "where the tensors are")
    metadata = fields.take("metadata")
    if notes.fulfil(fields.place("metadata"), "an object", metadata, isinstance(metadata, dict)):
        inner = Fields(notes, index.name, metadata, "metadata.")
        inner.one_of("dtype", [dtype, "float32"])  # modeling_utils.py _get_dtype, where config.json has none
        inner.rest(INDEX_FIELDS)
    fields.rest({})


def _inspect_second_index(notes: Notes, index: Path, weights: Weights) -> set[str]:
    try:
        shards = {index.name, *shards_of(index).values()}
        with closing(open_index(index)) as second:
            difference = _difference(weights, second)
    except CheckpointError as error:
        shards, difference = {index.name}, one_line(error)
    for name in sorted(shards - set(weights.file_names)):
        _note_second(notes, name, weights, difference)
    return shards


def _inspect_file(notes: Notes, folder: Path, name: str, weights: Weights) -> None:
    base, place = name.rpartition("/")[2], short_name(name)
    if "/" not in name and _matches(base, ADAPTERS):
        notes.must(place, "absent", "an adapter, loaded on top of the weights")
        notes.mislead(f"{place} is an adapter, which its loader adds")
    elif "/" not in name and _matches(base, DISTRIBUTED):
        notes.must(place, "absent", "a distributed checkpoint, read instead of the weights")
        notes.mislead(f"{place} is read instead of the weights")
    elif is_macos_metadata(name):
        notes.harmless(place, _MACOS)
    elif (reason := _row(NO_EFFECT, base)) is not None:
        notes.harmless(place, reason)
    elif _matches(base, CODE):
        notes.must(place, "absent", "code")
        notes.mislead(f"{place} is code")
    elif _matches(base, WEIGHT_ENDINGS):
        _inspect_second(notes, folder, name, weights)
    elif _matches(base, FOR_PEOPLE):
        notes.harmless(place, _PEOPLE)
    else:
        _inspect_unlisted(notes, folder / name, place)


def _inspect_unlisted(notes: Notes, path: Path, place: str) -> None:
    """A file whose name says nothing: code and weights are told by how they begin."""
    content = _content(path)
    if content == "code":
        notes.must(place, "absent", "code")
        notes.mislead(f"{place} is code")
    elif content == "weights":
        notes.must(place, "absent, or the same weights", "weights, or an archive, that nothing was compared with")
    elif sum(each.fate == "unknown" for each in notes.inspected) < MAX_LISTED:
        notes.unknown(place, "nobody knows who opens it")


def _content(path: Path) -> str:
    """ "code" or "weights", where a file begins as one does; otherwise nothing."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(TAR[0] + len(TAR[1]))
    if head[TAR[0] :] == TAR[1]:
        return "weights"  # an archive
    if head[LENGTH.size : LENGTH.size + 1] == b"{" and LENGTH.unpack(head[: LENGTH.size])[0] < path.stat().st_size:
        return "weights"  # safetensors
    return next((what for begin, what in MAGIC.items() if head.startswith(begin)), "")


def _inspect_second(notes: Notes, folder: Path, name: str, weights: Weights) -> None:
    """Weights beside those that are read: another loader may prefer them, so they must hold the same values."""
    if not _matches(name, ("*.safetensors", "*.bin")):
        notes.must(short_name(name), "absent, or the same weights", "weights in a format that is not compared")
        return
    try:
        with closing(open_file(folder / name)) as second:
            difference = _difference(weights, second)
    except CheckpointError as error:
        difference = one_line(error)
    _note_second(notes, name, weights, difference)


def _note_second(notes: Notes, name: str, weights: Weights, difference: str) -> None:
    if difference:
        notes.must(short_name(name), f"the same weights as {weights.file_names[0]}", difference)
    else:
        notes.harmless(
            short_name(name), f"it holds the values of {weights.file_names[0]}, which is the one that is read"
        )


def _difference(weights: Weights, second: Weights) -> str:
    """Returns how other weights differ: in names, shapes or values, rounded where they are stored in less."""
    if weights.shapes != second.shapes:
        return "other tensors"
    for name in weights.shapes:
        mine, other = weights.read(name), second.read(name)
        if weights.dtype != second.dtype:
            mine = round_to(widened(mine, weights.dtype), second.dtype)
        if mine.dtype != other.dtype or not np.array_equal(mine.view(np.uint8), other.view(np.uint8)):
            return f"other values in {shown(name)}"
    return ""
