"""The stored tensors of a folder: safetensors or pytorch_model.bin, whole or in shards beside an index, or one npz.

folder → ``open_weights()`` → names and shapes at once, values as they are stored, one tensor at a time

Of several, those that transformers and timm prefer are opened: safetensors before .bin, one file before shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any

import numpy.typing as npt

from converters.errors import CheckpointError
from converters.files import INDEX, TORCH_INDEX, TORCH_WEIGHTS, WEIGHTS, is_macos_metadata, refuse_special
from converters.mapping.dtypes import DTYPES
from converters.sources.npz import NpzSource
from converters.sources.safetensors import tensors_of
from converters.sources.shards import StoredTensor, compare_shards, shards_of
from converters.sources.torch_bin import TorchBinSource

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Weights:
    """The weights that a folder stores."""

    file_names: Sequence[str]
    """The names of the files that they are in, and of their index."""
    shapes: Mapping[str, tuple[int, ...]]
    dtype: str
    """The dtype of all tensors; the commonest, where they differ."""
    read: Callable[[str], Array]
    """Gives the stored values; of bfloat16, which NumPy lacks, the uint16 bits."""
    close: Callable[[], None] = lambda: None
    is_npz: bool = False


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
    source = NpzSource.open(found[0])
    return Weights([*source.files], source.shapes, "float32", source.read, source.close, is_npz=True)


def open_file(file: Path) -> Weights:
    """One file of safetensors, or that torch.save wrote. Raises CheckpointError where it cannot be read."""
    try:
        refuse_special(file)
    except ValueError as error:
        raise CheckpointError(f"{file}: {error}, not a file of weights. Remove it.") from error
    return _torch(file) if file.suffix == ".bin" else _safetensors({file: tensors_of(file)})


def open_index(index: Path) -> Weights:
    """The shards of an index. Raises CheckpointError where one cannot be read, or the index does not fit them."""
    if index.name == TORCH_INDEX:
        return _torch(index)
    homes = shards_of(index)
    for file in homes.values():
        if not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: names the shard {file!r}, which is no safetensors. Download the folder again."
            )
    shards = {index.parent / name: tensors_of(index.parent / name) for name in sorted(set(homes.values()))}
    compare_shards(homes, {name: file.name for file, tensors in shards.items() for name in tensors}, index)
    return _safetensors(shards, index.name)


def _safetensors(held: Mapping[Path, Mapping[str, StoredTensor]], *index: str) -> Weights:
    tensors = {name: tensor for each in held.values() for name, tensor in each.items()}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    dtype = _dtype([tensor.dtype for tensor in tensors.values()], next(iter(held)).parent)
    return Weights([*(file.name for file in held), *index], shapes, dtype, lambda name: tensors[name].stored(name))


def _torch(file: Path) -> Weights:
    source = TorchBinSource.open(file)
    if source.is_training:
        raise CheckpointError(
            f"{file}: holds more than a state dict, which libraries do not look into. "
            "Save the network's state_dict() alone with torch.save."
        )
    names = [*source.files, *([file.name] if file.name == TORCH_INDEX else [])]
    return Weights(names, source.shapes, _dtype(source.codes.values(), file.parent), source.stored, source.close)


def _dtype(codes: Iterable[str], folder: Path) -> str:
    """The commonest dtype. Raises CheckpointError for one that no folder is stored in."""
    codes = list(codes)
    known = {dtype.code: dtype.name for dtype in DTYPES.values()}
    odd_codes = sorted({code for code in codes if code not in known})
    if odd_codes:
        raise CheckpointError(f"{folder}: stores {odd_codes[0]}, not one of {', '.join(known)}. Convert it again.")
    return known[mode(codes)] if codes else "float32"
