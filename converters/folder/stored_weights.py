"""The stored tensors of a folder: safetensors or pytorch_model.bin, whole or in shards beside an index, or one npz.

folder → ``open_weights()`` → names and shapes at once, values as they are stored, one tensor at a time

Of several, those that transformers and timm prefer are opened: safetensors before .bin, one file before shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mode
from typing import Any, Protocol

import numpy.typing as npt

from converters.errors import CheckpointError
from converters.files import INDEX, TORCH_INDEX, TORCH_WEIGHTS, WEIGHTS, is_macos_metadata, refuse_special
from converters.mapping.dtypes import DTYPES
from converters.sources.npz import NpzSource
from converters.sources.safetensors import tensors_of
from converters.sources.shards import compare_shards, shards_of
from converters.sources.torch_bin import TorchBinSource

Array = npt.NDArray[Any]


class Weights(Protocol):
    """The weights that a folder stores."""

    is_npz: bool
    dtype: str
    """The dtype of all tensors; the commonest, where they differ."""

    @property
    def file_names(self) -> Sequence[str]:
        """The names of the files that they are in, and of their index."""
        ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Array:
        """The stored values; of bfloat16, which NumPy lacks, the uint16 bits."""
        ...

    def close(self) -> None: ...


def open_weights(folder: Path) -> Weights:
    """Raises CheckpointError, naming the file, where one cannot be read or the index does not fit the shards."""
    for whole, index in ((WEIGHTS, INDEX), (TORCH_WEIGHTS, TORCH_INDEX)):
        if (folder / whole).exists():
            return open_file(folder / whole)
        if (folder / index).is_file():
            return open_index(folder / index)
    found = sorted(file for file in folder.glob("*.npz") if not is_macos_metadata(file.name))
    if len(found) != 1:
        raise CheckpointError(
            f"{folder}: holds no {WEIGHTS}, {INDEX}, {TORCH_WEIGHTS} or single .npz. Give a converted model folder."
        )
    return _Npz(found[0])


def open_file(file: Path) -> Weights:
    """One file of safetensors, or that torch.save wrote. Raises CheckpointError where it cannot be read."""
    try:
        refuse_special(file)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}, not a file of weights. Remove it.") from error
    return _Torch(file) if file.suffix == ".bin" else _Safetensors([file])


def open_index(index: Path) -> Weights:
    """The shards of an index. Raises CheckpointError where one cannot be read, or the index does not fit them."""
    if index.name == TORCH_INDEX:
        return _Torch(index)
    homes = _shards(index)
    weights = _Safetensors([index.parent / name for name in sorted(set(homes.values()))], [index.name])
    compare_shards(homes, weights.homes, index)
    return weights


class _Npz(NpzSource):
    is_npz = True
    dtype = "float32"

    @property
    def file_names(self) -> list[str]:
        return list(self.files)


class _Safetensors:
    is_npz = False

    def __init__(self, files: Sequence[Path], index: Sequence[str] = ()) -> None:
        held = {file: tensors_of(file) for file in files}
        self.file_names = [*(file.name for file in files), *index]
        self.homes = {name: file.name for file, tensors in held.items() for name in tensors}
        self._tensors = {name: tensor for tensors in held.values() for name, tensor in tensors.items()}
        self.dtype = _dtype([tensor.dtype for tensor in self._tensors.values()], files[0].parent)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Array:
        return self._tensors[name].stored(name)

    def close(self) -> None:
        """Nothing is held open."""


class _Torch:
    is_npz = False

    def __init__(self, file: Path) -> None:
        self._source = TorchBinSource.open(file)
        if self._source.is_training:
            raise CheckpointError(
                f"{file}: holds more than a state dict, which libraries do not look into. "
                "Save the network's state_dict() alone with torch.save."
            )
        self.file_names = [*self._source.files, *([file.name] if file.name == TORCH_INDEX else [])]
        self.dtype = _dtype(self._source.codes.values(), file.parent)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self._source.shapes)

    def read(self, name: str) -> Array:
        return self._source.stored(name)

    def close(self) -> None:
        self._source.close()


def _dtype(codes: Iterable[str], folder: Path) -> str:
    """The commonest dtype. Raises CheckpointError for one that no folder is stored in."""
    codes = list(codes)
    known = {dtype.code: dtype.name for dtype in DTYPES.values()}
    odd_codes = sorted({code for code in codes if code not in known})
    if odd_codes:
        raise CheckpointError(f"{folder}: stores {odd_codes[0]}, not one of {', '.join(known)}. Convert it again.")
    return known[mode(codes)] if codes else "float32"


def _shards(index: Path) -> dict[str, str]:
    homes = shards_of(index)
    for file in homes.values():
        if not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: names the shard {file!r}, which is no safetensors. Download the folder again."
            )
    return homes
