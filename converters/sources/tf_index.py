"""The index of a TensorFlow checkpoint, looked at before TensorFlow is: it ends the whole process where an entry is not
as it would have written it, and reserves what the index claims.

A table as LevelDB has it (tensorflow/core/lib/io/table_format.txt), written without compression: footer → block of
handles → blocks of entries → key, BundleEntryProto. Checksums are TensorFlow's own affair.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from converters.sources.base import MAX_NAME, MAX_RANK, MAX_TENSORS
from verify.tensorflow import read_varint

FOOTER, MAGIC = 48, struct.pack("<Q", 0xDB4775248B80FB57)
TRAILER = 5
"""Bytes behind a block: how it is compressed, and its checksum."""
COUNT = struct.Struct("<I")
REFERENCES = 101
"""The first of the types that no value has (tensorflow/core/framework/types.proto)."""


def refuse_odd_index(file: Path, real: int) -> None:
    """Raises ValueError, or protobuf's DecodeError, for an index that is not one of tensors in ``real`` bytes."""
    from tensorflow.core.framework.types_pb2 import DataType
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    entries = list(_entries(file.read_bytes()))
    if not entries or entries[0][0] or not 0 < BundleHeaderProto.FromString(entries[0][1]).num_shards <= MAX_TENSORS:
        raise ValueError("it has no header")
    claimed = 0
    for key, value in entries[1:]:
        name, entry = key.decode()[:120], BundleEntryProto.FromString(value)
        sizes = [dim.size for dim in entry.shape.dim]
        if entry.slices or not key:
            raise ValueError(f"{name} is in slices, or has no name")
        if not 0 < entry.dtype < REFERENCES or entry.dtype not in DataType.values():
            raise ValueError(f"{name} is of an unknown type")
        numbers = [*sizes, entry.offset, entry.size, entry.shard_id]
        if entry.shape.unknown_rank or len(sizes) > MAX_RANK or min(numbers) < 0:
            raise ValueError(f"{name} has an odd shape or place")
        claimed += max(math.prod(sizes), entry.size)
        if max(*numbers, claimed) > real:
            raise ValueError(f"cut short: with {name}, its tensors have more bytes than there are")


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every entry, in the order of the file, which is that of the keys."""
    if len(content) < FOOTER or not content.endswith(MAGIC):
        raise ValueError("it is cut short, or none")
    place = _handle(content, len(content) - FOOTER)[1]  # after the handle of the block of metadata
    before = None
    for _, handle in _block(content, _handle(content, place)[0]):
        for key, value in _block(content, _handle(handle, 0)[0]):
            if before is not None and key <= before:
                raise ValueError("its keys are out of order")
            before = key
            yield key, value


def _block(content: bytes, block: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block; a key has only what it does not share with the one before."""
    start, size = block
    if size < COUNT.size or start + size + TRAILER > len(content) or content[start + size]:
        raise ValueError("a block of it is elsewhere, or compressed")
    (restarts,) = COUNT.unpack_from(content, start + size - COUNT.size)
    end = start + size - COUNT.size * (1 + restarts)
    place, key = start, b""
    for _ in range(MAX_TENSORS):
        if place == end:
            return
        shared, place = read_varint(content, place)
        own, place = read_varint(content, place)
        length, place = read_varint(content, place)
        if shared > len(key) or shared + own > MAX_NAME or place + own + length > end:
            raise ValueError("an entry of it is longer than its block")
        key = key[:shared] + content[place : place + own]
        yield key, content[place + own : place + own + length]
        place += own + length
    raise ValueError(f"more than {MAX_TENSORS} tensors")


def _handle(content: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where the handle ends."""
    offset, place = read_varint(content, place)
    size, place = read_varint(content, place)
    return (offset, size), place
