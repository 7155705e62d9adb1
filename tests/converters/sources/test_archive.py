"""Archives that want to write elsewhere, expand without end, or are broken."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from converters.errors import UsageError
from tests.converters.sources.conftest import tar_of
from tests.converters.sources.costs import cost_of_refusal
from tests.converters.sources.refusals import read_all, refuse, refuse_cut_short

MB = 1 << 20


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The place of temporary folders; nothing may stay in it."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    yield place
    assert not list(place.iterdir())


@pytest.fixture
def path(tmp_path: Path, written) -> Path:
    return Path(shutil.copy(written("TF1-Hub .tar.gz of a folder"), tmp_path / "module.tar.gz"))


def archive(path: Path, *members: tarfile.TarInfo, content: bytes = b"evil") -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            file.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "a\\..\\evil", ".."])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    path = archive(tmp_path / "x.tar.gz", member("fine"), member(name))
    assert "leads out" in refuse(path)
    assert set(tmp_path.rglob("*")) == before | {path}


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, ".."),
        (tarfile.LNKTYPE, "fine"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, link: str) -> None:
    assert "link, a device" in refuse(
        archive(tmp_path / "x.tar.gz", member("fine"), member("saved_model.pb", kind, link))
    )


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    refuse(archive(tmp_path / "x.tar.gz", member("a"), member("a")))


def test_a_file_where_a_folder_was_is_refused(tmp_path: Path) -> None:
    refuse(archive(tmp_path / "x.tar.gz", member("a"), member("a/b")))


@pytest.fixture
def harmless(tmp_path: Path, written) -> Path:
    """An archive whose reading takes no library that takes seconds to import."""
    return tar_of(written("npz").parent, tmp_path / "harmless.tar.gz")


@pytest.mark.slow
def test_too_many_members_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar.gz", *(member(f"m{n}") for n in range(4097)), content=b"")
    assert "4096 members" in refuse(path)


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path, harmless: Path) -> None:
    path = tmp_path / "x.tar.gz"
    header = tarfile.TarInfo("zeros")
    header.size = 400 * MB
    path.write_bytes(gzip.compress(header.tobuf()) + 400 * gzip.compress(bytes(MB)))
    assert path.stat().st_size < MB
    refuse(path)
    assert cost_of_refusal(path, harmless).memory < 20 * MB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zeros", "././@LongLink"])
def test_a_bomb_within_a_header_is_refused(tmp_path: Path, harmless: Path, name: str) -> None:
    """A long name, or extended header, is read as a whole."""
    path = tmp_path / "x.tar.gz"
    header = tarfile.TarInfo(name)
    header.type = tarfile.XHDTYPE if name == "zeros" else tarfile.GNUTYPE_LONGNAME
    header.size = 400 * MB
    path.write_bytes(gzip.compress(header.tobuf()) + 400 * gzip.compress(bytes(MB)))
    assert cost_of_refusal(path, harmless).memory < 200 * MB


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    """GNU's sparse files: a megabyte of holes in no bytes; they are unpacked without the archive having them."""
    header = bytearray(tarfile.TarInfo("holes").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"%011o\0" % (1 << 20)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with gzip.open(tmp_path / "x.tar.gz", "wb") as file:
        file.write(bytes(header) + bytes(1024))
    assert "a sparse file" in refuse(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-1, -512, -(1 << 80)])
def test_a_size_below_zero_is_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    """In base 256 (GNU), where the first byte is 0xff; it was read for ever."""
    header = bytearray(tarfile.TarInfo("module/config.json").tobuf())
    header[156:157] = kind
    header[124:136] = b"\xff" + (256**11 + size).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(bytes(header) + bytes(4096))
    assert "below zero" in refuse(tmp_path / "x.tar")


def test_an_archive_cut_short_is_refused(path: Path) -> None:
    refuse_cut_short(path, path, places=30)


def test_one_flipped_bit_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for position in np.random.default_rng(0).integers(80, 8 * len(whole), size=60):  # after gzip's header
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << int(position % 8)
        path.write_bytes(broken)
        refuse(path)


def test_what_a_killed_run_left_is_removed(path: Path, temporary: Path) -> None:
    (temporary / "bit-convert-0123abcd" / "module").mkdir(parents=True)
    (temporary / "bit-convert-file").touch()
    assert read_all(path)
    assert [left.name for left in temporary.iterdir()] == ["bit-convert-file"]
    (temporary / "bit-convert-file").unlink()


def test_a_full_temporary_folder_is_named(path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("converters.sources.archive._write", full)
    with pytest.raises(UsageError, match=f"{re.escape(str(temporary))}: .*No space left.*TMPDIR"):
        read_all(path)


def test_a_plain_tar_is_read(path: Path, tmp_path: Path, tensors) -> None:
    (tmp_path / "x.tar").write_bytes(gzip.decompress(path.read_bytes()))
    assert read_all(tmp_path / "x.tar").keys() == tensors.keys()


@pytest.mark.parametrize("content", [b"", b"junk", b"\0" * 1024])
def test_a_gzip_of_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(content))
    refuse(tmp_path / "x.tar.gz")


def test_an_archive_in_an_archive_is_refused(tmp_path: Path, path: Path) -> None:
    """There are archives that hold themselves."""
    with tarfile.open(tmp_path / "outer.tar.gz", "w:gz") as file:
        file.add(path, "inner.tar.gz")
    assert "holds inner.tar.gz" in refuse(tmp_path / "outer.tar.gz")
