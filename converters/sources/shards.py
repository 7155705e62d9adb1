"""Hub folders of weights in one file or in shards: which files there are, and that the index agrees with them.

folder, or a file of it → the files → each one's tensors → names, shapes
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar

from converters.errors import CheckpointError
from converters.files import read_json
from converters.mapping.names import nearest
from converters.reading import reading
from converters.sources.base import TensorFile, refuse_names
from converters.sources.declared import declared

T = TypeVar("T")


class ShardedSource(TensorFile, Generic[T]):
    """The weights of a folder, whole or in shards, or a single file; ``T`` is what a reader keeps of a tensor."""

    weights: ClassVar[str]
    """The name of the one file."""
    index: ClassVar[str]
    """That of the file that says which shard a tensor is in."""
    schemes: ClassVar[tuple[str, ...]]
    """The naming schemes that are met in such files, the likeliest first."""

    @abstractmethod
    def _load(self, file: Path) -> Mapping[str, T]:
        """Returns the content of one file. Raises CheckpointError where it is broken or unsafe."""

    @classmethod
    def holds(cls, folder: Path) -> bool:
        return any((folder / name).is_file() for name in (cls.weights, cls.index))

    @classmethod
    def open(cls, path: Path) -> Self:
        folder = path if path.is_dir() else path.parent
        if not path.is_dir() and path.name != cls.index:
            return cls(path, folder, [path])
        whole, index = folder / cls.weights, folder / cls.index
        if whole.is_file() and index.is_file():
            raise CheckpointError(f"{path}: holds both {whole.name} and {index.name}. Remove the one out of date.")
        if whole.is_file():
            return cls(path, folder, [whole])
        shards = shards_of(index)
        source = cls(path, folder, [folder / name for name in sorted(set(shards.values()))])
        compare_shards(shards, source._owners, index)
        return source

    def __init__(self, path: Path, folder: Path, files: list[Path]) -> None:
        self.path = str(path)
        self._files = files
        self._tensors: dict[str, T] = {}
        self._owners: dict[str, str] = {}
        for file in files:
            for name, tensor in self._load(file).items():
                if name in self._tensors:
                    raise CheckpointError(f"{self.path}: {name} is in two shards. Download it again.")
                self._tensors[name], self._owners[name] = tensor, file.name
        refuse_names(self._tensors, self.path)
        self.scheme = nearest(self._tensors, self.schemes)
        config = declared(folder)
        self.exact, self.pool_padding = config.exact, config.pool_padding

    @property
    def files(self) -> Mapping[str, Path]:
        return {file.name: file for file in self._files}


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
    with reading(index, "weight_map"):
        missing = next((file for file in dict.fromkeys(shards.values()) if not (index.parent / file).is_file()), None)
    if missing is not None:
        raise CheckpointError(f"{index}: {missing[:120]} is missing. Download it again.")
    return shards


def compare_shards(said: Mapping[str, str], found: Mapping[str, str], index: Path) -> None:
    """Raises CheckpointError where the index and the shards differ."""
    odd = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
    if odd:
        raise CheckpointError(
            f"{index}: {len(odd)} tensors are not where it says, {odd[0][:120]} for one. Download it again."
        )
