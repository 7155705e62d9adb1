"""Writes safetensors files as a stream: the header first, then one tensor after another.

    names, shapes, dtype → header; the pieces of each tensor, as they are asked for → WriteBuffer → sha256 of the file

The format is that of https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header padded
with spaces to a multiple of eight, the tensors' bytes end to end.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.mapping.dtypes import DTYPES
from converters.mapping.storage import Piece
from converters.writers.disk import WriteBuffer

METADATA = {"format": "pt"}
"""transformers refuses a file that does not say which framework it is for."""
ALIGNMENT = 8


@dataclass(frozen=True)
class TensorToWrite:
    """A tensor of the file: its values are asked for when their place in the file has come."""

    name: str
    shape: tuple[int, ...]
    pieces: Callable[[int], Iterator[Piece]]
    """At most so many rows at a time → the values, in order."""


def write_safetensors(
    path: Path,
    tensors: Sequence[TensorToWrite],
    dtype: str = "float32",
    step: Callable[[str], None] = lambda name: None,
) -> str:
    """Writes a new file, tensor by tensor; ``step`` is called with the name of each.

    Returns the file's sha256, hexadecimal. Values of bfloat16 are their uint16 bits. Raises ValueError
    where a tensor's pieces are not its rows, and OSError as the file system does.
    """
    header, storage = _header(tensors, dtype), DTYPES[dtype].storage
    size = len(header) + sum(math.prod(tensor.shape) for tensor in tensors) * storage.itemsize
    digest = hashlib.sha256()
    with WriteBuffer(path, size, digest.update) as file:
        file.write(header)
        for tensor in tensors:
            step(tensor.name)
            _write(tensor, storage, file)
        file.close()
    return digest.hexdigest()


def _write(tensor: TensorToWrite, dtype: np.dtype[Any], file: WriteBuffer) -> None:
    row = math.prod(tensor.shape[1:]) * dtype.itemsize
    written = 0
    for piece in tensor.pieces(max(1, file.capacity // max(1, row))):
        if piece.rows.start == written:
            count, written = piece.rows.stop - written, piece.rows.stop
            out = np.frombuffer(file.reserve(count * row), dtype).reshape(count, *tensor.shape[1:])
        piece.put(out)
    if written != tensor.shape[0]:
        raise ValueError(f"{tensor.name}: {written} rows for the {tensor.shape[0]} of its first axis")


def _header(tensors: Sequence[TensorToWrite], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for tensor in tensors:
        start, end = end, end + math.prod(tensor.shape) * DTYPES[dtype].storage.itemsize
        entries[tensor.name] = {
            "dtype": DTYPES[dtype].code,
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    return struct.pack("<Q", len(header)) + header
