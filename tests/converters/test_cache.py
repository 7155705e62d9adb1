"""``bit-convert cache``, on downloads from a real server."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from converters.download import upkeep
from converters.download.cache import Slot, Version
from converters.download.http import cached
from tests.checkpoints import make_checkpoint
from tests.command_line import refused, run
from tests.file_server import FileServer

FILES = {f"/{name}.h5": name.encode() * 1000 for name in ("one", "two")}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def downloads(cache, monkeypatch) -> dict[str, Path]:
    with FileServer(FILES) as server:
        return {path[1:]: cached(server.url(path), size=len(content)) for path, content in FILES.items()}


def said(*words: object, status: int = 0) -> dict[str, dict]:
    result = run("cache", *words, "--json")
    assert result.exit_code == status, result.stderr
    content = json.loads(result.stdout)
    assert content["exit_status"] == status
    return {entry["name"]: entry for entry in content["downloads"]}


def test_nothing_is_listed_where_nothing_is(cache):
    assert said() == said("list") == said("verify") == said("prune") == {}
    assert not cache.exists()


def test_downloads_are_listed_with_what_they_take(downloads, cache):
    found = said()
    assert {name: entry["state"] for name, entry in found.items()} == {"one.h5": "whole", "two.h5": "whole"}
    for name, path in downloads.items():
        assert found[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stat().st_size <= found[name]["bytes"] < path.stat().st_size + 2000
    text = run("cache").stdout
    assert "2 downloads" in text
    assert str(cache) in text
    assert "one.h5" in text


def test_a_damaged_download_is_found_by_reading_it_and_goes(downloads):
    path = downloads["one.h5"]
    before = path.stat()
    path.write_bytes(b"x" + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert said()["one.h5"]["state"] == "whole", "as far as can be seen without reading it"
    found = said("verify", status=3)
    assert {name: entry["state"] for name, entry in found.items()} == {"one.h5": "damaged", "two.h5": "whole"}
    os.utime(path)
    assert [*said("prune")] == ["one.h5"]
    assert [*said()] == ["two.h5"]
    assert run("cache").stdout.splitlines()[-1].startswith("1 download, ")
    assert said("prune") == {}
    assert said("verify")["two.h5"]["state"] == "whole"


def test_what_is_old_goes_when_that_is_asked_for(downloads):
    for path in downloads["one.h5"].parents[1].rglob("*"):
        os.utime(path, (0, 0))
    assert said("prune", "--older-than", 100000) == {}
    assert [*said("prune", "--older-than", 30)] == ["one.h5"]
    assert [*said()] == ["two.h5"]


def test_what_another_process_is_at_stays(downloads):
    (slot,) = (slot for slot in Slot.all() if slot.name == "one.h5")
    with slot.locked():
        assert [*said("prune", "--all")] == ["two.h5"]
    assert [*said()] == ["one.h5"]
    assert [*said("prune", "--all")] == ["one.h5"]


def test_what_is_downloaded_while_pruning_waits_stays(cache, monkeypatch):
    monkeypatch.setattr(upkeep, "BUSY", 10.0)
    slot = Slot.of("https://host/one.h5")
    gone: list[upkeep.Kept] = []
    with slot.locked():
        pruning = threading.Thread(target=lambda: gone.extend(upkeep.prune()))
        pruning.start()
        time.sleep(0.3)
        slot.start(Version())
        slot.partial.write_bytes(b"one")
        path = slot.finish(Version(), hashlib.sha256(b"one").hexdigest(), "")
    pruning.join()
    assert gone == []
    assert path.read_bytes() == b"one"


def test_a_download_that_waits_for_pruning_goes_on_after_it(cache):
    slot = Slot.of("https://host/one.h5")

    def work() -> None:
        with slot.locked():
            slot.start(Version())

    working = threading.Thread(target=work)
    with slot.locked():
        slot.start(Version())
        working.start()
        time.sleep(0.3)
        slot.clear()
    working.join()
    assert [row.state for row in upkeep.kept()] == [upkeep.DownloadState.EMPTY]
    assert slot.partial.exists()


def test_what_other_processes_replace_meanwhile_stops_no_list(downloads, monkeypatch):
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "entry.json":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert [row.name for row in upkeep.kept()] == ["one.h5", "two.h5"]


def test_a_download_that_the_disk_has_lost_is_damaged(downloads, monkeypatch):
    def unreadable(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(upkeep, "sha256", unreadable)
    assert {entry["state"] for entry in said("verify", status=3).values()} == {"damaged"}


def test_digests_of_folders_that_are_gone_are_forgotten(cache, tmp_path):
    np.savez(tmp_path / "tiny.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    words = ("--checkpoint", tmp_path / "tiny.npz", "--output", tmp_path / "model")
    assert run(*words).exit_code == 0
    assert run(*words).exit_code == 0
    folders = [json.loads(path.read_bytes())["folder"] for path in (cache / "known").iterdir()]
    assert str(tmp_path / "model") in folders
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    said("prune")
    folders = [json.loads(path.read_bytes())["folder"] for path in (cache / "known").iterdir()]
    assert str(tmp_path / "model") not in folders


def test_other_folders_in_the_cache_stay(cache):
    (cache / "mine").mkdir(parents=True)
    (cache / "mine" / "file").write_text("x")
    said("prune", "--all")
    assert (cache / "mine" / "file").exists()


def test_wrong_words_are_refused():
    assert "prune" in refused(2, "cache", "clean")
    assert "--all" in refused(2, "cache", "list", "--all")
    assert "contradict each other" in refused(2, "cache", "--quiet", "--verbose")


def test_a_path_of_that_name_is_written_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "cache.npz", **make_checkpoint((1,), 32, 5, mids=(32,)))
    (tmp_path / "cache.npz").rename(tmp_path / "cache")
    assert run("./cache", "--dry-run").exit_code == 0
