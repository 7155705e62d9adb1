"""The stored tensors of a folder: one model.safetensors, shards beside an index, or one npz.

folder → ``open_weights()`` → names and shapes at once, values as they are stored, one tensor at a time
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mode
from typing import Any, Protocol

import numpy.typing as npt

from converters.dtypes import DTYPES
from converters.errors import CheckpointError
from converters.files import INDEX, WEIGHTS
from converters.sources.npz import NpzSource
from converters.sources.safetensors import tensors_of
from converters.sources.shards import compare_shards, shards_of

Array = npt.NDArray[Any]


class Weights(Protocol):
    """What a folder stores."""

    is_npz: bool
    dtype: str
    """Of all tensors; the commonest, where they differ."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Array:
        """The stored values; of bfloat16, which NumPy lacks, the uint16 bits."""
        ...

    def close(self) -> None: ...


def open_weights(folder: Path) -> Weights:
    """Raises CheckpointError, naming the file, where one cannot be read or the index does not fit the shards."""
    if (folder / WEIGHTS).exists() or (folder / INDEX).is_file():
        return _Safetensors(folder)
    found = sorted(folder.glob("*.npz"))
    if len(found) != 1:
        raise CheckpointError(f"{folder}: holds no {WEIGHTS}, {INDEX} or single .npz. Give a converted model folder.")
    return _Npz(found[0])


class _Npz(NpzSource):
    is_npz = True
    dtype = "float32"


class _Safetensors:
    is_npz = False

    def __init__(self, folder: Path) -> None:
        files, homes = [WEIGHTS], None
        if not (folder / WEIGHTS).exists():
            homes = _shards(folder / INDEX)
            files = sorted(set(homes.values()))
        held = {file: tensors_of(folder / file) for file in files}
        if homes is not None:
            compare_shards(homes, {name: file for file, tensors in held.items() for name in tensors}, folder / INDEX)
        self._tensors = {name: tensor for tensors in held.values() for name, tensor in tensors.items()}
        codes = [tensor.dtype for tensor in self._tensors.values()]
        known = {dtype.code: dtype.name for dtype in DTYPES.values()}
        odd_codes = sorted({code for code in codes if code not in known})
        if odd_codes:
            raise CheckpointError(f"{folder}: stores {odd_codes[0]}, not one of {', '.join(known)}. Convert it anew.")
        self.dtype = known[mode(codes)] if codes else "float32"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Array:
        return self._tensors[name].stored(name)

    def close(self) -> None:
        """Nothing is held open."""


def _shards(index: Path) -> dict[str, str]:
    homes = shards_of(index)
    for file in homes.values():
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{index}: names the shard {file!r}, which is no safetensors. Get the folder anew.")
    return homes
