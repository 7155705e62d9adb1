"""Reads Keras ``.h5`` weights with h5py alone: what ``save_weights`` of Google's TF2 code wrote, and whole models.

Keras itself loads such a file by order, not by name: ``layer_names`` of the file, in each layer ``weight_names``. So
does this reader, since the names may be whole (``resnet/block1/unit01/a/group_norm/gamma:0``), shortened or made unique
by a number: in a unit a, b, c come first, the projection last (big_transfer bit_tf2/models.py builds it last). What a
name says about its tensor must be true of its place, and shapes are checked in any case. A TF-Hub module keeps its
variables in one layer, in an order of its own: they are told by their names. The one Dense layer beside BiT is its
head, wherever it stands.

    layer_names → weight_names → the n-th tensor → its whole name in the table

Keras's later formats, ``.weights.h5`` and ``.keras``, store neither: a layer's variables are numbered. They are read
where their shapes fit one of the orders that BiT's variables are known in, and their values do not contradict it.

    layers/NAME/vars/0, 1, … → the n-th tensor → its whole name in the table

Every link on the way must be a hard link inside the file, every dataset plain floats that the file's real bytes bear
out; no filter that HDF5 would load from elsewhere is used. HDF5 reserves what some lengths in a file claim, before it
reads: so it does that in a process of its own (``sources.apart``), which may reserve what the file's size justifies.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import CheckpointError
from converters.mapping.architecture import GROUPS, Architecture
from converters.mapping.names import NO_WEIGHT, PROJECTION, infer, parameters, trunk, words
from converters.reading import reading
from converters.sources.apart import SourceApart
from converters.sources.base import (
    MAX_NAME,
    MAX_TENSORS,
    Array,
    Shape,
    TensorFile,
    as_float32,
    bounded,
    refuse_names,
)
from converters.sources.dense import MADE, Dense, features_of, head_among
from converters.sources.zips import FIRST_BYTES, member_names, open_zip

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MODEL_WEIGHTS, OPTIMIZER_WEIGHTS = "model_weights", "optimizer_weights"
"""The groups of weights and optimiser state in a file of ``model.save``; ``save_weights`` writes at the top."""
PLAIN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
"""Filters that are part of HDF5; any other is a plug-in, loaded from the file system."""
TOP_LEVEL = "top_level_model_weights"
"""Weights of the model itself, beside those of its layers."""
CONFIG = "model_config"
CODE = "Lambda"
"""A layer that is a pickled function."""
VARIABLES, TRAINING = "vars", ("optimizer", "metrics", "compile_metrics")
"""The later formats' group of a layer's variables, and groups that are not the network's."""
MEMBER, MEMBER_CONFIG = "model.weights.h5", "config.json"
"""Members of a ``.keras`` archive."""
MAX_CONFIG = 64 << 20
MAX_GROUPS = 1 << 16
MAX_PARTS = 100
"""Keras cuts a list of names that is too long for HDF5 into ``layer_names0``, ``layer_names1``, …"""
NORM_ENDS = ("gamma:0", "beta:0")
UNIT_TENSORS, TAIL = 9, {2: False, 4: True}
"""Tensors of a unit without projection; of the end of the network, without a head and with one."""
BESIDE_KERNEL = 3
"""The place of a kernel in a unit that has its projection beside its first kernel."""


