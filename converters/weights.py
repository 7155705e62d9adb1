"""The stored tensors of a folder: one model.safetensors, shards beside an index, or one npz.

folder → ``open_weights()`` → names and shapes at once, values as they are stored, one tensor at a time
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from converters.dtypes import DTYPES
from converters.errors import CheckpointError
from converters.files import INDEX, WEIGHTS
from converters.sources.npz import NpzSource
from converters.sources.shards import compare_shards, shards_of

Array = npt.NDArray[Any]


class Weights(Protocol):
    """What a folder stores."""

    is_npz: bool
    dtype: str
    """Of all tensors; the first's, where they differ."""

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
        self._paths = {file: folder / file for file in files}
        self._open = {file: _open(path) for file, path in self._paths.items()}
        self._homes = {name: file for file, opened in self._open.items() for name in opened.keys()}  # noqa: SIM118
        if homes is not None:
            compare_shards(homes, self._homes, folder / INDEX)
        codes = [self._slice(name).get_dtype() for name in self._homes]
        known = {dtype.code: dtype.name for dtype in DTYPES.values()}
        odd_codes = sorted({code for code in codes if code not in known})
        if odd_codes:
            raise CheckpointError(f"{folder}: stores {odd_codes[0]}, not one of {', '.join(known)}. Convert it anew.")
        self.dtype = known[codes[0]] if codes else "float32"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(self._slice(name).get_shape()) for name in self._homes}

    def read(self, name: str) -> Array:
        file = self._open[self._homes[name]]
        if self._slice(name).get_dtype() != DTYPES["bfloat16"].code:
            values: Array = file.get_tensor(name)
            return values
        import torch

        with _open_as(self._paths[self._homes[name]], "pt") as again:
            bits: Array = again.get_tensor(name).contiguous().view(torch.int16).numpy().view(np.uint16)
        return bits

    def close(self) -> None:
        self._open.clear()

    def _slice(self, name: str) -> Any:
        return self._open[self._homes[name]].get_slice(name)


def _shards(index: Path) -> dict[str, str]:
    homes = shards_of(index)
    for file in homes.values():
        if not file.endswith(".safetensors"):
            raise CheckpointError(f"{index}: names the shard {file!r}, which is no safetensors. Get the folder anew.")
    return homes


def _open(path: Path) -> Any:
    from safetensors import SafetensorError

    try:
        return _open_as(path, "np")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}. Convert the model anew.") from error


def _open_as(path: Path, framework: str) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework=framework)
