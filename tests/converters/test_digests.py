"""What was read and has not changed is not read again; what another version made is recognised."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from converters import digests
from converters.digests import known_sha256
from converters.files import sha256
from converters.sources.base import TensorFile
from converters.sources.checksummed_read import ChecksummedRead
from converters.sources.npz import NpzSource
from tests.checkpoints import make_checkpoint
from tests.command_line import converted, run
from tests.file_server import FileServer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are read for their digest."""
    names: list[str] = []

    def noted(path: Path, stopped: Event | None = None) -> str:
        names.append(path.name)
        return sha256(path, stopped)

    monkeypatch.setattr(digests, "sha256", noted)
    return names


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    settle()
    return path


def settle() -> None:
    """A file that was written just now is read again, since its times tell nothing yet."""
    time.sleep(digests.SETTLED + 0.05)


def test_an_unchanged_file_is_read_once(file, read):
    assert {known_sha256(file) for _ in range(3)} == {sha256(file)}
    assert read == ["file"]


def test_a_file_that_was_just_written_is_read_again(tmp_path, read):
    (tmp_path / "new").write_bytes(b"one")
    known_sha256(tmp_path / "new")
    known_sha256(tmp_path / "new")
    assert read == ["new", "new"]


def test_any_change_is_noticed_also_one_that_keeps_size_and_time(file, read):
    known_sha256(file)
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert known_sha256(file) == sha256(file)
    settle()
    other = file.with_name("other")
    other.write_bytes(b"six")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)
    assert known_sha256(file) == sha256(file)
    assert read == ["file"] * 3


def test_what_is_remembered_is_not_believed_where_it_cannot_be(file, read, cache):
    known_sha256(file)
    (record,) = (cache / "known").iterdir()
    for text in ("", "[]", '{"files": {"file": 1}, "compared": ""}', '{"files": {"file": []}, "compared": 2}'):
        record.write_text(text)
        assert known_sha256(file) == sha256(file)
    assert len(read) == 5


def test_without_a_cache_everything_is_read(file, read, cache):
    cache.write_text("no folder")
    assert known_sha256(file) == known_sha256(file) == sha256(file)
    assert read == ["file", "file"]


def test_inside_read_again_nothing_is_believed(file, read):
    known_sha256(file)
    with digests.read_again():
        known_sha256(file)
    known_sha256(file)
    assert read == ["file", "file"]


