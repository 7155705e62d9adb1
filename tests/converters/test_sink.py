"""The file writer: the bytes it is given, on every kind of file system."""

import errno
import hashlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.writers import disk
from converters.writers.disk import WriteBuffer

CONTENT = np.random.default_rng(0).bytes(50_000)
BUFFER = 2 * disk.PAGE


@pytest.fixture(autouse=True)
def _small_buffers(monkeypatch):
    monkeypatch.setattr(disk, "BUFFER", BUFFER)
    monkeypatch.setattr(disk, "PIECE", disk.PAGE)


def write(path, pieces):
    digest = hashlib.sha256()
    write_as(path, pieces, sum(map(len, pieces)), digest.update)
    return digest.hexdigest()


def write_as(path, pieces, size, watch=None):
    with WriteBuffer(path, size, watch) as file:
        for piece in pieces:
            file.write(piece)
        file.close()


def pieces_of(cuts):
    cuts = sorted(cuts)
    return [CONTENT[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=9))
def test_the_file_holds_the_pieces_end_to_end_and_the_watcher_sees_them(cuts, tmp_path_factory):
    path = tmp_path_factory.mktemp("sink") / "file"
    digest = write(path, pieces_of(cuts))
    assert path.read_bytes() == b"".join(pieces_of(cuts))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=9))
def test_buffer_that_is_filled_is_what_the_file_holds(cuts, tmp_path_factory):
    path = tmp_path_factory.mktemp("sink") / "file"
    content, digest = b"".join(pieces_of(cuts)), hashlib.sha256()
    with WriteBuffer(path, len(content), digest.update) as file:
        for piece in pieces_of(cuts):
            for start in range(0, len(piece), file.capacity):
                some = piece[start : start + file.capacity]
                buffer = file.reserve(len(some))
                buffer[:] = bytes(len(some))  # what is there before the next call counts, and nothing earlier
                buffer[:] = some
        file.close()
    assert path.read_bytes() == content
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 4 * BUFFER])
def test_any_size_beside_that_of_a_buffer_is_exact(tmp_path, size):
    write(tmp_path / "file", [CONTENT[:size]])
    assert (tmp_path / "file").read_bytes() == CONTENT[:size]


@pytest.mark.parametrize("refusal", ["at once", "when written", "no reservation"])
def test_a_file_system_that_refuses_gets_plain_writes(tmp_path, monkeypatch, refusal):
    real, flags_seen = os.pwrite, []

    def refuse(*_):
        raise OSError(errno.EINVAL, "refused")

    def pwrite(file, data, offset):
        direct = bool(disk.fcntl.fcntl(file, disk.fcntl.F_GETFL) & disk.DIRECT)
        flags_seen.append(direct)
        if direct:
            refuse()
        return real(file, data, offset)

    if refusal == "no reservation":
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    else:
        monkeypatch.setattr(os, "pwrite", pwrite)
        if refusal == "at once":
            monkeypatch.setattr(disk, "DIRECT", 0)
    write(tmp_path / "file", [CONTENT])
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert refusal == "no reservation" or not flags_seen[-1]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate"])
def test_a_full_or_broken_disk_is_an_error(tmp_path, monkeypatch, call, error):
    def fail(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(error)):
        write(tmp_path / "file", [CONTENT])


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_than_was_said_is_an_error(tmp_path, size):
    with pytest.raises(ValueError, match="bytes were written"):
        write_as(tmp_path / "file", [CONTENT], size)


def test_an_error_of_the_watcher_is_not_lost(tmp_path):
    def watch(_):
        raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"):
        write_as(tmp_path / "file", [CONTENT], len(CONTENT), watch)
