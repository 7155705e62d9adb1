"""Places: repositories of a Hub on 127.0.0.1, modules and files of a web server, and what cannot be had."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.download.locations import MODULE_FILES, fetch, identity
from converters.errors import HubError, Scope, UsageError
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, converted, elsewhere, refused, run
from tests.converters.sources.conftest import FORMATS
from tests.converters.sources.writers import torch_names
from tests.file_server import FileServer
from tests.hub_server import HubServer, User
from tests.verify.support import audited as reported

READER = "hf_" + "ReaderReaderReader"


@pytest.fixture(scope="module")
def others() -> dict[str, np.ndarray]:
    """The same network with other values."""
    return make_checkpoint((1, 1), 32, 3, seed=6, mids=(32, 64))


def content(path: Path) -> dict[str, bytes]:
    """The files of a folder, or the one file, by name."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return {file.relative_to(path if path.is_dir() else path.parent).as_posix(): file.read_bytes() for file in files}


def kept(format: str, tensors: Mapping[str, np.ndarray], folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    return content(FORMATS[format](tensors, folder))


def holds(folder: Path, tensors: dict[str, np.ndarray]) -> bool:
    """Whether a folder in the transformers layout has these values."""
    spelt, stored = torch_names(tensors, "transformers"), load_file(folder / "model.safetensors")
    return spelt.keys() == stored.keys() and all(stored[name].tobytes() == v.tobytes() for name, v in spelt.items())


# -- repositories


@pytest.fixture(scope="module")
def hub(tensors, others, tmp_path_factory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    with HubServer({READER: User("me", role="read")}) as server:
        whole = kept("transformers", tensors, folder / "whole")
        model = server.add("me/bit", files={**whole, "README.md": b"# BiT", "notes/big.csv": b"1,2\n"})
        older = kept("transformers", others, folder / "older")
        model.refs["older"] = server.add("me/other", files=older).refs["main"]
        model.commits |= server.repositories["me/other"].commits
        for name, format in (
            ("shards", "transformers in shards"), ("bin", "original .bin"), ("npz", "npz"),
        ):  # fmt: skip
            server.add(f"me/{name}", files=kept(format, tensors, folder / name))
        server.add("me/both", files={**kept("original .bin", others, folder / "both"), **whole})
        np.savez(folder / "tiny.npz", **tensors)
        converted(folder / "tiny.npz", folder / "model", "--no-verify")
        server.add("me/model", files=content(folder / "model"))
        server.add("me/empty", files={"README.md": b"# nothing"})
        server.add("me/secret", private=True, files=whole)
        yield server


def report_of(name: str) -> str:
    """A report of a port of this name that passed."""
    return replace(reported(make_checkpoint((1,), 32, 4), size=32), target={"name": name}).to_json()


def test_repositories_are_read_by_id_by_page_and_by_revision(hub: HubServer, tensors, others, tmp_path: Path) -> None:
    places = {
        "hf://me/bit": tensors, "hf://me/bit@older": others, f"{hub.url}/me/bit": tensors,
        f"{hub.url}/me/bit/": tensors, f"{hub.url}/me/bit/tree/older": others, "hf://me/shards": tensors,
        "hf://me/bin": tensors, "hf://me/npz": tensors, "hf://me/both": tensors, "hf://me/secret": tensors,
    }  # fmt: skip
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": READER}
    runs = [
        ("convert", "--checkpoint", place, "--output", tmp_path / str(number), "--no-verify", "--quiet")
        for number, place in enumerate(places)
    ]
    refusals = {
        "hf://me/empty": (3, "hf://me/empty"), "hf://me/missing": (4, "hf://me/missing"),
        "hf://me/bit@nowhere": (4, "hf://me/bit"), "hf://bit": (2, "hf://NAMESPACE/NAME"), "hf://": (2, "hf://"),
    }  # fmt: skip
    runs += [("convert", "--checkpoint", place, "--output", tmp_path / "refused") for place in refusals]
    np.savez(tmp_path / "tiny.npz", **tensors)
    audit = ("--report", tmp_path / "parity", "--json", "--quiet")
    runs += [
        ("verify", "hf://me/model", "--against", tmp_path / "tiny.npz", *audit),
        ("verify", tmp_path / "0", "--against", "hf://me/bin", *audit),
        ("verify", "hf://me/model", "--against", "hf://me/bit@older", *audit),
        ("verify", "hf://me/bit", "--against", tmp_path / "tiny.npz", *audit),
    ]
    hub.add("me/reported", files={"parity.json": report_of("ours").encode(), "model.safetensors": b"never fetched"})
    (tmp_path / "parity.json").write_text(report_of("theirs"))
    compare = ("verify", "--json", "--report", tmp_path / "parity", "--compare", tmp_path / "parity.json")
    runs += [(*compare, "hf://me/reported"), (*compare, "hf://me/bit"), (*compare, "hf://me/missing")]
    answers = elsewhere(*runs, **environment)
    for number, (place, values) in enumerate(places.items()):
        assert answers[number][0] == 0, (place, answers[number])
        assert holds(tmp_path / str(number), values), place
    for (place, (status, said)), (code, out, error) in zip(refusals.items(), answers[len(places) :], strict=False):
        assert (code, out) == (status, ""), (place, error)
        assert said in error, (place, error)
        assert len(error.splitlines()) <= 2, error
    assert not (tmp_path / "refused").exists()
    audits, comparisons = answers[-7:-3], answers[-3:]
    assert [status for status, _, _ in audits] == [0, 0, 1, 3], audits
    assert [json.loads(out)["tensors"]["bit_exact"] for _, out, _ in audits[:3]] == [len(tensors), len(tensors), 0]
    assert "config.json" in audits[3][2]
    targets = [json.loads(out)["target"] for _, out, _ in audits[:3]]
    commit = hub.repositories["me/model"].refs["main"]
    assert targets == [
        {"name": "me/model", "revision": commit},
        {"name": "0"},
        {"name": "me/model", "revision": commit},
    ]
    assert all(READER not in out + error for _, out, error in answers)
    assert not list((tmp_path / "home").rglob("big.csv"))
    assert [status for status, _, _ in comparisons] == [0, 2, 4], comparisons
    reported = hub.repositories["me/reported"].refs["main"]
    titles = ["theirs against tiny.npz", f"me/reported@{reported[:12]} against tiny.npz"]
    assert json.loads(comparisons[0][1])["titles"] == titles
    assert "no parity.json there" in comparisons[1][2]
    assert not list((tmp_path / "home").glob("hub/models--me--reported/snapshots/*/model.safetensors"))

    environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    offline = elsewhere(
        ("convert", "--checkpoint", "hf://me/bit", "--output", tmp_path / "offline", "--no-verify", "--offline"),
        ("convert", "--checkpoint", "hf://me/bin", "--output", tmp_path / "offline bin", "--no-verify", "--offline"),
        ("convert", "--checkpoint", "hf://me/empty", "--output", tmp_path / "refused", "--offline"),
        ("convert", "--checkpoint", "hf://me/unseen", "--output", tmp_path / "refused", "--offline"),
        ("convert", "--checkpoint", "hf://me/bit", "--output", tmp_path / "no network", "--no-verify", "--quiet"),
        ("verify", "hf://me/model", "--against", tmp_path / "tiny.npz", *audit),
        (*compare, "hf://me/reported", "--offline"),
        (*compare, "hf://me/secret", "--offline"),
        (*compare, "hf://me/reported"),
        **environment,
    )
    assert [status for status, _, _ in offline] == [0, 0, 4, 4, 0, 0, 0, 2, 0], offline
    assert holds(tmp_path / "offline", tensors)
    assert holds(tmp_path / "offline bin", tensors)
    assert holds(tmp_path / "no network", tensors)
    assert "the cached snapshot is used" in offline[4][2]
    command = ("convert", "--checkpoint", "hf://me/bit", "--output", tmp_path / "variable", "--no-verify")
    assert elsewhere(command, **environment, HF_HUB_OFFLINE="1")[0][0] == 0
    assert holds(tmp_path / "variable", tensors)


def test_a_hub_that_cannot_be_reached_or_does_not_know_us_is_4(hub: HubServer, tmp_path: Path) -> None:
    command = ("convert", "--checkpoint", "hf://me/secret", "--output", tmp_path / "model", "--quiet")
    stranger = elsewhere(command, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"), HF_TOKEN="hf_" + "WrongWrong")
    nobody = elsewhere(command, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "home"))
    for ((status, out, error),) in (stranger, nobody):
        assert (status, out) == (4, "")
        assert "hf://me/secret: cannot be fetched" in error
        assert len(error.splitlines()) == 2
        assert "WrongWrong" not in error
    assert "Check the name" in stranger[0][2]
    assert "Check the network" in nobody[0][2]
    assert "name" not in nobody[0][2]
    assert not (tmp_path / "model").exists()


def test_a_hub_that_may_be_back_is_worth_another_attempt(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("converters.download.retry.UNANSWERED", 0.2)
    with pytest.raises(HubError, match="Check the network") as caught:
        fetch("hf://me/bit", progress=lambda what, done, total: None)
    assert caught.value.scope is Scope.PASSING


@pytest.mark.slow
def test_files_of_a_repository_are_asked_for_by_the_same_rules(hub: HubServer, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", READER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.fail("resolve", 503, times=3, headers={"Retry-After": "1"})
    begun = time.monotonic()
    folder = fetch("hf://me/shards", progress=lambda what, done, total: None)
    assert time.monotonic() - begun > 1
    assert len(list(folder.glob("*.safetensors"))) > 1
    hub.fail("resolve", 403, times=None)
    try:
        with pytest.raises(HubError, match=r"403 Forbidden at (HEAD|GET) /me/npz/resolve/"):
            fetch("hf://me/npz", progress=lambda what, done, total: None)
    finally:
        hub.heal()


# -- a web server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("BIT_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_module_s_folder_is_fetched_file_by_file_and_once(cache: Path, tensors, others, tmp_path: Path) -> None:
    files = kept("TF1-Hub with its graph", tensors, tmp_path / "source")
    address = "/vtab/BiT-M-R50x1-run0-caltech101.tfhub/"
    with FileServer({address + name: data for name, data in files.items()}) as server:
        url = server.url(address)
        entry = converted(url, tmp_path / "model")
        assert (entry["report"]["verdict"], entry["report"]["source"]["format"]) == ("passed", "saved-model")
        assert holds(tmp_path / "model", tensors)
        sent = server.sent
        assert not converted(url, tmp_path / "model")["made"]
        assert server.sent == sent
        server.files |= {
            address + name: data for name, data in kept("TF1-Hub with its graph", others, tmp_path / "newer").items()
        }
        converted(url, tmp_path / "newer model", "--no-verify")
        assert holds(tmp_path / "newer model", others)
    converted(url, tmp_path / "offline", "--no-verify", "--offline")
    assert holds(tmp_path / "offline", others)


def test_threads_may_fetch_one_module_at_once(cache: Path) -> None:
    with FileServer({f"/m/{name}": name.encode() for name in MODULE_FILES}) as server:
        url = server.url("/m/")
        folder = fetch(url, progress=lambda what, done, total: None)

    def work(_: int) -> None:
        for _ in range(20):
            assert fetch(url, offline=True, progress=lambda what, done, total: None) == folder

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))  # raises what a thread raised
    assert content(folder) == {name: name.encode() for name in MODULE_FILES}


@pytest.mark.parametrize("missing", ["variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_a_module_without_a_file_is_4_and_names_it(cache: Path, tensors, tmp_path: Path, missing: str) -> None:
    files = kept("TF1-Hub with its graph", tensors, tmp_path / "source")
    del files[missing]
    with FileServer({"/m/" + name: data for name, data in files.items()}) as server:
        message = refused(4, "--checkpoint", server.url("/m/"), "--output", tmp_path / "model", "--quiet")
    assert missing in message
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("format", ["npz deflated", "transformers", "big_vision params/"])
def test_a_file_of_any_kind_is_read_from_its_url(cache: Path, tensors, tmp_path: Path, format: str) -> None:
    ((name, data),) = kept(format, tensors, tmp_path / "source").items()
    with FileServer({"/" + name: data}) as server:
        converted(server.url("/" + name), tmp_path / "model", "--no-verify")
        assert holds(tmp_path / "model", tensors)
        report = audited(tmp_path / "model", server.url("/" + name), tmp_path / "parity")
    assert report["tensors"]["bit_exact"] == len(tensors)


def test_a_web_page_in_place_of_the_file_is_3_and_a_missing_one_4(cache: Path, tmp_path: Path) -> None:
    with FileServer({"/BiT.npz": b"<!doctype html><html>moved</html>"}) as server:
        for path, status, said in (("/BiT.npz", 3, "web page"), ("/none.npz", 4, server.url("/none.npz"))):
            arguments = ("--checkpoint", server.url(path), "--output", tmp_path / "model", "--quiet")
            assert said in refused(status, *arguments)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("address", ["ftp://host/BiT.npz", "hf://a/b/c/d", "hf://a b/c"])
def test_what_is_no_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError):
        fetch(address, progress=lambda what, done, total: None)


def test_a_path_is_read_as_it_is(tmp_path: Path) -> None:
    assert fetch(tmp_path, offline=True, progress=lambda what, done, total: None) == tmp_path
    assert "existing checkpoint" in refused(3, "--checkpoint", tmp_path / "none.npz", "--output", tmp_path / "model")
    assert run("--checkpoint", tmp_path / "none.npz", "--dry-run").exit_code == 3


@pytest.mark.parametrize(
    ("target", "folder", "identified"),
    [
        (".", "models/my-bit", {"name": "my-bit"}),
        ("hub/x", "hub/models--me--a--b/snapshots/c0ffee", {"name": "me/a--b", "revision": "c0ffee"}),
        ("hub/x", "hub/models--bit/snapshots/c0ffee", {"name": "bit", "revision": "c0ffee"}),
        ("kaggle://google/bit/tensorFlow2/m-r50x1", "1", {"name": "kaggle://google/bit/tensorFlow2/m-r50x1"}),
    ],
)
def test_what_was_audited_has_a_name_and_no_path(target, folder, identified, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    assert identity(target, tmp_path / folder) == identified