class KerasReader(TensorFile):
    """A Keras ``.h5`` file under the whole names of the ``keras`` column."""

    format = "keras-h5"
    scheme = "keras"
    looked_for = "Keras weights (.h5)"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(SIGNATURE)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size = path.stat().st_size
        self._opened = ExitStack()
        self.dropped: dict[str, str] = {}
        try:
            with reading(self.path, "the file"):
                self._file = self._open_file(path)
            with reading(self.path, "the list of weights"):
                self._refuse_code()
                found = {f"{place}": weight for place, weight in enumerate(self._weights())}
            self._refuse_bomb([dataset for *_, dataset in found.values()])
            arrange = arranged if self.format == KerasReader.format else numbered
            names, self._made = arrange(found, self.path)
            self.dropped |= MADE if self._made else {}
            self._datasets = {names[place]: dataset for place, (*_, dataset) in found.items() if place in names}
            self.shapes = {name: tuple(dataset.shape) for name, dataset in self._datasets.items()} | self._made
            if self.format != KerasReader.format:
                self._refuse_contradiction()
        except BaseException:
            self.close()
            raise

    def _open_file(self, path: Path) -> Any:
        return self._opened.enter_context(_h5py().File(path, "r", locking=False))

    def close(self) -> None:
        self._opened.close()

    def read(self, name: str) -> Array:
        if name in self._made:
            return np.zeros(self._made[name], np.float32)
        with reading(self.path, name):
            values: Array = self._datasets[name][()]
        return as_float32(values, self.path, name)

    def _weights(self) -> Iterator[tuple[str, str, Any]]:
        """(layer, weight, dataset) in the order in which Keras loads them, without a training's state."""
        root = self._file
        if MODEL_WEIGHTS in root:
            root = self._follow(root, MODEL_WEIGHTS)
            if OPTIMIZER_WEIGHTS in self._file:
                self.dropped[OPTIMIZER_WEIGHTS] = "the optimiser's state, not the network's"
        is_named = any(name.startswith("layer_names") for name in root.attrs)
        for count, (layer, weight, dataset) in enumerate((self._named if is_named else self._numbered)(root)):
            if count >= MAX_TENSORS:
                raise CheckpointError(f"{self.path}: more than {MAX_TENSORS} tensors, more than any BiT has.")
            if self._is_state(dataset) and not words(weight, self.scheme):
                self.dropped[f"{layer}/{weight}"] = NO_WEIGHT
            else:
                yield layer, weight, self._dataset(dataset, f"{layer}/{weight}")

    def _named(self, root: Any) -> Iterator[tuple[str, str, Any]]:
        """Those of a file that lists them."""
        layers = self._names(root, "layer_names")
        for layer in [*layers, *([TOP_LEVEL] if TOP_LEVEL in root and TOP_LEVEL not in layers else [])]:
            group = self._follow(root, layer)
            if not isinstance(group, _h5py().Group):
                raise ValueError(f"{layer} is no layer")
            yield from ((layer, weight, self._follow(group, weight)) for weight in self._names(group, "weight_names"))

    def _numbered(self, root: Any) -> Iterator[tuple[str, str, Any]]:
        """Those of the later formats: the variables of each layer in their order."""
        self.format = "keras-v3"
        layers = list(self._layers(root, "", set()))
        if not any(len(variables) for _, variables in layers):
            raise CheckpointError(
                f"{self.path}: an HDF5 file without layer_names: not Keras weights, or those of Keras 3.\n"
                f"Looked for {self.looked_for} of tf.keras; it holds {', '.join(sorted(root)[:3]) or 'nothing'}."
            )
        self.dropped |= {name: "the training's state, not the network's" for name in TRAINING if name in root}
        for layer, variables in layers:
            for number in sorted(islice(variables, MAX_TENSORS + 1), key=lambda name: (len(name), name)):
                variable = self._follow(variables, number)
                if isinstance(variable, _h5py().Dataset):
                    yield layer, number, variable

    @staticmethod
    def _is_state(dataset: Any) -> bool:
        """Whether it is a seed or a counter: integers, of at most one dimension."""
        return isinstance(dataset, _h5py().Dataset) and dataset.dtype.kind in "iu" and len(dataset.shape or ()) < 2

    def _layers(self, group: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
        """(layer, the group of its variables), of every layer below ``group``."""
        for name in group:
            if (name in TRAINING and not path) or not isinstance(group.get(name, getlink=True), _h5py().HardLink):
                continue
            below = group[name]
            if not isinstance(below, _h5py().Group) or hash(below.id) in seen:
                continue
            seen.add(hash(below.id))
            if len(seen) > MAX_GROUPS:
                raise ValueError(f"more than {MAX_GROUPS} groups")
            if name == VARIABLES:
                yield path or name, below
            else:
                yield from self._layers(below, f"{path}/{name}".removeprefix("/"), seen)

    def _config(self) -> str:
        """The description of a whole model, or nothing."""
        config = self._file.attrs.get(CONFIG, "")
        return config.decode() if isinstance(config, bytes) else str(config)

    def _refuse_code(self) -> None:
        """A Lambda layer is a function that was pickled: what it computes is not known, and it is never run."""

        def refuse(layer: dict[str, Any]) -> dict[str, Any]:
            if layer.get("class_name") == CODE:
                name = str((layer.get("config") or {}).get("name", ""))[:60]
                raise CheckpointError(
                    f"{self.path}: its layer {name} is a Lambda, Python code that is never run.\n"
                    "Save the model without it, or as a SavedModel: model.save(FOLDER, save_format='tf')."
                )
            return layer

        if text := self._config():
            json.loads(text, object_hook=refuse)

    def _refuse_contradiction(self) -> None:
        """Without names nothing but the values tells scales, which begin at one, from biases, which begin at zero."""
        scales, biases = (
            [self.read(name).mean() for name in self._datasets if name.endswith(end)] for end in NORM_ENDS
        )
        if not sum(map(float, scales)) > sum(map(float, biases)):
            raise CheckpointError(
                f"{self.path}: its variables are numbered, and not in the order of Google's network.\n" + _SAVE_NAMES
            )

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
        """Follows ``path`` below ``group``, over hard links alone: no other file, no detour through the same."""
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
        """Refuses chunks larger than their tensor: a whole chunk is unpacked at once."""
        chunks = (math.prod(dataset.chunks or ()) * dataset.dtype.itemsize for dataset in datasets)
        claimed = max(sum(dataset.nbytes for dataset in datasets), *chunks, 0)
        if claimed > bounded(self._size):
            raise CheckpointError(
                f"{self.path}: {self._size} bytes that claim to expand to {claimed}: a bomb, not a checkpoint.\n"
                "Download it again."
            )


Weight = tuple[str, str, Any]
"""Layer, name, dataset."""
Found = Mapping[str, Weight]
"""The weights of a file by their places, "0", "1", …, in order."""
Arranged = tuple[dict[str, str], dict[str, Shape]]
"""Place of a weight → its name in the table; name → shape, of what is made as zeros."""


def arranged(found: Found, where: str) -> Arranged:
    """The whole name of each weight. Raises CheckpointError for one that does not belong, or not there."""
    named = _by_name(found)
    head = _head(found, named, where)
    rest = {place: weight for place, weight in found.items() if head is None or place not in (head.kernel, head.bias)}
    try:
        names = dict(zip(rest, _assign(list(rest.values()), where), strict=True))
    except CheckpointError:
        if len({layer for layer, *_ in rest.values()}) > 1 or named.keys() != rest.keys():
            raise
        names = named
    return _with_head(names, head)


def _with_head(names: dict[str, str], head: Dense | None) -> Arranged:
    own, made = head.named(KerasReader.scheme) if head else ({}, {})
    return names | own, made


def _shapes(found: Found) -> dict[str, Shape]:
    return {place: tuple(dataset.shape) for place, (*_, dataset) in found.items()}


def _by_name(found: Found) -> dict[str, str]:
    """Place → name in the table, of the weights below the head whose own names are whole."""
    spelt = ({place: name for place, (_, name, _) in found.items()},
             {place: f"{layer}/{name}" for place, (layer, name, _) in found.items()})  # fmt: skip
    return max((trunk(names, KerasReader.scheme) for names in spelt), key=len)


def _head(found: Found, named: Mapping[str, str], where: str) -> Dense | None:
    """The Dense layer beside the network: by names where those are whole, else the only matrix."""
    shapes = _shapes(found)
    features = features_of(named, shapes, KerasReader.scheme)
    if features is not None:
        rest = {place: shape for place, shape in shapes.items() if place not in named}
        words = {place: {found[place][1].rpartition("/")[2].partition(":")[0]} for place in rest}
        return head_among(rest, words, features, where, {place: found[place][1] for place in rest})
    matrices = [place for place, shape in shapes.items() if len(shape) == 2]
    if len(matrices) != 1:
        return None
    (kernel,) = matrices
    after = f"{int(kernel) + 1}"
    classes = shapes[kernel][-1]
    is_bias = shapes.get(after) == (classes,) and found[after][0] == found[kernel][0]
    return Dense(kernel, after if is_bias else None, classes)


def numbered(found: Found, where: str) -> Arranged:
    """The name of each weight of a file that numbers the variables of each layer."""
    layers: dict[str, list[str]] = {}
    for place, (layer, *_) in found.items():
        layers.setdefault(layer, []).append(place)
    largest = max(layers.values(), key=len)
    shapes = _shapes(found)
    for names in _orders([shapes[place] for place in largest]):
        named = dict(zip(largest, names, strict=True))
        try:
            network = infer({name: shapes[place] for place, name in named.items()}, KerasReader.scheme, where)
        except CheckpointError:
            continue
        rest = {place: shape for place, shape in shapes.items() if place not in named}
        shown = {place: "/".join(found[place][:2]) for place in rest}
        return _with_head(named, head_among(rest, {}, network.features, where, shown))
    raise CheckpointError(
        f"{where}: Keras 3 and tf_keras's later formats number a layer's variables; its {len(found)} are not in the "
        f"order of Google's network.\n{_SAVE_NAMES}"
    )


_SAVE_NAMES = "Save the model in a format that keeps names: model.save(FOLDER, save_format='tf')."


def _orders(shapes: Sequence[Shape]) -> Iterator[list[str]]:
    """Names in the table in the orders that BiT's variables are known in, each if it may fit: Keras's, that of the
    released npz files, and the alphabet's."""
    with suppress(CheckpointError):
        units, head = _structure(shapes, "")
        if not head:
            yield _keras_names(units, None)
    for first in (1, 0):
        units, _ = _units(shapes, first, BESIDE_KERNEL)
        if units:
            names = [parameter.names["keras"] for parameter in parameters(Architecture.regular(units, GROUPS, None))]
            if len(names) == len(shapes):
                yield names if first else sorted(names)


def _units(shapes: Sequence[Shape], first: int, projection: int) -> tuple[tuple[int, ...], int]:
    """Units per block, and where they end: the first begins at ``first``, and the first of each block has a kernel more
    than the others, in its place ``projection``."""
    units: list[int] = []
    at, ranks = first, [*map(len, shapes), 0]
    while len(shapes) - at >= UNIT_TENSORS:
        if ranks[at + projection] == 4:
            units.append(1)
            at += 1
        elif units:
            units[-1] += 1
        else:
            break
        at += UNIT_TENSORS
    return tuple(units), at


def _keras_names(units: tuple[int, ...], classes: int | None) -> list[str]:
    """In Keras's order: that of the released files, but the projection at the end of its unit."""
    names: list[str] = []
    projection: list[str] = []
    for parameter in parameters(Architecture.regular(units, GROUPS, classes)):  # names do not depend on widths
        (projection if PROJECTION in parameter.canonical else names).append(parameter.names["keras"])
        if parameter.canonical.endswith("c/conv/kernel"):
            names += projection
            projection = []
    return names


def _assign(found: Sequence[Weight], where: str) -> list[str]:
    """The whole name of each tensor, by its place. Raises CheckpointError where its own names or shape contradict."""
    units, head = _structure([tuple(dataset.shape) for *_, dataset in found], where)
    names = _keras_names(units, 1 if head else None)
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
    units, at = _units(shapes, 1, UNIT_TENSORS)
    if not units or len(shapes) - at not in TAIL:
        raise CheckpointError(
            f"{where}: not a BiT checkpoint: its {len(shapes)} weights are not a root, units of nine or ten, a "
            "norm and a head.\nLooked for the order of big_transfer's bit_tf2 network."
        )
    return units, TAIL[len(shapes) - at]


def _is_within(said: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words stand in a whole name, in that order."""
    rest = iter(whole)
    return all(word in rest for word in said)


class KerasArchiveReader(KerasReader):
    """A ``.keras`` archive of tf_keras: its weights, whose variables are numbered. Its configuration builds nothing."""

    looked_for = "a Keras archive (.keras)"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        return head.startswith(FIRST_BYTES[0]) and MEMBER in (member_names(path) or ())

    def _open_file(self, path: Path) -> Any:
        self._archive = self._opened.enter_context(open_zip(path))
        member = self._archive.getinfo(MEMBER)
        if member.file_size > bounded(self._size):
            raise ValueError("its weights claim to be larger than the file can hold")
        return self._opened.enter_context(_h5py().File(self._opened.enter_context(self._archive.open(member)), "r"))

    def _config(self) -> str:
        if MEMBER_CONFIG not in self._archive.namelist():
            return ""
        with self._archive.open(MEMBER_CONFIG) as config:
            return config.read(MAX_CONFIG).decode()


class KerasSource(SourceApart):
    """An ``.h5`` file, read by KerasReader."""

    reader, looked_for = KerasReader, KerasReader.looked_for


class KerasArchive(SourceApart):
    """A ``.keras`` archive, read by KerasArchiveReader."""

    reader, looked_for = KerasArchiveReader, KerasArchiveReader.looked_for


def _h5py() -> Any:
    import h5py

    return h5py
