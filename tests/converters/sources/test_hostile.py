"""Small files that would cost much: each is refused in a second, in no more than 256 MB above its own size."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.converters.sources.costs import cost_of_refusal

MB = 1 << 20
SECONDS, MEMORY = 1, 256 * MB
"""As SECURITY.md promises; the first is processor time, which a busy machine does not lengthen."""


# -- archives


def extended(kind: bytes, content: bytes, name: str = "././@PaxHeader") -> bytes:
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(content)
    return header.tobuf() + content + bytes(-len(content) % 512)


def packed(*parts: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "x.tar.gz").write_bytes(gzip.compress(b"".join((*parts, extended(b"0", b"", "file"), bytes(1024)))))
        return folder / "x.tar.gz"

    return write


def nested_folders(folder: Path) -> Path:
    with tarfile.open(folder / "x.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a/" * 2000 + "b")
        archive.addfile(member, io.BytesIO())
    return folder / "x.tar.gz"


def folder_member(name: str) -> bytes:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member.tobuf(tarfile.GNU_FORMAT)


def sparse_map(folder: Path) -> Path:
    """GNU's sparse format 1.0: the map stands before the content, its numbers as text."""
    records = b"".join(
        b"%d %s=%s\n" % (len(key) + len(value) + 3 + len(str(len(key) + len(value) + 5)), key, value)
        for key, value in ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"holes"))
    )
    content = b"2000000\n" + b"1\n" * 4_000_000
    return packed(extended(b"x", records), extended(b"0", content, "holes"))(folder)


# -- safetensors


def safetensors(header: bytes, values: bytes = b"") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values)
        return folder / "model.safetensors"

    return write


def entry(shape: str, end: int = 0) -> bytes:
    return b'{"t":{"dtype":"F32","shape":[%s],"data_offsets":[0,%d]}}' % (shape.encode(), end)


def names(count: int, value: str = "0") -> bytes:
    return b",".join(f'"{n:x}":{value}'.encode() for n in range(count))


# -- zip


def npz_of_empty_members(folder: Path) -> Path:
    """1.1 million entries, all of one member: what they take is theirs alone."""
    name = b"a"
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + name
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, *[0] * 7, 1, *[0] * 6) + name
    count = 1_100_000
    size = count * len(entry)
    end = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, len(local))
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(local) + size, 1)
    last = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (folder / "x.npz").write_bytes(local + entry * count + end + locator + last)
    return folder / "x.npz"


def npz_of_headers(text: str) -> Callable[[Path], Path]:
    """As many members as there may be, each with a header that takes long to parse."""

    def write(folder: Path) -> Path:
        header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
        with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(4096):
                archive.writestr(f"{number}.npy", header)
        return folder / "x.npz"

    return write


def npy(shape: str, descr: str) -> str:
    return f"{{'descr':{descr},'fortran_order':False,'shape':{shape}}}"


# -- pickles


def torch_bin(content: bytes, zipped: bool = True) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "pytorch_model.bin"
        if not zipped:
            path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + content)
            return path
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", b"3\n")
            archive.writestr("archive/data/0", bytes(4))
        return path

    return write


DOUBLING = b")" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(100))
"""A pair of twice the same pair of twice the same pair …: of a few bytes, whoever writes it out never ends."""


