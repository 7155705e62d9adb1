"""Output folders: whole or not at all, and leftovers of a killed process cleaned by the next."""

import errno
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from converters.errors import UsageError
from converters.placing import install, refuse_place, temporary_folder, workspace


def fill(folder, content="new"):
    (folder / "file").write_text(content)


def test_folder_appears_only_when_installed(tmp_path):
    place = tmp_path / "deep" / "model"
    with workspace(place) as folder:
        fill(folder)
        assert not place.exists()
        install(folder, place)
        assert (place / "file").read_text() == "new"
    assert [path.name for path in place.parent.iterdir()] == ["model"]


def test_of_many_that_install_at_once_one_is_left(tmp_path):
    place = tmp_path / "model"

    def make(number: int) -> None:
        for _ in range(20):
            with workspace(place) as folder:
                fill(folder, str(number))
                install(folder, place)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [None] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_not_installed_leaves_nothing(tmp_path):
    with workspace(tmp_path / "model") as folder:
        fill(folder)
    assert list(tmp_path.iterdir()) == []

    def fail():
        with workspace(tmp_path / "model") as folder:
            fill(folder)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_install_replaces_what_was_there(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    fill(place, "old")
    (place / "other").write_text("old")
    with workspace(place) as folder:
        fill(folder)
        install(folder, place)
    assert {path.name: path.read_text() for path in place.iterdir()} == {"file": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_leftover_of_a_killed_process_is_removed_and_a_living_ones_folder_is_not(tmp_path):
    place = tmp_path / "model"
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from converters.placing import workspace
        with workspace(Path({str(place)!r})) as folder:
            (folder / "file").write_text("half")
            print(folder.name, flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        name = process.stdout.readline().strip()
        with workspace(place) as folder:
            assert {path.name for path in tmp_path.iterdir()} == {name, folder.name}
        process.kill()
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with workspace(place) as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_place_that_cannot_be_written_is_wrong_usage(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match=r"file: cannot be written: .*--output"),
        workspace(tmp_path / "file" / "model"),
    ):
        pass


def test_folder_can_be_read_by_others(tmp_path):
    with workspace(tmp_path / "model") as folder:
        install(folder, tmp_path / "model")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_place_of_a_long_name_is_replaced_like_any_other(tmp_path):
    place = tmp_path / ("m" * 230)
    for content in ("old", "new"):
        with workspace(place) as folder:
            fill(folder, content)
            install(folder, place)
    assert (place / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [place]


def test_the_home_is_not_replaced_whatever_links_lead_to_it(tmp_path, monkeypatch):
    (tmp_path / "disk" / "me").mkdir(parents=True)
    (tmp_path / "home").symlink_to("disk")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    for place in (tmp_path / "disk", tmp_path / "disk" / "me", tmp_path / "home" / "me"):
        with pytest.raises(UsageError, match="holds the working or home directory"):
            refuse_place(place, force=True)


def test_an_error_of_something_else_is_none_of_the_temporary_folder_s():
    def work(error: OSError) -> None:
        with temporary_folder("bit-convert-"):
            raise error

    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), OSError("429 Too Many Requests")):
        with pytest.raises(type(error)) as caught:
            work(error)
        assert caught.value is error
    with pytest.raises(UsageError, match=r"cannot be written: .*TMPDIR"):
        work(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def test_an_empty_working_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (Path(), tmp_path):
        with pytest.raises(UsageError, match="holds the working or home directory"):
            refuse_place(place, force=False)
    (tmp_path / "file").touch()
    refuse_place(tmp_path, force=False)  # what it holds may be the very result
