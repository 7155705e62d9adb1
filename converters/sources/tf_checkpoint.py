"""Reads TensorFlow checkpoints, of TensorFlow 1 and 2: ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``.

The format is TensorFlow's own and is read with it (``tf.train.load_checkpoint``), which checks the CRC of every tensor.
Nothing in the file is executed. In a checkpoint of TensorFlow 2 a variable's key is the path of attributes that leads
to it; the object graph, stored beside the values, gives its full name, under which it is known here.

    PREFIX.index → keys, shapes → (object graph → full names) → values from PREFIX.data-*
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from converters.errors import BitConvertError, CheckpointError, UsageError
from converters.files import is_macos_metadata
from converters.names import nearest
from converters.sources.base import Array, Shape, TensorFile, as_float32, one_line, refuse_names
from verify.tensorflow import import_tensorflow

INDEX, DATA = ".index", ".data-"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAX_INDEX = 64 << 20
"""Bytes of an index that are read; that of the largest network has some 100 kB."""


class TfCheckpoint(TensorFile):
    """A TensorFlow checkpoint: a folder that holds one, its prefix, or any of its files.

    Names are the variables' own: keys in TensorFlow 1, full names in TensorFlow 2; a slot variable of TensorFlow 2 is
    ``VARIABLE/SLOT``. Raises CheckpointError, naming file and tensor, for anything broken; UsageError without
    TensorFlow.
    """

    format = "tf-checkpoint"
    looked_for = "a TensorFlow checkpoint (.index and .data)"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return bool(_prefixes(path) if path.is_dir() else _prefix_of(path))

    @classmethod
    def open(cls, path: Path) -> Self:
        if not path.is_dir():
            return cls(str(path), _prefix_of(path) or path)
        prefixes = _prefixes(path)
        if len(prefixes) > 1:
            some = ", ".join(prefix.name for prefix in prefixes[:3])
            raise CheckpointError(
                f"{path}: {len(prefixes)} TensorFlow checkpoints ({some}). Give one of them, by its name."
            )
        return cls(str(path), prefixes[0])

    def __init__(self, path: str, prefix: Path) -> None:
        self.path = path
        self._prefix = prefix
        folder, name = prefix.parent, prefix.name
        data = sorted(file for file in folder.iterdir() if file.name.startswith(name + DATA))
        self._files = [folder / (name + INDEX), *data]
        with self._blame("the index"):
            if self._files[0].stat().st_size > MAX_INDEX:
                raise ValueError("it is larger than that of any network")
            if not data:
                raise ValueError(f"{name}{DATA}* is missing")
            self._reader = _tensorflow().train.load_checkpoint(str(prefix))
            shapes = {k: tuple(shape) for k, shape in self._reader.get_variable_to_shape_map().items()}
            types = self._reader.get_variable_to_dtype_map()
        self._refuse_claims(shapes, types, sum(file.stat().st_size for file in data))
        graph = shapes.pop(OBJECT_GRAPH, None)
        names = {key: key for key in shapes} if graph is None else self._full_names(shapes)
        self._keys = {name: key for key, name in sorted(names.items(), key=lambda item: item[1])}
        self._shapes = {name: shapes[key] for name, key in self._keys.items()}
        self.scheme = nearest(self._shapes, ("npz", "tf2") if graph is None else ("tf2", "npz"))
        self._types = {name: types[key] for name, key in self._keys.items()}

    @property
    def files(self) -> Mapping[str, Path]:
        return {file.name: file for file in self._files}

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return self._shapes

    def read(self, name: str) -> Array:
        if not self._types[name].is_floating:
            raise CheckpointError(
                f"{self.path}: {name} holds {self._types[name].name}, not float32. Save it as float32."
            )
        with self._blame(name):
            values: Array = self._reader.get_tensor(self._keys[name])
        return as_float32(values, self.path, name)

    def close(self) -> None:
        self._reader = None

    def _refuse_claims(self, shapes: Mapping[str, Shape], types: Mapping[str, Any], real: int) -> None:
        """TensorFlow reserves what the index claims before it reads; the format does not compress."""
        refuse_names(shapes, self.path)
        claimed = sum(math.prod(shape) * max(types[name].size, 1) for name, shape in shapes.items())
        if claimed > real:
            raise CheckpointError(f"{self.path}: cut short: {claimed} bytes of tensors in {real}. Get the files anew.")

    def _full_names(self, shapes: Mapping[str, Shape]) -> dict[str, str]:
        """Key → full name, by the object graph; a key that it does not name keeps its own."""
        with self._blame("the object graph"):
            graph = _object_graph(self._reader.get_tensor(OBJECT_GRAPH))
        full, owner = {}, {}
        for number, node in enumerate(graph.nodes):
            for attribute in node.attributes:
                if attribute.checkpoint_key in shapes and attribute.full_name:
                    full[attribute.checkpoint_key] = attribute.full_name
                    owner[number] = attribute.checkpoint_key
        for node in graph.nodes:
            for slot in node.slot_variables:
                original, key = owner.get(slot.original_variable_node_id), owner.get(slot.slot_variable_node_id)
                if original and key:
                    full[key] = f"{full[original]}/{slot.slot_name}"
        names = {key: full.get(key, key) for key in shapes}
        refuse_names(names.values(), self.path)
        counted: dict[str, str] = {}
        for key, name in names.items():
            if counted.setdefault(name, key) != key:
                raise CheckpointError(
                    f"{self.path}: two variables of the full name {name}, so that nothing tells which is which.\n"
                    "Save the network from big_transfer's bit_tf2 code with whole names."
                )
        return names

    @contextmanager
    def _blame(self, what: str) -> Iterator[None]:
        try:
            yield
        except BitConvertError:
            raise
        except Exception as error:  # TensorFlow's errors have no base of their own
            raise CheckpointError(f"{self.path}: {what} is damaged: {one_line(error)}.\nGet the files anew.") from error


def _object_graph(serialised: bytes) -> Any:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    return TrackableObjectGraph.FromString(serialised)


def _prefixes(folder: Path) -> list[Path]:
    """The checkpoints of a folder."""
    found = (file for file in folder.iterdir() if not is_macos_metadata(file.name))
    indices = (file for file in found if file.name.endswith(INDEX) and file.name != INDEX and file.is_file())
    return sorted(file.with_name(file.name.removesuffix(INDEX)) for file in indices)


def _prefix_of(path: Path) -> Path | None:
    """The prefix that ``path`` is, or that it is a file of; None where there is no index."""
    for suffix in (INDEX, DATA):
        before, found, _ = path.name.rpartition(suffix)
        if found and before and path.with_name(before + INDEX).is_file():
            return path.with_name(before)
    return path if path.with_name(path.name + INDEX).is_file() else None


def _tensorflow() -> Any:
    try:
        return import_tensorflow()
    except ImportError as error:
        raise UsageError(
            "TensorFlow checkpoints are read with TensorFlow: pip install 'bit-convert[tensorflow]'"
        ) from error
