"""Reads safetensors: one file, or a Hub folder's shards with their index.

The header's claims are checked before anything is reserved: it may not be longer than the file, and its tensors must
fill the rest of the file end to end, each with as many bytes as its shape and dtype take
(https://github.com/huggingface/safetensors).

    (index →) files → header → names, shapes, offsets → ``read`` seeks
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.files import INDEX, WEIGHTS, parse_json, refuse_special
from converters.reading import reading
from converters.sources.base import MAX_RANK, is_text, listing_bound
from converters.sources.shards import SIZES, ShardedSource, StoredTensor

LENGTH = struct.Struct("<Q")
METADATA = "__metadata__"
ROW = len('"":{"dtype":"F8_E4M3","shape":[,,,],"data_offsets":[,]},') + 6 * len(str(1 << 63))
"""Bytes of a header that a tensor takes beside its name: the format's own words and six numbers."""


class SafetensorsSource(ShardedSource):
    """``model.safetensors`` of a folder, whole or in shards, or a single file."""

    format = "safetensors"
    looked_for = "a model folder (model.safetensors)"

    weights, index = WEIGHTS, INDEX
    schemes = ("transformers", "timm", "original", "npz", "tf2", "big_vision")

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        if path.is_dir():
            return cls.holds(path)
        return path.name == INDEX or head[LENGTH.size :].startswith(b"{")

    def _load(self, file: Path) -> dict[str, StoredTensor]:
        return tensors_of(file)


def tensors_of(file: Path) -> dict[str, StoredTensor]:
    """Name → tensor of one file. Raises CheckpointError where its header is not that of a whole, safe one."""
    with reading(file, "its header"):
        size = file.stat().st_size
        header, start = _header(file, size)
        tensors = {name: _tensor(file, name, entry, start, size) for name, entry in header.items() if name != METADATA}
        _refuse_gaps(tensors, start, size)
    return tensors


def metadata_of(file: Path) -> dict[str, str]:
    """The texts beside the tensors of a file that ``tensors_of`` has read."""
    return _header(file, file.stat().st_size)[0].get(METADATA) or {}


def _header(file: Path, size: int) -> tuple[dict[str, Any], int]:
    """Returns what a file says of its tensors, and where their values begin."""
    refuse_special(file)
    with file.open("rb") as stream:
        (length,) = LENGTH.unpack(stream.read(LENGTH.size))
        if length > min(listing_bound(ROW), size - LENGTH.size):
            raise ValueError(f"it claims {length} bytes, more than there are or any BiT needs")
        header = parse_json(stream.read(length))
    _refuse_metadata(header.get(METADATA))
    if not all(map(is_text, header)):
        raise ValueError("a name in it is no text")
    return header, LENGTH.size + length


def _tensor(file: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:120]} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in list(SIZES) or not _are_numbers(shape, size, MAX_RANK) or not _are_numbers(offsets, size, 2):
        raise ValueError(f"{name[:120]} has an unknown dtype or odd numbers")
    begin, end = offsets
    if end - begin != math.prod(shape) * SIZES[dtype]:
        raise ValueError(f"{name[:120]} of shape {tuple(shape)} does not take the bytes it has")
    strides = tuple(math.prod(shape[axis:]) for axis in range(1, len(shape) + 1))
    return StoredTensor(file, dtype, tuple(shape), start + begin, strides)


def _are_numbers(values: Any, size: int, most: int) -> bool:
    """Whether it is a list of at most ``most`` numbers, none larger than a file of ``size`` bytes could bear out."""
    return isinstance(values, list) and len(values) <= most and all(type(n) is int and 0 <= n <= size for n in values)


def _refuse_metadata(metadata: Any) -> None:
    """The format's own library opens no file whose metadata is anything but texts."""
    texts = [*metadata, *metadata.values()] if isinstance(metadata, dict) else [] if metadata is None else [metadata]
    if not all(isinstance(text, str) and is_text(text) for text in texts) or isinstance(metadata, str):
        raise ValueError("its __metadata__ holds something else than texts")


def _refuse_gaps(tensors: Mapping[str, StoredTensor], start: int, size: int) -> None:
    end = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, math.prod(tensor.shape))):
        if tensor.offset != end:
            raise ValueError("its tensors overlap or leave gaps")
        end += math.prod(tensor.shape) * SIZES[tensor.dtype]
    if end != size:
        raise ValueError(f"its tensors end at {end}, the file at {size}")
