"""The files of a converted folder: their names, their digests, and JSON read with care; and the cache's folder and
records."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from secrets import token_hex
from threading import Event
from typing import Any, TypeVar

from converters.errors import UsageError
from converters.reading import reading

T = TypeVar("T")

WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
INDEX = WEIGHTS + ".index.json"
TORCH_WEIGHTS = "pytorch_model.bin"
TORCH_INDEX = TORCH_WEIGHTS + ".index.json"
PROCESSOR = "processor_config.json"
"""Whose image processor, where it has one, is read instead of PREPROCESSOR."""
CARD, PARITY = "README.md", "parity.json"
PROVENANCE, SIGNATURE = "provenance.json", "model.sig"
"""Records of a folder: where it comes from, and who signed the whole of it."""
MODEL_FILES = ("*.safetensors", INDEX, "pytorch_model*.bin", TORCH_INDEX, "*.npz", CONFIG, PREPROCESSOR, PROCESSOR)
"""The files that make a folder the model it is, in any layout: parity.json records their digests."""
PARITY_PAGE = "parity.html"
"""The report for people, which stays where it was made."""
COMPARISON_PAGE = "comparison.html"
"""Two reports side by side, for people."""
PIECE = 4 << 20
"""Bytes that are hashed at a time: few turns of the interpreter's lock, which other threads want."""
VARIABLE = "BIT_CONVERT_CACHE"
MAX_DEPTH = 64
"""Levels of a JSON file."""
MAX_JSON = 16 << 20
"""Bytes of a JSON file that are read; a config.json with 21,843 labels has 2.5 MB."""
MAX_DIGITS = 500
"""Digits of an integer in a JSON file; any float has at most 309. Longer ones take long to read."""
MAX_RECORD = 1 << 20
"""Bytes of a record of the cache that are read."""
MAX_VALUES = 1 << 18
"""Values of a JSON file, by its commas and brackets: each takes some hundred bytes. Those labels have 80,000."""


def cache_folder() -> Path:
    """The folder of downloads and of digests of files: ``$BIT_CONVERT_CACHE``, else ``~/.cache/bit-convert``.

    Raises UsageError where that is in a home that does not exist.
    """
    try:
        return Path(os.environ.get(VARIABLE) or "~/.cache/bit-convert").expanduser()
    except RuntimeError:
        raise UsageError(f"there is no home directory to keep downloads in. Set {VARIABLE} to a folder.") from None


def sha256(path: Path, stopped: Event | None = None) -> str:
    """Returns the sha256 of a file, hexadecimal. Raises InterruptedError once ``stopped``, from another thread."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if stopped is not None and stopped.is_set():
                raise InterruptedError(f"{path}: its digest is not wanted any more")
            digest.update(buffer[:count])
    return digest.hexdigest()


def is_macos_metadata(name: str) -> bool:
    """Whether a file or a member of an archive is none of its owner's: macOS puts AppleDouble files (``._model.npz``)
    and ``.DS_Store`` into folders, ``__MACOSX`` into archives."""
    *folders, last = name.rstrip("/").split("/")
    return "__MACOSX" in (*folders, last) or last.startswith("._") or last == ".DS_Store"


def fsync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on disk; some network file systems do not know how."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def model_files(folder: Path) -> list[str]:
    """The names of the folder's MODEL_FILES, sorted."""
    found = {path.name: path for pattern in MODEL_FILES for path in folder.glob(pattern)}
    return sorted(name for name, path in found.items() if path.is_file() and not is_macos_metadata(name))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where there is none."""
    with reading(path, "the JSON object"):
        refuse_special(path)
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"more than {MAX_JSON >> 20} MB")
        return parse_json(path.read_bytes())


def refuse_special(path: Path) -> None:
    """Raises ValueError for a pipe, a socket or a device: reading one may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is a pipe, a socket or a device")


def parse_json(content: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 without a byte order mark, as libraries read it, in which no key is given twice.

    Raises ValueError for anything else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key is given twice")
        return made

    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep, which no library reads") from None
    if not isinstance(value, dict):
        raise ValueError("it is something else")
    _refuse_depth(value)
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _refuse_depth(value: Any) -> None:
    """Libraries walk every level of what they read by calls of functions, and run out of these."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep, which no library reads")
        inner = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for values in inner for value in values if isinstance(value, (dict, list))]


def json_text(content: dict[str, Any]) -> str:
    """A JSON object as it is written: sorted, indented, ending in a newline."""
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON object to a new file."""
    path.write_text(json_text(content), encoding="utf-8")


def write_whole(path: Path, text: str) -> None:
    """A small file, whole or not at all, whoever writes it at the same time."""
    unfinished = path.with_name(f"{path.name}.{token_hex(4)}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_record(path: Path, kind: type[T]) -> T | None:
    """A record of the cache, a value of ``kind`` as JSON; None where there is none that this program has written."""
    from verify.typed import converted

    try:
        refuse_special(path)
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_RECORD))  # msgspec's reader takes no name that is not UTF-8
        return converted(content, kind)
    except Exception:  # a record is foreign input: whatever is wrong with it, it is none
        return None
