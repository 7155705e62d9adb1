"""Reads ``.npz`` checkpoints: names and shapes first, values one tensor at a time, never a pickle.

Any valid archive is read, whoever wrote it (``sources.zips``). Nothing a header claims is believed before the file's
real bytes bear it out: members may not overlap or leave the file, a tensor must fill its member exactly, and all
tensors together may be only so much larger than the file. The CRC of every member is checked when it is read.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, Any, Literal, cast

import numpy as np
from zlib_ng.zlib_ng import crc32

from converters.digests import remember_file, remembered_sha256, state_of
from converters.errors import CheckpointError
from converters.files import is_macos_metadata
from converters.mapping.dtypes import widened
from converters.mapping.names import nearest
from converters.mapping.tiles import Tile, empty_tiles
from converters.reading import reading
from converters.sources.base import (
    MAX_RANK,
    Array,
    Shape,
    TensorFile,
    as_float32,
    bounded,
    meanwhile,
    not_finite,
    refuse_names,
)
from converters.sources.checksummed_read import ChecksummedRead
from converters.sources.zips import FIRST_BYTES, data_start, first_name, member_names, open_zip

SUFFIX = ".npy"
MAX_HEADER = 256
"""Bytes of an npy header; those of floats have 118. Each is parsed as an expression of Python, which takes time."""
CHUNK = 1 << 20
FLOAT32 = np.dtype("<f4")
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
"""3.0 differs from 2.0 in the encoding of field names, which floats have none of."""
BFLOAT16 = np.dtype("V2")
"""NumPy saves JAX's bfloat16 as two bytes without a type (big_vision utils.py, recover_dtype)."""
TORCH_PICKLE = "/data.pkl"


@dataclass(frozen=True)
class Member:
    """The place of one tensor: archive entry, shape, order, the npy header before its values, and these in the file."""

    info: zipfile.ZipInfo
    shape: Shape
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    header: bytes
    start: int

    @property
    def is_plain(self) -> bool:
        """Whether the file's bytes are those of a float32 array in memory."""
        stored = self.info.compress_type == zipfile.ZIP_STORED
        return stored and self.dtype == FLOAT32 and self.order == "C" and 0 not in (*self.shape, len(self.shape))

    @property
    def is_counter(self) -> bool:
        return self.dtype.kind in "iu" and self.shape == ()

    def compare_crc(self, crc: int) -> None:
        """Raises ValueError where the archive's is another."""
        if crc != self.info.CRC:
            raise ValueError("its CRC differs")


