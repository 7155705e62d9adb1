"""Reads TensorFlow checkpoints, of TensorFlow 1 and 2: ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``.

The format is TensorFlow's own and is read with it (``tf.train.load_checkpoint``), which checks the CRC of every tensor.
Nothing in the file is executed. In a checkpoint of TensorFlow 2 a variable's key is the path of attributes that leads
to it; the object graph, stored beside the values, gives its full name, under which it is known here.

    PREFIX.index → keys, shapes → (object graph → full names) → values from PREFIX.data-*
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from converters.errors import CheckpointError, UsageError
from converters.files import is_macos_metadata
from converters.mapping.names import GOOGLE, SLOT, is_slot, match, nearest, trunk
from converters.reading import reading, refuse_pointer
from converters.sources.base import Array, Shape, TensorFile, as_float32, refuse_names
from converters.sources.dense import LEAST, Found, is_kernel, recognised
from converters.sources.objects import ObjectGraph
from converters.sources.tf_index import refuse_odd_index
from verify.tensorflow import import_tensorflow

INDEX, DATA, META = ".index", ".data-", ".meta"
SCHEME = "tf2"
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAX_INDEX = 64 << 20
"""Bytes of an index that are read; that of the largest network has some 100 kB."""


class TfCheckpoint(TensorFile):
    """A TensorFlow checkpoint: a folder that holds one, its prefix, or any of its files.

    Names are the variables' own: keys in TensorFlow 1, full names in TensorFlow 2; a slot variable of TensorFlow 2 is
    ``VARIABLE/SLOT``. Raises UsageError without TensorFlow.
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
        folder, name = prefix.parent, prefix.name
        data = sorted(file for file in folder.iterdir() if file.name.startswith(name + DATA))
        self._files = [folder / (name + INDEX), *data]
        for file in self._files:
            refuse_pointer(file)
        with reading(self.path, "the index"):
            if self._files[0].stat().st_size > MAX_INDEX:
                raise ValueError("it is larger than that of any network")
            if not data:
                raise ValueError(f"{name}{DATA}* is missing")
            tensorflow, real = _tensorflow(), sum(file.stat().st_size for file in data)
            refuse_odd_index(self._files[0], real)
            self._reader = tensorflow.train.load_checkpoint(str(prefix))
            shapes = {k: tuple(shape) for k, shape in self._reader.get_variable_to_shape_map().items()}
            types = self._reader.get_variable_to_dtype_map()
        refuse_names(shapes, self.path)
        graph = shapes.pop(OBJECT_GRAPH, None)
        floats = {key: types[key].is_floating for key in shapes}
        with reading(self.path, "the object graph"):
            found = _of_version_1(shapes, path) if graph is None else self._of_version_2(shapes, floats)
        self.scheme, names, self.dropped, made = found
        self._keys = {name: key for key, name in sorted(names.items(), key=lambda item: item[1])}
        self.shapes = {name: shapes[key] for name, key in self._keys.items()} | made
        self._types = {name: types[key] for name, key in self._keys.items()}

    @property
    def files(self) -> Mapping[str, Path]:
        return {file.name: file for file in self._files}

    def select(self, names: Collection[str]) -> None:
        for name in names:
            if name in self._types and not self._types[name].is_floating:
                raise CheckpointError(
                    f"{self.path}: {name} holds {self._types[name].name}, not float32. Save it as float32."
                )

    def read(self, name: str) -> Array:
        if name not in self._keys:  # the bias of a head that has none
            return np.zeros(self.shapes[name], np.float32)
        self.select([name])
        with reading(self.path, name):
            values: Array = self._reader.get_tensor(self._keys[name])
        return as_float32(values, self.path, name)

    def close(self) -> None:
        self._reader = None

    def _of_version_2(self, shapes: Mapping[str, Shape], floats: Mapping[str, bool]) -> Found:
        """Finds tensors by the object graph: what is left beside trunk and training's state is the head, or refused."""
        graph = ObjectGraph(self._reader.get_tensor(OBJECT_GRAPH), shapes)
        below = graph.trunk(SCHEME)
        shown = _distinct({key: graph.full_names.get(key, key) for key in shapes})
        refuse_names(shown.values(), self.path)
        if len(below) < LEAST:
            self._refuse_one_name(graph.full_names)
        dropped = {key: why for key, why in graph.training(floats, shapes).items() if key not in below}
        return recognised(SCHEME, below, shapes, dropped, shown, graph.words(), self.path)

    def _refuse_one_name(self, full_names: Mapping[str, str]) -> None:
        """No part of a BiT was found: say so where that is because variables share a name."""
        counted: dict[str, str] = {}
        for key, name in full_names.items():
            if counted.setdefault(name, key) != key:
                raise CheckpointError(
                    f"{self.path}: two variables of the full name {name}, so that nothing tells which is which.\n"
                    "Save the network from big_transfer's bit_tf2 code with whole names."
                )


def _of_version_1(shapes: Mapping[str, Shape], where: str) -> Found:
    """Finds tensors by the variables' names alone; a new Dense layer beside the network is its head."""
    scheme = nearest(shapes, (GOOGLE, SCHEME))
    names = {name: name for name in shapes}
    found = match(shapes, scheme, where)
    strange = [name for name in shapes if name not in found.kinds and name not in found.dropped]
    if not any(is_kernel(shapes[name]) for name in strange):
        return scheme, names, {}, {}
    slots = {name: SLOT for name in strange if is_slot(name, shapes, scheme)}
    words = {name: {name.rpartition("/")[2]} for name in shapes}
    return recognised(scheme, trunk(names, scheme), shapes, {**found.dropped, **slots}, names, words, where)


def _distinct(shown: Mapping[str, str]) -> dict[str, str]:
    """Key → full name, or where several have it the key itself."""
    counted = Counter(shown.values())
    return {key: name if counted[name] == 1 else key for key, name in shown.items()}


def _prefixes(folder: Path) -> list[Path]:
    """The checkpoints of a folder."""
    found = (file for file in folder.iterdir() if not is_macos_metadata(file.name))
    indices = (file for file in found if file.name.endswith(INDEX) and file.name != INDEX and file.is_file())
    return sorted(file.with_name(file.name.removesuffix(INDEX)) for file in indices)


def _prefix_of(path: Path) -> Path | None:
    """The prefix that ``path`` is, or that it is a file of; None where there is no index."""
    for suffix in (INDEX, DATA, META):
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
