"""Archives that other tools wrote, or wrote again: whatever is a valid zip file of valid floats is read, to the bit."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.sources import open_source
from tests.command_line import converted
from tests.converters.sources.refusals import read_all, refuse
from tests.converters.sources.test_npz import Stream, npy, zipped

EXTRA = struct.pack("<HHBI", 0x5455, 5, 1, 1_600_000_000)
"""A time as Unix counts it: an extra field of Info-ZIP's."""


@pytest.fixture
def whole(tmp_path: Path, tensors) -> Path:
    path = tmp_path / "model.npz"
    np.savez(path, **tensors)
    return path


def same(path: Path, tensors: dict[str, np.ndarray]) -> bool:
    read = read_all(path)
    return list(read) == list(tensors) and all(
        read[name].tobytes() == value.tobytes() for name, value in tensors.items()
    )


def member(name: str, **fields: object) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{name}.npy", (2019, 12, 24, 18, 30, 2))
    for field, value in fields.items():
        setattr(info, field, value)
    return info


FIELDS = {
    "chmod": {"external_attr": 0o644 << 16},
    "DOS": {"create_system": 0, "external_attr": 0x20},
    "version": {"create_version": 63, "extract_version": 45},
    "extra": {"extra": EXTRA},
    "comment": {"comment": b"the last one"},
    "UTF-8": {"flag_bits": 0x800},
    "text": {"internal_attr": 1},
    "deflated": {"compress_type": zipfile.ZIP_DEFLATED},
    "year": {"date_time": (2107, 12, 31, 23, 59, 58)},
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_one_member_may_differ_from_the_others(tmp_path: Path, tensors, fields, first: bool) -> None:
    path = tmp_path / "model.npz"
    odd = next(iter(tensors)) if first else list(tensors)[-1]
    with zipfile.ZipFile(path, "w") as file:
        for name, value in tensors.items():
            file.writestr(member(name, **(fields if name == odd else {})), npy(value))
    assert same(path, tensors)


def test_other_files_in_an_archive_are_left_out_and_said(tmp_path: Path, tensors) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, **tensors)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("README.txt", "what this is")
        file.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n", zipfile.ZIP_BZIP2)
    with open_source(path) as source:
        assert set(source.shapes) == set(tensors)
        assert source.dropped == dict.fromkeys(["README.txt", "META-INF/MANIFEST.MF"], "not a tensor")


def test_an_archive_of_other_files_alone_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as file:
        file.writestr("README.txt", "what this is")
    with pytest.raises(CheckpointError, match=r"without any \.npy member"):
        open_source(tmp_path / "model.npz")


def test_a_member_may_be_added_later(tmp_path: Path, tensors) -> None:
    """Appended where the directory was; what comes before is left as it is."""
    path = tmp_path / "model.npz"
    *most, last = tensors
    np.savez(path, **{name: tensors[name] for name in most})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(member(last, external_attr=0o100664 << 16, create_system=3), npy(tensors[last]))
    assert same(path, tensors)


def test_the_archive_may_have_a_comment(whole: Path, tensors) -> None:
    with zipfile.ZipFile(whole, "a") as file:
        file.comment = b"R50x1, fine-tuned"
    assert same(whole, tensors)


def test_sizes_may_follow_the_data(tmp_path: Path, tensors) -> None:
    """As java.util.zip and everything that writes to a pipe does it."""
    (tmp_path / "model.npz").write_bytes(zipped(tensors, Stream()).getvalue())
    assert same(tmp_path / "model.npz", tensors)


@pytest.mark.parametrize("shifted", [True, False])
def test_there_may_be_data_before_the_first_member(tmp_path: Path, whole: Path, tensors, shifted: bool) -> None:
    """Offsets count from the file's beginning, or from the archive's."""
    path = tmp_path / "self-extracting.npz"
    path.write_bytes(b"#!/bin/sh\nexec unzip $0\n")
    if shifted:
        with zipfile.ZipFile(path, "a") as file:
            for name, value in tensors.items():
                file.writestr(f"{name}.npy", npy(value))
    else:
        path.write_bytes(path.read_bytes() + whole.read_bytes())
    assert same(path, tensors)


