"""Models of Kaggle, by the real kagglehub, from a server on 127.0.0.1 that has them as Kaggle does."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converters.catalogue.variants import find, kaggle_handle
from converters.download import kaggle
from converters.download.locations import fetch
from converters.errors import HubError, UsageError
from tests.command_line import converted, refused, run
from tests.converters.sources import writers
from tests.kaggle_server import KaggleServer, archive_of

pytest.importorskip("kagglehub")
HANDLE = "google/bit/tensorFlow2/m-r50x1/1"
KEY = "s3cr3t-k3y"


@pytest.fixture(scope="module")
def module(tensors, tmp_path_factory) -> dict[str, bytes]:
    """The files of a TF-Hub module."""
    folder = writers.tf1_hub_module(tensors, tmp_path_factory.mktemp("module") / "module")
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()
    }


@pytest.fixture
def server(module, tmp_path: Path, monkeypatch) -> Iterator[KaggleServer]:
    with KaggleServer({HANDLE: module}) as running:
        monkeypatch.setenv("KAGGLE_API_ENDPOINT", running.url)
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
        monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "BIT_CONVERT_OFFLINE", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield running


def silent(what: str, done: int, total: int) -> None:
    """No progress."""


@pytest.mark.parametrize(
    "address",
    [
        f"kaggle://{HANDLE}",
        f"https://www.kaggle.com/models/{HANDLE}",
        "https://kaggle.com/models/google/bit/TensorFlow2/m-r50x1/1?select=saved_model.pb",
        "https://www.kaggle.com/models/google/bit/frameworks/TensorFlow2/variations/m-r50x1/versions/1",
        "http://www.kaggle.com/models/google/bit/tensorFlow2/m-r50x1/versions/1/",
    ],
)
def test_a_model_has_many_addresses(address: str) -> None:
    assert kaggle.handle_of(address) == HANDLE


def test_an_address_without_a_version_is_the_newest() -> None:
    for address in (
        "kaggle://google/bit/tensorFlow2/m-r50x1",
        "https://kaggle.com/models/google/bit/tensorFlow2/m-r50x1",
    ):
        assert kaggle.handle_of(address) == "google/bit/tensorFlow2/m-r50x1"


@pytest.mark.parametrize(
    "address",
    [
        "kaggle://google/bit",
        "kaggle://",
        "kaggle://a/b/c/d/e",
        "kaggle://a/b/c/d/0",
        "kaggle://../../../x",
        "kaggle://a/../c/d",
        "kaggle://a/b/c/d/1/more",
        "https://www.kaggle.com/datasets/a/b",
        "https://www.kaggle.com/models/google/bit",
    ],
)
def test_other_addresses_of_kaggle_s_are_wrong_usage(address: str, tmp_path: Path) -> None:
    assert "kaggle://OWNER/MODEL" in refused(2, "--checkpoint", address, "--output", tmp_path / "out")


def test_what_is_not_kaggle_s_is_left_to_others() -> None:
    for address in ("hf://a/b", "https://example.org/models/a/b/c/d/1", "gs://bit_models/a.npz", "http://[::1/x"):
        assert kaggle.handle_of(address) is None


def test_the_catalogue_s_modules_have_handles() -> None:
    handles = {variant.name: kaggle_handle(variant.url or "") for variant in find("tfhub/*")}
    assert handles["tfhub/bit/m-r50x1"] == HANDLE
    assert (
        handles["tfhub/bit/s-r152x4/ilsvrc2012_classification"]
        == "google/bit/tensorFlow2/s-r152x4-ilsvrc2012-classification/1"
    )
    assert (
        handles["tfhub/bit/m-r101x3/imagenet21k_classification"]
        == "google/bit/tensorFlow2/m-r101x3-imagenet21k-classification/1"
    )
    assert len(set(filter(None, handles.values()))) == 25
    assert handles["tfhub/experts/bit/r50x1/in21k/bird"] is None
    assert kaggle_handle("https://tfhub.dev/google/bit/m-r50x1") == HANDLE.removesuffix("/1")


@pytest.mark.parametrize("archived", [False, True], ids=["files", "archive"])
def test_a_module_is_fetched_once_and_is_what_its_npz_is(server, tensors, tmp_path: Path, archived: bool) -> None:
    server.archived = archived
    np.savez(tmp_path / "bit.npz", **tensors)
    converted(tmp_path / "bit.npz", tmp_path / "npz", "--no-verify")
    converted(f"kaggle://{HANDLE}", tmp_path / "first", "--no-verify")
    asked = len(server.requests)
    for options in ((), ("--offline",)):
        converted(f"kaggle://{HANDLE}", tmp_path / "again", "--no-verify", "--force", *options)
    converted(f"kaggle://{HANDLE[:-2]}", tmp_path / "unversioned", "--no-verify", "--offline")
    assert len(server.requests) == asked
    converted(f"https://www.kaggle.com/models/{HANDLE[:-2]}", tmp_path / "newest", "--no-verify")
    assert server.requests[asked:] == [f"/api/v1/models/{HANDLE[:-2]}/get"]
    weights = {f.parent.name: f.read_bytes() for f in tmp_path.glob("*/model.safetensors")}
    assert weights.keys() == {"npz", "first", "again", "unversioned", "newest"}
    assert len(set(weights.values())) == 1


def test_two_that_want_one_module_fetch_it_once(server, module) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(f"kaggle://{HANDLE}", progress=silent))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert {f.relative_to(found[0]).as_posix() for f in found[0].rglob("*") if f.is_file()} == module.keys()
    assert len(server.requests) == len(set(server.requests)), "no file was asked for twice"


def test_nothing_is_written_but_the_result(server, tmp_path: Path, capfd) -> None:
    """Neither kagglehub's log, nor its bars, nor that it is out of date."""
    result = run("--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out", "--no-verify", "--quiet", "--json")
    assert result.exit_code == 0
    assert result.stdout.startswith("{")
    assert result.stderr == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_refusals_of_the_server_are_said_with_what_to_do(server, tmp_path: Path, status: int, monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    server.faults["/files"] = status
    message = refused(4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")
    assert f"kaggle://{HANDLE}: cannot be fetched: Kaggle answers {status}" in message
    remedy = {404: "Check the handle", 500: "Try again later"}.get(status, "Public models need no sign-in")
    assert remedy in message
    assert KEY not in message


def test_an_unknown_model_is_said_to_be_one(server, tmp_path: Path) -> None:
    message = refused(4, "--checkpoint", "kaggle://google/bit/tensorFlow2/m-r50x9", "--output", tmp_path / "out")
    assert "Check the handle" in message


def test_what_is_in_the_cache_serves_where_kaggle_cannot_be_asked(server, tmp_path: Path, monkeypatch, caplog) -> None:
    newest = f"kaggle://{HANDLE[:-2]}"
    folder = fetch(newest, progress=silent)
    for status in (503, 500):
        server.faults["/get"] = status
        assert fetch(newest, progress=silent) == folder
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(newest, progress=silent) == folder
    assert caplog.text.count("the cached model is used") == 3
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", server.url)
    server.faults["/get"] = 404
    with pytest.raises(HubError, match="Check the handle"):
        fetch(newest, progress=silent)


@pytest.mark.parametrize("names", [[5], [None], ["a" * 5000], [{"x": 1}]])
def test_a_list_of_files_that_is_none_is_said(server, module, tmp_path: Path, names) -> None:
    server.faults["/files"] = json.dumps({"files": [{"name": name} for name in names], "nextPageToken": ""}).encode()
    assert "cannot be fetched" in refused(4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")


@pytest.mark.parametrize("body", [b"[]", b"7", b'{"files": 3}', b"{", b"[" * 100_000], ids=range(5))
def test_what_is_no_list_of_files_is_said(server, tmp_path: Path, body: bytes) -> None:
    server.faults["/files"] = body
    assert "cannot be fetched" in refused(4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")


def test_a_server_that_is_not_there_is_said(server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", f"http://me:{KEY}@127.0.0.1:9")
    message = refused(4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")
    assert "Check the network" in message
    assert KEY not in message


@pytest.mark.parametrize("archived", [False, True], ids=["files", "archive"])
def test_a_cut_download_is_no_model_and_can_be_run_again(server, tmp_path: Path, archived: bool, module) -> None:
    server.archived = archived
    end = "/download" if archived else next(name for name in module if ".data-" in name)
    server.cut.add(end)
    refused(4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "not in kagglehub's cache" in refused(
        4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out", "--offline"
    )
    server.cut.clear()
    converted(f"kaggle://{HANDLE}", tmp_path / "out", "--no-verify")


def test_defective_archives_are_refused_and_fetched_again(server, module, tmp_path: Path) -> None:
    server.archived = True
    whole = archive_of(module)
    for defective in (whole[: len(whole) // 2], b"<html>no archive</html>"):
        server.faults["/download"] = defective
        assert "damaged" in refused(4, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")
    server.faults.clear()
    converted(f"kaggle://{HANDLE}", tmp_path / "out", "--no-verify")


@pytest.mark.parametrize("archived", [False, True], ids=["files", "archive"])
def test_nothing_is_written_outside_the_model_s_folder(server, module, tmp_path: Path, archived: bool) -> None:
    for name in ("../../../../../../../escaped", str(tmp_path / "escaped")):
        server.models[HANDLE] = {name: b"x", **module}
        server.archived = archived
        result = run("--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out", "--no-verify")
        assert result.exit_code in (0, 4)  # tarfile takes absolute names for relative ones
        assert all("m-r50x1" in path.parts for path in tmp_path.rglob("escaped"))
        if not archived:
            assert "leads out of the model's folder" in result.stderr


def test_without_kagglehub_the_command_says_how_to_get_it(server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    message = refused(2, "--checkpoint", f"kaggle://{HANDLE}", "--output", tmp_path / "out")
    assert "pip install 'bit-convert[kaggle]'" in message
    assert server.requests == []


def test_a_module_that_tfhub_dev_has_not_is_fetched_from_kaggle(server, module, monkeypatch) -> None:
    def cached(address: str, **_: object) -> Path:
        raise HubError(f"{address}: the server answers 404.\nCheck the URL.")

    monkeypatch.setattr("converters.download.http.cached", cached)
    address = find("tfhub/bit/m-r50x1")[0].url
    assert address is not None
    folder = fetch(address, progress=silent)
    assert {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} == module.keys()
    with pytest.raises(HubError, match=r"m-r101x1/1: the server answers 404\.\nkaggle://.*Kaggle answers 404"):
        fetch("https://tfhub.dev/google/bit/m-r101x1/1", progress=silent)
    with pytest.raises(HubError, match="the server answers 404"):
        fetch("https://tfhub.dev/google/experts/bit/r50x1/in21k/bird/1", progress=silent)
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(HubError, match=r"pip install 'bit-convert\[kaggle\]'"):
        fetch(address, progress=silent)


@pytest.mark.parametrize("variable", ["BIT_CONVERT_OFFLINE", "HF_HUB_OFFLINE"])
def test_the_environment_may_forbid_requests(server, monkeypatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubError, match="offline"):
        fetch(f"kaggle://{HANDLE}", progress=silent)
    assert server.requests == []


def test_a_handle_is_no_path() -> None:
    with pytest.raises(UsageError):
        fetch("kaggle://google/../../x", progress=silent)
