"""Writes safetensors files as a stream: the header first, then one block of a tensor after another.

    names, shapes, dtype → header; blocks of the tensors in that order → FileSink → sha256 of the file

The format is that of https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header padded
with spaces to a multiple of eight, the tensors' bytes end to end.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.dtypes import DTYPES
from converters.sink import FileSink

Array = npt.NDArray[Any]

METADATA = {"format": "pt"}
"""transformers refuses a file that does not say which framework it is for."""
ALIGNMENT = 8


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterable[Array | Iterator[Array]],
    dtype: str = "float32",
    hashed: bool = True,
) -> str:
    """Writes ``tensors``, in the order of ``shapes``, to a new file; returns its sha256, hexadecimal, if ``hashed``.

    A tensor is an array, or comes in blocks along its first axis. Values of bfloat16 come as their uint16 bits. Raises
    ValueError where a tensor is not of its shape and dtype, and OSError as the file system does.
    """
    header, wanted = _header(shapes, dtype), DTYPES[dtype].storage
    size = len(header) + sum(math.prod(shape) for shape in shapes.values()) * wanted.itemsize
    digest = hashlib.sha256()
    with FileSink(path, size, digest.update if hashed else None) as file:
        file.write(header)
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            for block in _blocks(name, tensor, shape, wanted):
                file.write(block.reshape(-1).view(np.uint8).data)
        file.close()
    return digest.hexdigest() if hashed else ""


def _blocks(
    name: str, tensor: Array | Iterator[Array], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[Array]:
    """C-contiguous blocks. Raises ValueError where they do not make up a tensor of this shape and dtype."""
    rows = 0
    got: tuple[tuple[int, ...], np.dtype[Any]] = ((0,), dtype)
    for block in [tensor] if isinstance(tensor, np.ndarray) else tensor:
        rows += block.shape[0] if block.shape else 0
        got = ((rows, *block.shape[1:]) if block.shape else (), block.dtype)
        if (got[0][1:], got[1]) != (shape[1:], dtype):
            break
        yield np.ascontiguousarray(block)
    if got != (shape, dtype):
        raise ValueError(f"{name} is {got[0]} {got[1]}, not {shape} {dtype}")


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * DTYPES[dtype].storage.itemsize
        entries[name] = {"dtype": DTYPES[dtype].code, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    return struct.pack("<Q", len(header)) + header