class NpzSource(TensorFile):
    """An ``.npz`` file: Google's released ones, big_vision's, or any that NumPy saved under names of the table."""

    format = "npz"
    looked_for = "an .npz file (a zip archive of .npy members)"

    @classmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        if not head.startswith(FIRST_BYTES):  # an archive may have other data before it, which only its name tells
            return bool(head) and path.suffix == ".npz" and member_names(path) is not None
        return not is_torch_archive(path)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._size = path.stat().st_size
        with reading(self.path, "the archive"):
            self._archive = open_zip(path)
        try:
            self._handle = cast(IO[bytes], self._archive.fp).fileno()
            entries = self._entries()
            refuse_names(entries, self.path)
            self._members = {name: self._member(name, *entry) for name, entry in entries.items()}
        except BaseException:
            self._archive.close()
            raise
        self.shapes = {name: member.shape for name, member in self._members.items()}
        self.counters = [name for name, member in self._members.items() if member.is_counter]
        self._used: Collection[str] = self._members
        self.scheme = nearest(self._members)

    def close(self) -> None:
        self._archive.close()

    def select(self, names: Collection[str]) -> None:
        for name in names:
            self._refuse_other_values(name)
        self._used = names

    def _refuse_other_values(self, name: str) -> None:
        dtype = self._members[name].dtype
        if dtype.kind != "f" and dtype != BFLOAT16:
            what = "Python objects, which are never unpickled" if dtype.hasobject else str(dtype)
            raise CheckpointError(f"{self.path}: {name} holds {what}, not float32. Save it as float32.")

    def read(self, name: str) -> Array:
        tensor = self._members[name]
        self._refuse_other_values(name)
        if tensor.is_plain:
            return self._read_plain(name, tensor)
        values = np.empty(math.prod(tensor.shape), tensor.dtype)
        view = values.view(np.uint8).data
        with reading(self.path, name), cast(zipfile.ZipExtFile, self._archive.open(tensor.info)) as member:
            member.read(len(tensor.header))
            filled = 0
            while filled < len(view):
                # readinto, not read: no second copy of the tensor in memory
                count = member.readinto(view[filled : filled + CHUNK])
                if not count:
                    raise EOFError("its data ends early")
                filled += count
            if member.read(1):  # reaching the end also makes zipfile compare the CRC
                raise ValueError("its data goes on past its shape")
        if tensor.dtype == BFLOAT16:
            values = widened(values.view(np.uint16), "bfloat16")
        return as_float32(values.reshape(tensor.shape, order=tensor.order), self.path, name)

    def _read_plain(self, name: str, tensor: Member) -> Array:
        values = np.empty(tensor.shape, FLOAT32)
        view = values.reshape(-1).view(np.uint8).data
        with reading(self.path, name):
            _read_into(self._handle, view, tensor.start)
            tensor.compare_crc(crc32(view, crc32(tensor.header)))
        return as_float32(values, self.path, name)

    def tiles(self, name: str, most: int) -> Iterator[Tile]:
        """Straight from the file, not checked; see ``checking``."""
        tensor = self._members[name]
        if not tensor.is_plain:
            yield from super().tiles(name, most)
            return
        *window, inputs, outputs = tensor.shape
        filled: Array | None = None
        for tile in empty_tiles(inputs, math.prod(window), outputs, most, FLOAT32):
            if tile.values is not filled:
                filled = tile.values
                rows = [[row.view(np.uint8).data for row in filled[:, w]] for w in range(filled.shape[1])]
            with reading(self.path, name):
                for w, some in enumerate(rows):
                    value = (w * inputs + tile.inputs.start) * outputs + tile.rows.start
                    place = tensor.start + value * FLOAT32.itemsize
                    _read_rows(self._handle, some, place, outputs * FLOAT32.itemsize)
            yield tile

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Reads the whole file in a thread of its own: the CRC of its members, NaN and Inf, and ``sha256`` unless that
        is remembered, as of a file that was downloaded."""
        before, state = os.fstat(self._handle), state_of(self._handle)
        known = remembered_sha256(Path(self.path), state)
        with meanwhile(partial(self._check_whole, hashed=not known)) as check:
            yield
            self.sha256 = check.result() or known
        after = os.fstat(self._handle)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise CheckpointError(f"{self.path}: was changed while it was read. Convert it again.")
        if not known:
            remember_file(Path(self.path), self.sha256, state)

    def _check_whole(self, stopped: Event, hashed: bool) -> str:
        """The file's sha256, if ``hashed``. Raises what nobody asks for once ``stopped``."""
        plain = {name: member for name, member in self._members.items() if member.is_plain}
        with ChecksummedRead(self._handle, hashed, stopped) as whole:
            for name, member in sorted(plain.items(), key=lambda item: item[1].start):
                crc, finite = crc32(member.header), True
                with reading(self.path, name):
                    for _ in whole.until(member.start):
                        pass
                    for piece in whole.until(member.start + math.prod(member.shape) * FLOAT32.itemsize):
                        crc = crc32(piece, crc)
                        finite = finite and bool(np.isfinite(np.frombuffer(piece, FLOAT32)).all())
                    member.compare_crc(crc)
                if not finite and name in self._used:
                    raise not_finite(self.path, name)
            return whole.hexdigest() if hashed else ""

    def _entries(self) -> dict[str, tuple[zipfile.ZipInfo, int]]:
        """Tensor → its entry, and where its bytes begin. Folders, and what macOS puts beside files, are passed over;
        other files, a README say, are left out."""
        infos = self._archive.infolist()
        if not infos:
            raise CheckpointError(f"{self.path}: an empty archive, without any tensor. Download it again.")
        if not any(info.filename.endswith(SUFFIX) for info in infos):
            raise CheckpointError(
                f"{self.path}: a zip archive of {infos[0].filename[:120]!r}, without any {SUFFIX} member.\n"
                "Unpack it, and give the file or folder inside."
            )
        starts = self._starts(infos)
        self._refuse_bomb(infos)
        entries: dict[str, tuple[zipfile.ZipInfo, int]] = {}
        other: dict[str, str] = {}
        for info in infos:
            if is_macos_metadata(info.filename) or (info.is_dir() and info.file_size == 0):
                continue
            name = info.filename.removesuffix(SUFFIX)
            if name in entries:
                raise CheckpointError(f"{self.path}: two tensors of the name {name}. Download it again.")
            if ".." in name.split("/") or name.startswith("/") or "\\" in name or self._is_misnamed(info):
                raise CheckpointError(
                    f"{self.path}: member {info.filename[:120]!r} has no tensor's name. Remove it or download it again."
                )
            if name == info.filename:
                other[name] = "not a tensor"
                continue
            if info.flag_bits & 0x1 or info.compress_type not in METHODS:
                raise CheckpointError(
                    f"{self.path}: {name} is encrypted or not {' or '.join(METHODS.values())}. Save it with np.savez."
                )
            entries[name] = info, starts[info.header_offset]
        if not entries:
            raise CheckpointError(
                f"{self.path}: not a BiT checkpoint: none of its {len(infos)} members is an .npy array."
            )
        self.dropped = other
        return entries

    def _is_misnamed(self, info: zipfile.ZipInfo) -> bool:
        """Whether a member without the suffix holds an array all the same, as one whose name was damaged does."""
        if info.filename.endswith(SUFFIX) or info.compress_type not in METHODS or info.flag_bits & 0x1:
            return False
        with reading(self.path, info.filename), self._archive.open(info) as file:
            return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX

    def _starts(self, infos: list[zipfile.ZipInfo]) -> dict[int, int]:
        """Returns each member's header's place → its bytes' place. Raises CheckpointError where two overlap."""
        starts: dict[int, int] = {}
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise CheckpointError(f"{self.path}: {info.filename} overlaps another member. Download it again.")
            with reading(self.path, info.filename):
                starts[info.header_offset] = data_start(self._handle, info)
            end = starts[info.header_offset] + info.compress_size
        if end > self._archive.start_dir:
            raise CheckpointError(
                f"{self.path}: cut short: {end} bytes of members in {self._archive.start_dir}. Download it again."
            )
        return starts

    def _refuse_bomb(self, infos: list[zipfile.ZipInfo]) -> None:
        claimed = sum(info.file_size for info in infos)
        lying = any(i.compress_type == zipfile.ZIP_STORED and i.file_size != i.compress_size for i in infos)
        if lying or claimed > bounded(self._size):
            raise CheckpointError(
                f"{self.path}: {self._size} bytes that claim to expand to {claimed}: a zip bomb, not a checkpoint.\n"
                "Download it again."
            )

    def _member(self, name: str, info: zipfile.ZipInfo, start: int) -> Member:
        with reading(self.path, name):
            with self._archive.open(info) as file:
                head = io.BytesIO(file.read(MAX_HEADER + 16))
            version = np.lib.format.read_magic(head)
            if version not in HEADER_READERS:
                raise ValueError(f"its npy format version {version} is unknown")
            shape, fortran, dtype = HEADER_READERS[version](head, max_header_size=MAX_HEADER)
        fills = head.tell() + dtype.itemsize * math.prod(shape) == info.file_size
        if len(shape) > MAX_RANK or any(size < 0 for size in shape) or not (fills or dtype.hasobject):
            raise CheckpointError(
                f"{self.path}: {name} of shape {shape[:MAX_RANK]} does not fill its {info.file_size} bytes. "
                "Download it again."
            )
        header = head.getvalue()[: head.tell()]
        return Member(info, shape, dtype, "F" if fortran else "C", header, start + len(header))


def _read_into(file: int, rest: memoryview, offset: int) -> None:
    """Fills memory from a place in a file."""
    while rest:
        count = os.preadv(file, [rest], offset)
        if not count:
            raise EOFError("its data ends early")
        rest, offset = rest[count:], offset + count


def _read_rows(file: int, rows: list[memoryview], offset: int, apart: int) -> None:
    """Fills memory of one length from places in a file ``apart`` bytes from each other, all at once where no byte lies
    between them."""
    if len(rows[0]) == apart and os.preadv(file, rows, offset) == apart * len(rows):
        return
    for row, memory in enumerate(rows):
        _read_into(file, memory, offset + row * apart)


def is_torch_archive(path: Path) -> bool:
    """Whether a zip archive is one that torch.save wrote: it holds the pickle of one folder, as its first member where
    no other tool has written it again."""
    if first_name(path).endswith(TORCH_PICKLE.encode()):
        return True
    return any(name.endswith(TORCH_PICKLE) for name in member_names(path) or ())
