"""The npz reader: what it gives of a whole file, and that it gives nothing of a broken or hostile one."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.errors import CheckpointError
from converters.sources import open_source
from tests.checkpoints import make_checkpoint

TENSORS = {
    "resnet/a/kernel": np.arange(1, 7, dtype=np.float32).reshape(1, 1, 3, 2),
    "resnet/a/gamma": np.array([0.5, -2.0], np.float32),
    "resnet/a/beta": np.array([3.25], np.float32),
}
"""Small enough that every byte and bit of its file can be broken in turn; the reader knows no names."""
SAVERS = {"stored": np.savez, "deflated": np.savez_compressed}
saved_as = pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)


def file_bytes(saver=np.savez, tensors=TENSORS) -> bytes:
    buffer = io.BytesIO()
    saver(buffer, **tensors)
    return buffer.getvalue()


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


class Stream(io.RawIOBase):
    """A file that is written in one go: sizes and CRC can only follow the data."""

    def __init__(self) -> None:
        self._written = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        return self._written.write(data)

    def getvalue(self) -> bytes:
        return self._written.getvalue()


def zipped(tensors: dict[str, np.ndarray], target=None):
    """An archive without zip64 fields in its local headers, as Google's files have it."""
    target = target or io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, tensor in tensors.items():
            file.writestr(f"{name}.npy", npy(tensor))
    return target


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_source(path) as source:
        return {name: source.read(name) for name in source.shapes}


def refuse(path: Path) -> str:
    """The message, after the checks that hold for every message: two lines at most, the file named."""
    with pytest.raises(CheckpointError) as caught:
        read_all(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.splitlines()) <= 2
    return message


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@saved_as
def test_gives_names_shapes_and_values_in_the_order_of_the_file(tmp_path: Path, saver) -> None:
    tensors = make_checkpoint(units=(1, 2), width=32, classes=3)
    path = tmp_path / "model.npz"
    saver(path, **tensors)
    with open_source(path) as source:
        assert (source.format, source.scheme, source.path) == ("npz", "npz", str(path))
        assert list(source.shapes.items()) == [(name, tensor.shape) for name, tensor in tensors.items()]
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert equal(read_all(path), tensors)


def test_gives_fresh_contiguous_writable_arrays(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, kernel=np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)))
    with open_source(path) as source:
        first = source.read("kernel")
        assert first.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(first, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
        first[:] = 0
        assert source.read("kernel").any()


@settings(max_examples=50, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text("abc/_01", min_size=1, max_size=12).filter(lambda name: not name.startswith("/")),
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=0, max_dims=4, max_side=4),
            elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=4,
    ),
    deflated=st.booleans(),
)
def test_gives_back_whatever_numpy_saved(tmp_path_factory: pytest.TempPathFactory, arrays, deflated: bool) -> None:
    path = tmp_path_factory.mktemp("any") / "model.npz"
    (np.savez_compressed if deflated else np.savez)(path, **arrays)
    assert equal(read_all(path), arrays)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18)], ids=["no bytes", "an archive without members"])
def test_refuses_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    assert "empty" in refuse(path)


