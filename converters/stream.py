"""Writes safetensors files as a stream: the header first, then one tensor after another, never two in memory.

    names, shapes, dtype → header; tensors in that order → file, fsync → sha256 of what was written

The format is that of https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header padded
with spaces to a multiple of eight, the tensors' bytes end to end.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.dtypes import DTYPES

Array = npt.NDArray[Any]

METADATA = {"format": "pt"}
"""transformers refuses a file that does not say which framework it is for."""
ALIGNMENT = 8


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[Array], dtype: str = "float32"
) -> str:
    """Writes ``tensors``, in the order of ``shapes``, to a new file; returns its sha256, hexadecimal.

    Tensors of bfloat16 come as their uint16 bits. Raises ValueError where a tensor is not of its shape and dtype, and
    OSError as the file system does.
    """
    digest = hashlib.sha256()
    wanted = DTYPES[dtype].storage
    with path.open("xb") as file:

        def write(data: bytes | memoryview) -> None:
            file.write(data)
            digest.update(data)

        write(_header(shapes, dtype))
        for (name, shape), tensor in zip(shapes.items(), tensors, strict=True):
            if tensor.shape != shape or tensor.dtype != wanted:
                raise ValueError(f"{name} is {tensor.shape} {tensor.dtype}, not {shape} {wanted}")
            write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * DTYPES[dtype].storage.itemsize
        entries[name] = {"dtype": DTYPES[dtype].code, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    return struct.pack("<Q", len(header)) + header