def rewritten(whole: Path, folder: Path, *command: str) -> Path:
    """Unpacked, and packed again by another program."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    unpacked, path = folder / "unpacked", folder / "again.npz"
    with zipfile.ZipFile(whole) as file:
        file.extractall(unpacked)
    subprocess.run([*command, str(path), "resnet"], cwd=unpacked, check=True, capture_output=True)
    return path


@pytest.mark.parametrize(
    "command",
    [
        ("zip", "-r"),
        ("zip", "-r", "-0"),
        ("zip", "-r", "-9", "-fz"),
        ("7z", "a", "-tzip"),
        ("jar", "--create", "-M", "-f"),
    ],
    ids=lambda command: " ".join(command),
)
def test_archives_of_other_programs_are_read(tmp_path: Path, whole: Path, tensors, command: tuple[str, ...]) -> None:
    """Entries of folders are passed over; the order of the members is the program's."""
    assert same(rewritten(whole, tmp_path, *command), tensors)


def test_a_program_may_update_one_member(tmp_path: Path, whole: Path, tensors) -> None:
    name = "resnet/group_norm/gamma"
    changed = {**tensors, name: tensors[name] + 1}
    np.savez(tmp_path / "other.npz", **changed)
    if shutil.which("zip") is None:
        pytest.skip("no zip here")
    with zipfile.ZipFile(tmp_path / "other.npz") as file:
        file.extract(f"{name}.npy", tmp_path)
    (tmp_path / f"{name}.npy").chmod(0o600)
    subprocess.run(["zip", str(whole), f"{name}.npy"], cwd=tmp_path, check=True, capture_output=True)
    assert same(whole, changed)


# -- between 2 and 4 GiB, in small


@pytest.fixture
def beyond(tmp_path: Path, tensors, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As zipfile writes an archive of more than 2 GiB whose members are smaller, with a lower limit instead."""
    limit = 450_000
    path = tmp_path / "released.npz"
    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "ZIP64_LIMIT", limit)
        path.write_bytes(zipped(dict(sorted(tensors.items()))).getvalue())
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        infos = file.infolist()
        assert {info.extract_version for info in infos} == {20, 45}
        assert 0 < sum(info.header_offset > limit for info in infos) < len(infos)
        for info in infos:
            assert bool(info.extra) is (info.header_offset > limit)
            assert content[info.header_offset + 28 : info.header_offset + 30] == b"\0\0", "an extra field"
    assert content[-42:].startswith(b"PK\x06\x07")
    return path


def test_offsets_beyond_2_gib_in_the_directory_alone_are_read(beyond: Path, tensors) -> None:
    assert same(beyond, tensors)


def test_such_a_file_is_converted_and_back(beyond: Path, tensors, tmp_path: Path) -> None:
    converted(beyond, tmp_path / "model", "--layout", "npz", "--no-verify")
    (path,) = (tmp_path / "model").glob("*.npz")
    assert same(path, tensors)


def test_such_a_file_is_fetched(beyond: Path, tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from converters.download.http import cached
    from tests.file_server import FileServer

    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    with FileServer({"/released.npz": beyond.read_bytes()}) as server:
        assert same(cached(server.url("/released.npz")), tensors)


def test_a_zip64_field_that_is_cut_short_is_refused(beyond: Path) -> None:
    content = beyond.read_bytes()
    entry = content.rindex(b"\x01\x00\x08\x00")
    beyond.write_bytes(content[: entry + 2] + b"\x04" + content[entry + 3 :])
    refuse(beyond)


# -- other ways to store the same values

DTYPES = ["<f4", ">f4", "<f2", ">f2", "<f8", ">f8", "g"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_floats_of_any_width_and_byte_order_are_read(tmp_path: Path, tensors, dtype: str, saver) -> None:
    saved = {name: value.astype(dtype) for name, value in tensors.items()}
    saver(tmp_path / "model.npz", **saved)
    for name, value in read_all(tmp_path / "model.npz").items():
        np.testing.assert_array_equal(value, saved[name].astype(np.float32), strict=True)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_headers_of_any_version_and_order_are_read(tmp_path: Path, tensors, version, order: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as file:
        for turn, (name, value) in enumerate(reversed(tensors.items())):
            method = zipfile.ZIP_DEFLATED if turn % 2 else zipfile.ZIP_STORED
            file.writestr(f"{name}.npy", npy(np.asarray(value, order=order), version=version), method)
    assert same(tmp_path / "model.npz", tensors)


def test_a_header_without_padding_is_read(tmp_path: Path, tensors) -> None:
    """NumPy pads to 64 bytes so that arrays can be mapped; others need not."""
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as file:
        for name, value in tensors.items():
            header = f"{{'shape': {value.shape}, 'fortran_order': False, 'descr': '<f4'}}\n".encode()
            start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
            file.writestr(f"{name}.npy", start + header + value.tobytes())
    assert same(tmp_path / "model.npz", tensors)
