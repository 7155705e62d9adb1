"""Reads what torch.save wrote: ``pytorch_model.bin``, one file or a Hub folder's shards, or a training's checkpoint.

Both of its formats: the zip archive, and the one before PyTorch 1.6, of pickles and values one after the other. The
pickles are read as data (``torch_pickle``), the values straight from the file, one tensor at a time, without PyTorch.

    file → pickles, and where each storage's values begin → the network's tensors (``training``) → ``read`` seeks
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError
from converters.files import TORCH_INDEX, TORCH_WEIGHTS, is_macos_metadata
from converters.reading import reading
from converters.sources.npz import is_torch_archive
from converters.sources.shards import SIZES, ByteOrder, ShardedSource, StoredTensor, span
from converters.sources.torch_pickle import MAX_PICKLE, Forbidden, Reading, Tensor, TorchStorage, shown
from converters.sources.training import state_dict
from converters.sources.zips import data_start, open_zip

ZIP, PICKLE = b"PK\x03\x04", "data.pkl"
SAVE_ALONE = "Download it again, or save the network's state_dict() alone with torch.save."
BYTE_ORDERS: Mapping[bytes, ByteOrder] = {b"little": "<", b"big": ">"}
LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
"""The first two pickles of the older format."""
MAGIC_BYTES, MAGIC_WITHIN = LEGACY_MAGIC.to_bytes(10, "little"), 16
"""The first pickle's value, and the bytes of the file that it lies in, whichever the pickle's protocol."""
COUNT = struct.Struct("<q")
"""In the older format a storage begins with its number of values; all is little-endian."""


@dataclass(frozen=True)
class TorchContent:
    """A file's pickled value, where the values of each storage begin, by its key, and their byte order."""

    value: Any
    starts: Mapping[str, int]
    order: ByteOrder


class TorchBinSource(ShardedSource):
    """``pytorch_model.bin`` of a folder, whole or in shards, or a single file that torch.save wrote.

    A single file may be a training's checkpoint, of which the network is found.
    """

    format = "torch-bin"
    looked_for = "a model folder (pytorch_model.bin) or a file that torch.save wrote"

    weights, index = TORCH_WEIGHTS, TORCH_INDEX
    schemes = ("transformers", "timm", "original")

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        if path.is_dir():
            return cls.holds(path)
        zipped = head.startswith(ZIP) and is_torch_archive(path)
        return path.name == TORCH_INDEX or zipped or MAGIC_BYTES in head[: MAGIC_WITHIN + len(MAGIC_BYTES)]

    def _load(self, file: Path) -> Mapping[str, StoredTensor]:
        with reading(file, "the list of its tensors", SAVE_ALONE), _refusing_more(file):
            size = file.stat().st_size
            with file.open("rb") as stream:
                zipped = stream.read(len(ZIP)) == ZIP
            content = (_archive if zipped else _legacy)(file, size)
            value = content.value
            if isinstance(value, dict) and value and all(isinstance(tensor, Tensor) for tensor in value.values()):
                tensors = value
            else:
                self.is_training = True
                tensors, self.dropped = state_dict(value, self.schemes, str(file))
            if not all(isinstance(name, str) for name in tensors):
                raise ValueError("it has tensors without names")
            _refuse_claims(tensors, size)
        return {name: _stored(file, tensor, content) for name, tensor in tensors.items()}


@contextmanager
def _refusing_more(file: Path) -> Iterator[None]:
    try:
        yield
    except Forbidden as error:
        raise CheckpointError(
            f"{file}: not a file of weights alone: {error}.\n"
            "Load it where you trust it, and save the network's state_dict() alone with torch.save."
        ) from error


def _stored(file: Path, tensor: Tensor, content: TorchContent) -> StoredTensor:
    dtype = tensor.storage.dtype
    start = content.starts[tensor.storage.key] + tensor.offset * SIZES[dtype]
    return StoredTensor(file, dtype, tensor.shape, start, tensor.strides, content.order)


def _refuse_claims(tensors: Mapping[str, Tensor], size: int) -> None:
    """Views may share a storage, and be larger than it by strides of zero."""
    if sum(math.prod(tensor.shape) * SIZES[tensor.storage.dtype] for tensor in tensors.values()) > size:
        raise ValueError("its tensors claim more bytes than the file has")
    for name, tensor in tensors.items():
        length = span(tensor.shape, tensor.strides)
        if length and tensor.offset + length > tensor.storage.count:
            raise ValueError(f"{name[:120]} is larger than its storage")


def _archive(file: Path, size: int) -> TorchContent:
    with open_zip(file) as archive:
        members = {m.filename: m for m in archive.infolist() if not is_macos_metadata(m.filename)}
        _refuse_packed(archive, size)
        found = [name for name in members if name.endswith(".pkl")]
        if len(found) != 1 or not found[0].endswith(PICKLE):
            raise ValueError("it has not the one pickle that torch.save writes for a state dict")
        if members[found[0]].file_size > MAX_PICKLE:
            raise ValueError(f"a pickle of {members[found[0]].file_size} bytes, more than any network has")
        folder = found[0].removesuffix(PICKLE)
        pickles = Reading(archive.read(found[0]))
        value = pickles.value()
        order = archive.read(folder + "byteorder") if folder + "byteorder" in members else b"little"
        if order not in BYTE_ORDERS:
            raise ValueError("its values are of an unknown byte order")
        with file.open("rb") as stream:
            starts = {}
            for key, storage in pickles.storages.items():
                member = members.get(f"{folder}data/{key}")
                if member is None or member.file_size < _bytes(storage):
                    raise ValueError(f"the values of its storage {key[:40]} are missing or cut short")
                starts[key] = data_start(stream.fileno(), member)
    return TorchContent(value, starts, BYTE_ORDERS[order])


def _refuse_packed(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    packed = any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members)
    if packed or sum(m.file_size for m in members) > size:
        raise ValueError("its members are packed, or more than any network has")
    damaged = archive.testzip()
    if damaged:
        raise ValueError(f"its member {damaged[:120]} does not agree with its CRC")


def _legacy(file: Path, size: int) -> TorchContent:
    """magic number, version, the writer's platform, the value, the storages' keys; then the storages, in that order."""
    with file.open("rb") as stream:
        pickles = Reading(stream.read(MAX_PICKLE))
        magic, version, _, value, keys = (pickles.value() for _ in range(5))
        if (magic, version) != (LEGACY_MAGIC, LEGACY_VERSION) or not isinstance(keys, list):
            raise ValueError("it is no file of torch.save")
        starts, place = {}, pickles.position
        for key in keys:
            storage = pickles.storages.get(key) if isinstance(key, str) else None
            stream.seek(place)
            if storage is None or COUNT.unpack(stream.read(COUNT.size)) != (storage.count,):
                raise ValueError(f"its storage {shown(key)} is not as long as it says")
            starts[key] = place + COUNT.size
            place = starts[key] + _bytes(storage)
        if place != size or starts.keys() != pickles.storages.keys():
            raise ValueError(f"its values end at {place}, the file at {size}")
    return TorchContent(value, starts, BYTE_ORDERS[b"little"])


def _bytes(storage: TorchStorage) -> int:
    return storage.count * SIZES[storage.dtype]