def test_refuses_what_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in refuse(tmp_path / "absent.npz")


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html></html>", b"\n <html>", b"<?xml version='1.0'?><Error/>"])
def test_names_a_web_page_as_such(tmp_path: Path, page: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(page)
    assert "web page" in refuse(path)


@pytest.mark.slow
@saved_as
def test_refuses_a_file_cut_short_at_any_byte(tmp_path: Path, saver) -> None:
    whole = file_bytes(saver)
    path = tmp_path / "model.npz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refuse(path)


@saved_as
def test_refuses_bytes_after_the_end(tmp_path: Path, saver) -> None:
    path = tmp_path / "model.npz"
    for more in (b"\0", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(file_bytes(saver) + more)
        refuse(path)


def flipped(whole: bytes, bit: int) -> bytes:
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    return bytes(broken)


@pytest.mark.slow
@pytest.mark.parametrize("archive_of", ["stored", "deflated", "zip64", "streamed"])
def test_one_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path, monkeypatch, archive_of: str) -> None:
    """Bits that a reader does not need, such as a member's time, may pass: what is read is the same."""
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", 250 if archive_of == "zip64" else zipfile.ZIP64_LIMIT)
        whole = {
            "stored": file_bytes,
            "deflated": lambda: file_bytes(np.savez_compressed),
            "zip64": lambda: zipped(TENSORS).getvalue(),
            "streamed": lambda: zipped(TENSORS, Stream()).getvalue(),
        }[archive_of]()
    path = tmp_path / "model.npz"
    bits = np.random.default_rng(0).choice(8 * len(whole), 1000, replace=False)
    data = whole.index(TENSORS["resnet/a/kernel"].tobytes()) if archive_of != "deflated" else None
    refused = set()
    for bit in map(int, bits):
        path.write_bytes(flipped(whole, bit))
        try:
            tensors = read_all(path)
        except CheckpointError:
            refused.add(bit)
            continue
        assert equal(tensors, TENSORS), f"bit {bit} goes unnoticed"
    assert 200 < len(refused) < len(bits)
    if data is not None:
        assert {bit for bit in map(int, bits) if data <= bit // 8 < data + 24} <= refused


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_values_that_are_not_finite_and_names_the_tensor(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **TENSORS | {"resnet/a/gamma": np.array([1, value], np.float32)})
    assert "resnet/a/gamma holds NaN or Inf" in refuse(path)


@pytest.mark.parametrize("dtype", ["i4", "u1", "c8", "?", "U3", "M8[s]"])
def test_refuses_other_dtypes_and_names_the_tensor(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **TENSORS | {"resnet/a/gamma": np.zeros(2, dtype)})
    assert "resnet/a/gamma holds" in refuse(path)


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_never_unpickles_an_object_array(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "model.npz"
    np.savez(path, **TENSORS | {"resnet/a/gamma": np.array([Bomb(mark)], dtype=object)})
    assert "resnet/a/gamma holds Python objects" in refuse(path)
    assert not mark.exists()


def test_never_unpickles_a_pickle_named_npz(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for protocol in (0, 2, 5):
        path = tmp_path / "model.npz"
        path.write_bytes(pickle.dumps(Bomb(mark), protocol))
        refuse(path)
        refuse(archive(tmp_path / "inside.npz", {"resnet/a.npy": path.read_bytes()}))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../evil.npy", "a/../../evil.npy", "/evil.npy", "..\\evil.npy", "C:\\evil.npy", "evil.txt"]
)
def test_refuses_member_names_that_no_tensor_has_and_writes_nothing(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "model.npz", {"resnet/a.npy": npy(TENSORS["resnet/a/beta"]), name: npy(np.ones(1, "f4"))})
    assert "no tensor's name" in refuse(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def test_refuses_two_tensors_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", npy(np.ones(1, "f4")))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", npy(np.zeros(1, "f4")))
    assert "two tensors of the name a" in refuse(path)


def test_refuses_members_that_overlap(tmp_path: Path) -> None:
    """Two directory entries that point at the same bytes: the way a zip bomb multiplies."""
    path = archive(tmp_path / "model.npz", {"a.npy": npy(np.ones(4, "f4")), "b.npy": npy(np.ones(4, "f4"))})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    path.write_bytes(data)
    assert "overlaps" in refuse(path)


def test_refuses_too_many_members(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.npz", {f"{i}.npy": npy(np.ones(1, "f4")) for i in range(4097)})
    assert "4097 tensors" in refuse(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_other_compression(tmp_path: Path, method: int) -> None:
    assert "not stored or deflated" in refuse(archive(tmp_path / "model.npz", {"a.npy": npy(np.ones(4, "f4"))}, method))


@pytest.mark.parametrize(
    "shape", [(2,), (4,), (3, 10**9), (-3,), (10**18, 10**18), (0,), ()], ids=lambda shape: "x".join(map(str, shape))
)
def test_refuses_a_shape_that_its_bytes_do_not_fill(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    refuse(archive(tmp_path / "model.npz", {"a.npy": header.getvalue() + bytes(12)}))


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        b"\x93NUMPY\x01\x00\x10\x00" + b"__import__('os')",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"[" * 9000,
        b"GIF89a",
    ],
    ids=["empty", "magic alone", "header cut", "version 9", "code", "deep nesting", "another file"],
)
def test_refuses_members_that_are_no_arrays(tmp_path: Path, member: bytes) -> None:
    refuse(archive(tmp_path / "model.npz", {"a.npy": member}))


@pytest.fixture
def peak() -> Iterator[list[int]]:
    """Bytes allocated at most, filled in when asked for by ``peak_of``."""
    tracemalloc.start()
    yield []
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("peak")
def test_a_zip_bomb_is_refused_before_it_expands(tmp_path: Path) -> None:
    zeros = npy(np.zeros(100 << 18, np.float32))  # 100 MB, which deflate to 100 kB
    path = archive(tmp_path / "model.npz", {"a.npy": zeros}, zipfile.ZIP_DEFLATED)
    del zeros
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert "zip bomb" in refuse(path)
    assert tracemalloc.get_traced_memory()[1] - before < 5 << 20


@pytest.mark.usefixtures("peak")
@pytest.mark.parametrize("field", [20, 24], ids=["compressed size", "size"])
def test_memory_follows_the_bytes_of_the_file_not_its_claims(tmp_path: Path, field: int) -> None:
    path = archive(tmp_path / "model.npz", {"a.npy": npy(np.ones(4, "f4"))})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + field : entry + field + 4] = struct.pack("<I", 3 << 30)
    path.write_bytes(data)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    refuse(path)
    assert tracemalloc.get_traced_memory()[1] - before < 5 << 20


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    """What is refused can be deleted and replaced at once, on every system."""
    path = archive(tmp_path / "model.npz", {"a.npy": b"no array"})
    before = len(os.listdir("/dev/fd"))
    for _ in range(10):
        refuse(path)
    assert len(os.listdir("/dev/fd")) <= before + 1


def test_an_archive_of_another_folder_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("model/saved_model.pb", b"")
    assert "Unpack it" in refuse(tmp_path / "model.zip")