@pytest.fixture
def made(tmp_path) -> Path:
    np.savez(tmp_path / "tiny.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    settle()
    assert again(tmp_path / "model") == "made"
    settle()
    return tmp_path / "model"


def again(folder: Path, *options: str) -> str:
    """The outcome of the same conversion once more: made, kept, or what it is refused for."""
    words = ("--checkpoint", folder.parent / "tiny.npz", "--output", folder, "--json", "--quiet")
    result = run(*words, "--push", "--hub", folder.parent / "hub", "--repo-id", "me/tiny", *options)
    (entry,) = json.loads(result.stdout)["results"]
    if result.exit_code == 2:
        return entry["error"]
    assert result.exit_code == 0, result.stdout
    assert entry["publication"]["changed"] is entry["made"]
    return "made" if entry["made"] else "kept"


def test_a_finished_model_is_not_read_again_and_with_recheck_it_is(made, monkeypatch):
    def compared(*_: object) -> list[str]:
        raise AssertionError("values are compared")

    monkeypatch.setattr("converters.conversion.held_departures", compared)
    assert again(made) == "kept"
    recheck = run("--checkpoint", made.parent / "tiny.npz", "--output", made, "--recheck")
    assert (recheck.exit_code, "values are compared" in recheck.stderr) == (70, True)


def test_neither_the_checkpoint_nor_a_large_file_of_a_hub_is_read_after_the_run_that_made_them(
    tmp_path, monkeypatch, read
):
    monkeypatch.setattr(digests, "LARGE", 0)
    monkeypatch.setattr(digests, "SETTLED", 0.0)
    np.savez(tmp_path / "tiny.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    assert again(tmp_path / "model") == "made"
    read.clear()
    assert again(tmp_path / "model") == "kept"
    assert read == []


def test_weights_that_an_unverified_conversion_wrote_are_not_hashed_again(tmp_path, monkeypatch, read):
    monkeypatch.setattr(digests, "LARGE", 0)
    np.savez(tmp_path / "tiny.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    converted(tmp_path / "tiny.npz", tmp_path / "model", "--no-verify")
    converted(tmp_path / "model", tmp_path / "back", "--layout", "npz", "--no-verify")
    assert read == []
    said = json.loads((tmp_path / "back" / "provenance.json").read_text())
    (source,) = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"sha256": sha256(tmp_path / "model" / "model.safetensors")}


@pytest.mark.parametrize("theirs", [b"two", None])
def test_a_digest_is_not_that_of_a_file_which_another_run_put_in_the_same_place(tmp_path, monkeypatch, theirs):
    monkeypatch.setattr(digests, "LARGE", 0)
    place = tmp_path / "model"
    place.mkdir()
    (place / "file").write_bytes(b"one")
    states = digests.private_states_of(place, ["file"])
    (place / "file").unlink()
    if theirs:
        (place / "file").write_bytes(theirs)
    for remember in (digests.remember_made, lambda *args: digests.remember(*args, "a result")):
        settle()
        remember(place, {"file": "the digest of one"}, states)
        assert digests.remembered_sha256(place / "file", digests.state_of(place / "file")) == ""


@pytest.fixture
def hashed(monkeypatch) -> list[bool]:
    """Whether each reading of a whole checkpoint beside its conversion computes its digest."""
    found: list[bool] = []

    class Noted(ChecksummedRead):
        def __init__(self, file: int, hashed: bool, stopped: Event) -> None:
            found.append(hashed)
            super().__init__(file, hashed, stopped)

    monkeypatch.setattr("converters.sources.npz.ChecksummedRead", Noted)
    return found


def test_a_checkpoint_is_hashed_once_be_it_when_it_is_downloaded(tmp_path, monkeypatch, hashed):
    monkeypatch.setattr(digests, "LARGE", 0)
    file = tmp_path / "tiny.npz"
    np.savez(file, **make_checkpoint((1,), 32, 5, mids=(32,)))
    settle()
    with FileServer({"/tiny.npz": file.read_bytes()}) as server:
        for index, place in enumerate((file, file, server.url("/tiny.npz"))):
            converted(place, tmp_path / str(index), "--no-verify")
    assert hashed == [True, False, False]
    said = [json.loads((tmp_path / str(index) / "provenance.json").read_text()) for index in range(3)]
    sources = [each["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] for each in said]
    assert sources == [{"sha256": sha256(file)}] * 3


def test_a_digest_is_not_waited_for_where_what_it_is_taken_beside_fails(file):
    class Hole(TensorFile):
        recognises = open = shapes = read = None

    os.truncate(file, 1 << 40)  # which takes an hour to read
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Hole(file).hashing():
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 60


def test_a_checkpoint_is_not_checked_to_its_end_where_what_it_is_checked_beside_fails(tmp_path):
    path = tmp_path / "late.npz"
    path.touch()
    os.truncate(path, 1 << 38)  # before the archive, and a quarter of an hour to read
    with zipfile.ZipFile(path, "a") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, np.ones(2, np.float32))
    begun = time.monotonic()
    with NpzSource.open(path) as source, pytest.raises(KeyboardInterrupt), source.checking():
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 60


def test_values_that_changed_behind_unchanged_names_are_found(made):
    weights = made / "model.safetensors"
    before, content = weights.stat(), bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "holds something else" in again(made)


@pytest.fixture
def upgraded(made, monkeypatch) -> Path:
    """The folder, seen by a later version."""
    for module in ("converters.conversion", "converters.auditing.audits"):
        monkeypatch.setattr(f"{module}.VERSION", "99.0")
    return made


@pytest.mark.slow
def test_what_another_version_made_is_left_alone(upgraded):
    files = {path.name: path.read_bytes() for path in upgraded.iterdir()}
    assert again(upgraded) == again(upgraded) == "kept"
    assert {path.name: path.read_bytes() for path in upgraded.iterdir()} == files


@pytest.mark.slow
def test_refresh_renews_card_and_report_of_another_version_once(upgraded):
    weights = (upgraded / "model.safetensors").read_bytes()
    assert again(upgraded, "--refresh") == "made"
    assert json.loads((upgraded / "parity.json").read_text())["release"] == "99.0"
    assert (upgraded / "model.safetensors").read_bytes() == weights
    settle()
    assert again(upgraded, "--refresh") == again(upgraded) == "kept"


@pytest.mark.slow
def test_another_version_s_folder_with_other_weights_is_something_else(upgraded):
    config = upgraded / "config.json"
    config.write_text(config.read_text().replace('"num_channels": 3', '"num_channels": 4'))
    assert "holds something else" in again(upgraded)
    assert "holds something else" in again(upgraded, "--refresh")
