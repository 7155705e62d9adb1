"""Hub folders of weights in one file or in shards: which files there are, and that the index agrees with them.

folder, or a file of it → the files → each one's tensors → names, shapes
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from converters.errors import CheckpointError
from converters.files import INDEX, read_json
from converters.mapping.dtypes import widened
from converters.mapping.names import nearest
from converters.reading import reading
from converters.sources.base import Array, Shape, TensorFile, as_float32, refuse_names
from converters.sources.declared import declared

FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
SIZES = {name: dtype.itemsize for name, dtype in FLOATS.items()} | {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8,
}  # fmt: skip
"""Bytes a value; a tensor of another dtype than FLOATS can be skipped over, not read."""
ByteOrder = Literal["<", ">"]


@dataclass(frozen=True)
class StoredTensor:
    """The place of one tensor: its file, dtype (safetensors' name), shape, the offset of its first value in the file,
    the strides from value to value, counted in values, and the byte order."""

    file: Path
    dtype: str
    shape: Shape
    offset: int
    strides: tuple[int, ...]
    order: ByteOrder = "<"

    def stored(self, name: str) -> Array:
        """The values as they are stored, little-endian and C-contiguous; of bfloat16, which NumPy lacks, the uint16
        bits.

        They are read, not mapped: pages of a mapping would count as this process's memory for as long as it lasts.
        Raises CheckpointError, with the tensor's ``name``, where they cannot be had.
        """
        if self.dtype not in FLOATS:
            raise CheckpointError(f"{self.file}: {name} holds {self.dtype}, not F32. Save it as float32.")
        dtype, count = FLOATS[self.dtype].newbyteorder(self.order), span(self.shape, self.strides)
        with reading(self.file, name):
            run = np.fromfile(self.file, dtype, count, offset=self.offset)
            if run.size != count:
                raise CheckpointError(f"{self.file}: {name} is cut short. Download it again.")
            strides = [stride * dtype.itemsize for stride in self.strides]
            values = np.lib.stride_tricks.as_strided(run, self.shape, strides)
            return np.asarray(values, FLOATS[self.dtype], order="C")


def span(shape: Shape, strides: tuple[int, ...]) -> int:
    """Values from a tensor's first to its last, with those between that are not its own."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


class ShardedSource(TensorFile):
    """The weights of a folder, whole or in shards, or a single file."""

    weights: ClassVar[str]
    """The name of the one file."""
    index: ClassVar[str]
    """That of the file that says which shard a tensor is in."""
    schemes: ClassVar[tuple[str, ...]]
    """The naming schemes that are met in such files, the likeliest first."""
    is_training = False
    """Whether a file holds more than a network's tensors."""

    @abstractmethod
    def _load(self, file: Path) -> Mapping[str, StoredTensor]:
        """Returns the tensors of one file. Raises CheckpointError where it is broken or unsafe."""

    @classmethod
    def holds(cls, folder: Path) -> bool:
        return any((folder / name).is_file() for name in (cls.weights, cls.index))

    @classmethod
    def open(cls, path: Path) -> Self:
        folder = path if path.is_dir() else path.parent
        whole, index = folder / cls.weights, folder / cls.index
        if path not in (folder, index):
            source = cls(path, [path])
        elif whole.is_file() and index.is_file():
            raise CheckpointError(f"{path}: holds both {whole.name} and {index.name}. Remove the one out of date.")
        else:
            source = cls(path, [whole]) if whole.is_file() else cls.of_index(path, index)
        source.declare(declared(folder))
        return source

    @classmethod
    def of_index(cls, path: Path, index: Path) -> Self:
        """The shards that an index names. Raises CheckpointError where it and they differ."""
        said = shards_of(index)
        source = cls(path, [index.parent / name for name in sorted(set(said.values()))])
        found = {name: tensor.file.name for name, tensor in source._tensors.items()}
        odd = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
        if odd:
            raise CheckpointError(
                f"{index}: {len(odd)} tensors are not where it says, {odd[0][:120]} for one. Download it again."
            )
        return source

    def __init__(self, path: Path, files: list[Path]) -> None:
        super().__init__(path)
        self._files = files
        self._tensors: dict[str, StoredTensor] = {}
        for file in files:
            for name, tensor in self._load(file).items():
                if name in self._tensors:
                    raise CheckpointError(f"{self.path}: {name} is in two shards. Download it again.")
                self._tensors[name] = tensor
        refuse_names(self._tensors, self.path)
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}
        self.scheme = nearest(self._tensors, self.schemes)

    @property
    def files(self) -> Mapping[str, Path]:
        return {file.name: file for file in self._files}

    @property
    def dtypes(self) -> Collection[str]:
        """The dtype of each tensor, by safetensors' names."""
        return [tensor.dtype for tensor in self._tensors.values()]

    def stored(self, name: str) -> Array:
        """The values of a tensor, as StoredTensor has them."""
        return self._tensors[name].stored(name)

    def read(self, name: str) -> Array:
        values = self.stored(name)
        if self._tensors[name].dtype == "BF16":
            values = widened(values, "bfloat16")
        return as_float32(values, self.path, name)


def shards_of(index: Path) -> dict[str, str]:
    """Tensor → file name in the same folder, by a Hub folder's index. Raises CheckpointError where it is none."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(f"{index}: has no weight_map. Download it again.")
    refuse_names(shards, str(index))
    for name, file in shards.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or file in ("", "..", "."):
            raise CheckpointError(
                f"{index}: {name[:120]} is said to be in {str(file)[:60]!r}, which is no file beside it."
            )
        if index.name == INDEX and not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: names the shard {file[:60]!r}, which is no safetensors. Download the folder again."
            )
    with reading(index, "weight_map"):
        missing = next((file for file in dict.fromkeys(shards.values()) if not (index.parent / file).is_file()), None)
    if missing is not None:
        raise CheckpointError(f"{index}: {missing[:120]} is missing. Download it again.")
    return shards
