"""Writes safetensors files as a stream: the header first, then one tensor after another.

    names, shapes, dtype → header; tensors in that order, each put into its room → FileSink → sha256 of the file

The format is that of https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header padded
with spaces to a multiple of eight, the tensors' bytes end to end.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
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


class TensorRoom:
    """A tensor's place in the file: the next entries along its first axis, to be filled before more are taken."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], file: FileSink) -> None:
        self._name, self._shape, self._dtype, self._file = name, shape, dtype, file
        self._entry = math.prod(shape[1:]) * dtype.itemsize
        self._taken = 0

    @property
    def most(self) -> int:
        """Entries that can be taken at a time."""
        return max(1, self._file.capacity // max(1, self._entry))

    def take(self, count: int) -> Array:
        """Raises ValueError beyond the tensor's end, and OSError as the file system does."""
        self._taken += count
        if self._taken > self._shape[0]:
            raise self.misfit()
        memory = self._file.room(count * self._entry)
        return np.frombuffer(memory, self._dtype).reshape(count, *self._shape[1:])

    @property
    def is_full(self) -> bool:
        return self._taken == self._shape[0]

    def misfit(self) -> ValueError:
        return ValueError(f"{self._name}: {self._taken} entries for the {self._shape[0]} of its first axis")


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    fill: Callable[[str, TensorRoom], None],
    dtype: str = "float32",
    hashed: bool = True,
) -> str:
    """Writes a new file; ``fill`` is called with each name, in the order of ``shapes``, and puts its values there.

    Returns the file's sha256, hexadecimal, if ``hashed``. Values of bfloat16 are their uint16 bits. Raises ValueError
    where a tensor's room is not taken exactly, and OSError as the file system does.
    """
    header, wanted = _header(shapes, dtype), DTYPES[dtype].storage
    size = len(header) + sum(math.prod(shape) for shape in shapes.values()) * wanted.itemsize
    digest = hashlib.sha256()
    with FileSink(path, size, digest.update if hashed else None) as file:
        file.write(header)
        for name, shape in shapes.items():
            room = TensorRoom(name, shape, wanted, file)
            fill(name, room)
            if not room.is_full:
                raise room.misfit()
        file.close()
    return digest.hexdigest() if hashed else ""


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * DTYPES[dtype].storage.itemsize
        entries[name] = {"dtype": DTYPES[dtype].code, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    return struct.pack("<Q", len(header)) + header
