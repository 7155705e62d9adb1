"""The stored tensors of a folder: safetensors or pytorch_model.bin, whole or in shards beside an index, or one npz.

folder → ``open_weights()`` → names and shapes at once, values as they are stored, one tensor at a time

Of several, those that transformers and timm prefer are opened: safetensors before .bin, one file before shards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mode

from converters.errors import CheckpointError
from converters.files import INDEX, TORCH_INDEX, TORCH_WEIGHTS, WEIGHTS, is_macos_metadata, refuse_special
from converters.mapping.dtypes import DTYPES
from converters.sources.base import Array
from converters.sources.npz import NpzSource
from converters.sources.safetensors import SafetensorsSource
from converters.sources.shards import ShardedSource
from converters.sources.torch_bin import TorchBinSource


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
    return _weights((TorchBinSource if file.suffix == ".bin" else SafetensorsSource)(file, [file]))


def open_index(index: Path) -> Weights:
    """The shards of an index. Raises CheckpointError where one cannot be read, or the index does not fit them."""
    reader = TorchBinSource if index.name == TORCH_INDEX else SafetensorsSource
    return _weights(reader.of_index(index, index), index.name)


def _weights(source: ShardedSource, *index: str) -> Weights:
    if source.is_training:
        raise CheckpointError(
            f"{source.path}: holds more than a state dict, which libraries do not look into. "
            "Save the network's state_dict() alone with torch.save."
        )
    return Weights([*source.files, *index], source.shapes, _dtype(source), source.stored)


def _dtype(source: ShardedSource) -> str:
    """The commonest dtype. Raises CheckpointError for one that no folder is stored in."""
    known = {dtype.code: dtype.name for dtype in DTYPES.values()}
    odd = min((code for code in source.dtypes if code not in known), default="")
    if odd:
        folder = Path(source.path).parent
        raise CheckpointError(f"{folder}: stores {odd}, not one of {', '.join(known)}. Convert it again.")
    return known[mode(source.dtypes)] if source.dtypes else "float32"