def dicts_of_tensors(count: int, size: int) -> bytes:
    """A list of dicts of one tensor under different names."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NK\x01tQK\0"
        b"K\x01\x85K\x01\x85\x89}tR"
    )
    items = b"".join(b"X\x06\0\0\0%06dh\0" % n for n in range(size))
    return b"\x80\x02](" + tensor + b"q\x00" + (b"}(" + items + b"u") * count + b"e."


# -- JSON beside weights


def json_beside(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        safetensors(entry("1", 4), bytes(4))(folder)
        if name.endswith("index.json"):
            (folder / "model.safetensors").unlink()
        (folder / name).write_text(content)
        return folder

    return write


HOSTILE: dict[str, Callable[[], Callable[[Path], Path]]] = {
    "a pax record of 100,000 digits": lambda: packed(extended(b"x", b"9" * 100_000 + b" path=a\n")),
    "a pax header of 60 MB of zeros": lambda: packed(extended(b"x", bytes(60 * MB))),
    "a pax header of 10 MB of short records": lambda: packed(extended(b"x", b"6 a=b\n" * (10 * MB // 6))),
    "a pax header for all of short records": lambda: packed(extended(b"g", b"6 a=b\n" * (10 * MB // 6))),
    "4,000 pax headers of 60 kB": lambda: packed(extended(b"x", b"6 a=b\n" * 10_000) * 4000),
    "4,000 pax headers for all, of different keys": lambda: packed(
        *(extended(b"g", b"".join(b"15 %06d=abcd\n" % (n * 4000 + m) for m in range(4000))) for n in range(1000))
    ),
    "a long name of 60 MB": lambda: packed(extended(b"L", b"a" * 60 * MB, "././@LongLink")),
    "a long link of 60 MB": lambda: packed(extended(b"K", b"a" * 60 * MB, "././@LongLink")),
    "100,000 long names one after the other": lambda: packed(extended(b"L", b"a" * 100, "././@LongLink") * 100_000),
    "folders nested 2000 deep": lambda: nested_folders,
    "folders 2000 deep, by a folder": lambda: packed(folder_member("a/" * 2000)),
    "a sparse map of 2 million": lambda: sparse_map,
    "a shape of 500 numbers of 4000 digits": lambda: safetensors(entry(",".join(["9" * 4000] * 500))),
    "a shape of 500 numbers below 2⁶³": lambda: safetensors(entry(",".join(["9223372036854775807"] * 500))),
    "a shape of 100,000 ones": lambda: safetensors(entry(",".join(["1"] * 100_000), 4), bytes(4)),
    "a header of 20 MB of lists": lambda: safetensors(b'{"t":[' + b"[]," * (20 * MB // 3) + b"[]]}"),
    "a header of 20 MB of objects": lambda: safetensors(b'{"t":[' + b"{}," * (20 * MB // 3) + b"{}]}"),
    "a header of 3 MB of names": lambda: safetensors(b"{" + names(250_000) + b"}"),
    "a header of 3 MB of metadata": lambda: safetensors(b'{"__metadata__":{' + names(250_000) + b"}}"),
    "a header of 1.1 MB of names": lambda: safetensors(b"{" + names(90_000) + b"}"),
    "a header of 1.1 MB of metadata": lambda: safetensors(b'{"__metadata__":{' + names(90_000, '""') + b"}}"),
    "a header of 900 kB of objects": lambda: safetensors(b'{"t":[' + b"{}," * 300_000 + b"{}]}"),
    "4,000 slots of names of 50 parts": lambda: safetensors(
        json.dumps(
            {
                name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                for name in (
                    *("root_block/conv_root/kernel", "norm-pre-head/scale", "norm-pre-head/bias"),
                    *(f"opt/state/param_states/{'a/' * 50}{number}" for number in range(4000)),
                )
            },
            separators=(",", ":"),
        ).encode()
    ),
    "an npz of 1.1 million entries": lambda: npz_of_empty_members,
    "npy headers of many brackets": lambda: npz_of_headers(npy("(" * 150 + "0," + ")" * 150, "'<f4'")),
    "npy headers of many signs": lambda: npz_of_headers("-" * 900 + "1"),
    "npy headers of many texts": lambda: npz_of_headers(npy("(0,)", "'<f4'" + "''" * 440)),
    "npy headers of many fields": lambda: npz_of_headers(npy("(0,)", "[" + "('','f4')," * 90 + "]")),
    "npy headers of many numbers": lambda: npz_of_headers(npy("(" + "0," * 450 + ")", "'<f4'")),
    "npy headers of 10 kB": lambda: npz_of_headers(npy("(0,)", "'<f4'" + "''" * 4500)),
    "a pickle of 2 MB of marks": lambda: torch_bin(b"\x80\x02" + b"(" * (2 * MB - 100) + b"."),
    "a pickle of 1 MB of marks": lambda: torch_bin(b"\x80\x02" + b"(" * MB + b"."),
    "a pickle of 1 MB of nested tuples": lambda: torch_bin(b"\x80\x02)" + b"\x85" * MB + b"."),
    "a pickle of 160,000 nested tuples": lambda: torch_bin(b"\x80\x02)" + b"\x85" * 160_000 + b"."),
    "a pickle of 1 MB in one long number": lambda: torch_bin(b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * MB + b"."),
    "a pickle of 4 MB of marks": lambda: torch_bin(b"\x80\x02" + b"(" * 4 * MB + b"."),
    "a pickle of empty tuples, nested": lambda: torch_bin(b"\x80\x02)" + b"\x85" * (2 * MB - 100) + b"."),
    "a pickle of 4 MB of nested tuples": lambda: torch_bin(b"\x80\x02)" + b"\x85" * 4 * MB + b"."),
    "a pickle of new dicts": lambda: torch_bin(b"\x80\x02]" + b"(" + b"}" * 500_000 + b"e."),
    "a pickle that calls what doubles 100 times": lambda: torch_bin(b"\x80\x02" + DOUBLING + b")R."),
    "a pickle whose key doubles 100 times": lambda: torch_bin(
        b"\x80\x02ccollections\nOrderedDict\n(]" + DOUBLING + b"K\x01\x86atR."
    ),
    "a storage whose kind doubles 100 times": lambda: torch_bin(b"\x80\x02" + DOUBLING + b"Q."),
    "a storage whose key doubles 100 times": lambda: torch_bin(
        b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\n" + DOUBLING + b"NK\x01tQ."
    ),
    "the older format, of a key that doubles": lambda: torch_bin(
        b"\x80\x02}." + b"\x80\x02}." + b"\x80\x02]" + DOUBLING + b"a.", zipped=False
    ),
    "a shape of 100,000 long numbers": lambda: torch_bin(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NK\x01tQK\0("
        + (b"\x8a\xff" + b"\x7f" * 255) * 4000
        + b"t("
        + b"K\0" * 4000
        + b"ttR."
    ),
    "a list that holds itself": lambda: torch_bin(b"\x80\x02]q\x00(" + b"h\x00" * 100_000 + b"e."),
    "60 dicts of the same tensors": lambda: torch_bin(dicts_of_tensors(60, 600)),
    "1000 dicts of few tensors": lambda: torch_bin(dicts_of_tensors(1000, 30)),
    "the older format, of 2 MB of marks": lambda: torch_bin(b"\x80\x02" + b"(" * 2 * MB, zipped=False),
    "config.json of 15 MB of lists": lambda: json_beside("config.json", '{"a":[' + "[]," * 5 * MB + "[]]}"),
    "config.json of 15 MB of objects": lambda: json_beside("config.json", '{"a":[' + "{}," * 5 * MB + "{}]}"),
    "config.json of 15 MB of numbers": lambda: json_beside("config.json", '{"a":[' + "1.5," * (15 * MB // 4) + "1]}"),
    "config.json of 500,000 keys": lambda: json_beside("config.json", "{" + names(500_000).decode() + "}"),
    "config.json of 500,000 objects": lambda: json_beside("config.json", '{"a":[' + "{}," * 250_000 + "{}]}"),
    "config.json of 15 MB in one name": lambda: json_beside("config.json", '{"' + "a" * 15 * MB + '":0}'),
    "config.json of numbers of 4000 digits": lambda: json_beside(
        "config.json", '{"a":[' + ("9" * 4000 + ",") * 3000 + "1]}"
    ),
    "an index of 200,000 entries": lambda: json_beside(
        "model.safetensors.index.json",
        json.dumps({"weight_map": {f"t{n}": "model.safetensors" for n in range(200_000)}}),
    ),
    "an index of as many shards": lambda: json_beside(
        "model.safetensors.index.json",
        json.dumps({"weight_map": {f"t{n}": f"{n}.safetensors" for n in range(200_000)}}),
    ),
}
"""Name → what makes the file's writer: some contents are large, and made for their test alone."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_file_claims_costs_nothing(tmp_path: Path, kind: str) -> None:
    path = HOSTILE[kind]()(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*"))
    cost = cost_of_refusal(path)
    assert cost.seconds < SECONDS
    assert cost.memory < MEMORY + size
