"""The files of a converted folder: their names, their digests, and JSON read with care."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError

WEIGHTS, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
CARD, PARITY = "README.md", "parity.json"
VERIFIED = (WEIGHTS, CONFIG, PREPROCESSOR)
"""What makes a folder the model it is: parity.json records the digests of these files."""
MAX_JSON = 16 << 20
"""Bytes of a JSON file that are read; a config.json with 21,843 labels has 2.5 MB."""


def sha256(path: Path) -> str:
    """Of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises CheckpointError where there is none."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_JSON))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}. Give a converted model folder.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}. Convert the model anew.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a JSON object. Convert the model anew.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON object to a new file: sorted, indented, ending in a newline."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
