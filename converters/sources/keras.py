"""Reads Keras ``.h5`` weights with h5py alone: what ``save_weights`` of Google's TF2 code wrote, and whole models.

Keras itself loads such a file by order, not by name: ``layer_names`` of the file, in each layer ``weight_names``. So
does this reader, since the names may be whole (``resnet/block1/unit01/a/group_norm/gamma:0``), shortened or made unique
by a number: in a unit a, b, c come first, the projection last (big_transfer bit_tf2/models.py builds it last). What a
name says about its tensor must be true of its place, and shapes are checked in any case.

    layer_names → weight_names → the n-th tensor → its whole name in the table

Every link on the way must be a hard link inside the file, every dataset plain floats that the file's real bytes bear
out; no filter that HDF5 would load from elsewhere is used. HDF5 reserves what some lengths in a file claim, before it
reads: so it may reserve only what the file's size justifies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from converters.architecture import GROUPS, Architecture
from converters.errors import CheckpointError, UsageError
from converters.names import PROJECTION, parameters, words
from converters.sources.base import (
    MAX_NAME,
    MAX_TENSORS,
    Array,
    Shape,
    TensorFile,
    as_float32,
    bounded,
    limited_memory,
    one_line,
    refuse_names,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MODEL_WEIGHTS, OPTIMIZER_WEIGHTS = "model_weights", "optimizer_weights"
"""What ``model.save`` puts the weights, and the optimiser's state, under; ``save_weights`` writes at the top."""
PLAIN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
"""Filters that are part of HDF5; any other is a plug-in, loaded from the file system."""
MAX_PARTS = 100
"""Keras cuts a list of names that is too long for HDF5 into ``layer_names0``, ``layer_names1``, …"""
UNIT_TENSORS, TAIL = 9, {2: False, 4: True}
"""Tensors of a unit without projection; of the end of the network, without a head and with one."""


class KerasSource(TensorFile):
    """A Keras ``.h5`` file under the whole names of the ``keras`` column.

    Raises CheckpointError, naming file and tensor, for anything broken, unsafe or not a BiT; UsageError without h5py.
    """

    format = "keras-h5"
    scheme = "keras"
    looked_for = "Keras weights (.h5)"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(SIGNATURE)

    @classmethod
    def open(cls, path: Path) -> Self:
        return cls(path)

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._size = path.stat().st_size
        h5py = _h5py()
        with self._blame("the file"):
            self._file = h5py.File(path, "r", locking=False)
        try:
            with self._blame("the list of weights"):
                found = list(self._weights())
            self._refuse_bomb([dataset for *_, dataset in found])
            names = _assign(found, self.path)
            self._datasets = {name: dataset for name, (*_, dataset) in zip(names, found, strict=True)}
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    @property
    def files(self) -> Mapping[str, Path]:
        return {Path(self.path).name: Path(self.path)}

    @property
    def shapes(self) -> Mapping[str, Shape]:
        return {name: tuple(dataset.shape) for name, dataset in self._datasets.items()}

    def read(self, name: str) -> Array:
        with self._blame(name):
            values: Array = self._datasets[name][()]
        return as_float32(values, self.path, name)

    def _weights(self) -> Iterator[tuple[str, str, Any]]:
        """(layer, weight, dataset) in the order in which Keras loads them."""
        root = self._file
        if MODEL_WEIGHTS in root:
            root = self._follow(root, MODEL_WEIGHTS)
            if OPTIMIZER_WEIGHTS in self._file:
                self.dropped = {OPTIMIZER_WEIGHTS: "the optimiser's state, not the network's"}
        if not any(name.startswith("layer_names") for name in root.attrs):
            raise CheckpointError(
                f"{self.path}: an HDF5 file without layer_names: not Keras weights, or those of Keras 3.\n"
                f"Looked for {self.looked_for} of tf.keras; it holds {', '.join(sorted(root)[:3]) or 'nothing'}."
            )
        count = 0
        for layer in self._names(root, "layer_names"):
            group = self._follow(root, layer)
            if not isinstance(group, _h5py().Group):
                raise ValueError(f"{layer} is no layer")
            for weight in self._names(group, "weight_names"):
                count += 1
                if count > MAX_TENSORS:
                    raise CheckpointError(f"{self.path}: more than {MAX_TENSORS} tensors, more than any BiT has.")
                yield layer, weight, self._dataset(self._follow(group, weight), f"{layer}/{weight}")

    def _names(self, group: Any, attribute: str) -> list[str]:
        """A list of names: one attribute, or several numbered ones."""
        keys = [attribute] if attribute in group.attrs else [f"{attribute}{part}" for part in range(MAX_PARTS)]
        names: list[str] = []
        for key in keys:
            if key not in group.attrs:
                break
            identifier = group.attrs.get_id(key)
            length = identifier.shape[0] if len(identifier.shape) == 1 else MAX_TENSORS + 1
            text = identifier.dtype.kind == "S" or _h5py().check_string_dtype(identifier.dtype) is not None
            if not length:  # a layer without weights; Keras stores an empty list of floats
                continue
            if length > MAX_TENSORS or not text or identifier.dtype.itemsize > MAX_NAME:
                raise ValueError(f"its attribute {key} is no list of names")
            names += [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[key]]
        refuse_names(names, self.path)
        return names

    def _follow(self, group: Any, path: str) -> Any:
        """What ``path`` names below ``group``, over hard links alone: no other file, no detour through the same."""
        h5py = _h5py()
        for part in path.split("/"):
            if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise ValueError(f"{path[:120]} is missing, or a link to elsewhere")
            group = group[part]
        return group

    def _dataset(self, dataset: Any, name: str) -> Any:
        h5py = _h5py()
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise ValueError(f"{name} is no tensor")
        if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (2, 4, 8):
            raise CheckpointError(f"{self.path}: {name} holds {dataset.dtype}, not float32. Save it as float32.")
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        if dataset.is_virtual or dataset.external or not set(filters) <= set(PLAIN_FILTERS):
            raise ValueError(f"{name} is kept in another file, or packed by a plug-in")
        if dataset.id.get_storage_size() < (1 if filters else dataset.nbytes):
            raise ValueError(f"{name} of shape {dataset.shape} has fewer bytes than that")
        return dataset

    def _refuse_bomb(self, datasets: Sequence[Any]) -> None:
        """Of packed tensors a whole chunk is unpacked at once, which may be larger than the tensor."""
        chunks = (math.prod(dataset.chunks or ()) * dataset.dtype.itemsize for dataset in datasets)
        claimed = max(sum(dataset.nbytes for dataset in datasets), *chunks, 0)
        if claimed > bounded(self._size):
            raise CheckpointError(
                f"{self.path}: {self._size} bytes that claim to expand to {claimed}: a bomb, not a checkpoint.\n"
                "Get the file anew."
            )

    @contextmanager
    def _blame(self, what: str) -> Iterator[None]:
        try:
            with limited_memory(bounded(self._size)):
                yield
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, MemoryError, UnicodeError) as error:
            raise CheckpointError(f"{self.path}: {what} is damaged: {one_line(error)}.\nGet the file anew.") from error


def _assign(found: Sequence[tuple[str, str, Any]], where: str) -> list[str]:
    """The whole name of each tensor, by its place. Raises CheckpointError where its own names or shape contradict."""
    units, head = _structure([tuple(dataset.shape) for *_, dataset in found], where)
    network = Architecture.regular(units, GROUPS, 1 if head else None)  # names do not depend on widths
    names = [parameter.names["keras"] for parameter in sorted(parameters(network), key=_keras_place(units))]
    for (layer, weight, _), name in zip(found, names, strict=True):
        for said in (layer, weight):
            if not _is_within(words(said, "keras"), name.split("/")):
                raise CheckpointError(
                    f"{where}: {layer}/{weight} stands where Google's network has {name}: its weights are in another "
                    "order.\nSave them from big_transfer's bit_tf2 network."
                )
    return names


def _structure(shapes: Sequence[Shape], where: str) -> tuple[tuple[int, ...], bool]:
    """Units per block, and whether there is a head: a kernel after a unit's nine tensors is the projection, which
    the first unit of each block has."""
    units: list[int] = []
    at = 1
    while len(shapes) - at >= UNIT_TENSORS:
        at += UNIT_TENSORS
        if at < len(shapes) and len(shapes[at]) == 4:
            units.append(1)
            at += 1
        elif units:
            units[-1] += 1
        else:
            break
    if not units or len(shapes) - at not in TAIL:
        raise CheckpointError(
            f"{where}: not a BiT checkpoint: its {len(shapes)} weights are not a root, units of nine or ten, a "
            "norm and a head.\nLooked for the order of big_transfer's bit_tf2 network."
        )
    return tuple(units), TAIL[len(shapes) - at]


def _keras_place(units: Sequence[int]) -> Any:
    """Sort key of a parameter: as in the released files, but the projection at the end of its unit."""
    network = Architecture.regular(tuple(units), GROUPS, 1)
    order = {parameter.canonical: place for place, parameter in enumerate(parameters(network))}

    def place(parameter: Any) -> float:
        branch, projection, _ = parameter.canonical.partition(PROJECTION)
        return order[branch + "c/conv/kernel"] + 0.5 if projection else order[parameter.canonical]

    return place


def _is_within(said: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words stand in a whole name, in that order."""
    rest = iter(whole)
    return all(word in rest for word in said)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UsageError("Keras .h5 files are read with h5py, which is not installed: pip install h5py") from error
    return h5py
