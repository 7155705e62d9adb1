"""Publishing, with the real client against a Hub on 127.0.0.1 that fails on request."""

from __future__ import annotations

import dataclasses
import email.utils
import hashlib
import logging
import multiprocessing
import multiprocessing.context
import os
import signal
import socket
import threading
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from converters.download import gates, retry
from converters.download.retry import Pace
from converters.errors import HubError, ParityError, Scope, UsageError
from converters.hub import upload
from converters.hub.collection import gather
from converters.hub.guard import Publication, is_there
from converters.hub.upload import publish
from converters.options import PublishOptions
from converters.release.estimate import requests_of
from tests.converters.publish_faults import LASTING, PULL_REQUEST_STEPS, RANDOM, STEPS, TROUBLES, Trouble
from tests.hub_server import Answer, Blob, HubServer, PullRequest, Repository, Request, User
from verify import Report
from verify.report.parity import TensorCounts

# huggingface_hub's way of handing a file to its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "not/like/a/token/of/the/Hub"
READ_ONLY = "hf_" + "ReadReadReadRead"
STRANGER = "hf_" + "OtherOtherOther"
USERS = {
    TOKEN: User("me", organizations=("ours",)),
    READ_ONLY: User("me", role="read"),
    STRANGER: User("stranger"),
}
NAME = "BiT-S-R50x1"
REPO = f"me/{NAME}"
FILES = {
    "model.safetensors": b"weights" * 100,
    "config.json": b'{"model_type": "bit"}\n',
    "preprocessor_config.json": b"{}\n",
}
CARD = b"---\nlicense: apache-2.0\n---\n# A card\n"


SOON = 0.15
"""Seconds of silence that are too much, where slowness is tested."""


@dataclass
class Clock:
    """Time that passes only by waiting."""

    time: float = 0.0
    waits: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds

    def pace(self, timeout: float = 10.0) -> Pace:
        return Pace(timeout=timeout, sleep=self.sleep, now=lambda: self.time)


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer(USERS, delay=5 * SOON) as server:
        yield server


@pytest.fixture
def hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    server.heal()
    server.repositories.clear()
    server.collections.clear()
    gates._closed.clear()
    upload._users.clear()
    retry._answered.add(server.url.removeprefix("http://"))
    for variable, value in {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(variable, value)
    # This Hub offers no Xet. The constant was read from HF_HUB_DISABLE_XET when huggingface_hub was first imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    return server


def converted(folder: Path, files: dict[str, bytes] | None = None, **changes) -> tuple[Path, Report]:
    """A verified folder of these files, and its report."""
    files = FILES if files is None else files
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(
        verdict="passed",
        reason="equal",
        max_abs_error=1e-6,
        floor=1e-6,
        ratio=1.0,
        tensors=TensorCounts(153, 153, 153, 153, 153),
        layers=(),
        readers=(),
        oracle="numpy",
        other_oracles=(),
        layout="transformers",
        dtype="float32",
        rounding=0.0,
        exact="bits",
        pool_padding="zeros",
        source={"file": "BiT-S-R50x1.npz", "format": "npz", "sha256": "ab" * 32},
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        images=(),
        release="0.1.0",
    )
    report = dataclasses.replace(report, **changes)
    for name, content in {**files, "README.md": CARD, "parity.json": report.to_json().encode()}.items():
        (folder / name).write_bytes(content)
    return folder, report


@pytest.fixture
def result(tmp_path: Path) -> tuple[Path, Report]:
    return converted(tmp_path / "folder")


def put(result: tuple[Path, Report], clock: Clock | None = None, trouble: Trouble | None = None, **options):
    """Publishes; where the trouble is slowness, it counts as such soon."""
    pace = (clock or Clock()).pace(SOON) if trouble and trouble.what == "slow" else (clock or Clock()).pace()
    names = [field.name for field in dataclasses.fields(PublishOptions)]
    wanted = PublishOptions(**{name: options.pop(name) for name in names if name in options})
    return publish(*result, options.pop("name", NAME), wanted, **{"pace": pace} | options)


def contents(repository: Repository, revision: str = "main") -> dict[str, bytes]:
    return {path: blob.content for path, blob in repository.tree(revision).items() if path != ".gitattributes"}


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------ without any fault


def test_one_commit_carries_every_file(hub: HubServer, result):
    published = put(result)
    repository = hub.repositories[REPO]
    assert contents(repository) == whole(result[0])
    assert len(repository.history()) == 1
    assert published == Publication(REPO, "main", repository.refs["main"], f"{hub.url}/{REPO}", changed=True)
    assert repository.tree()["model.safetensors"].lfs
    assert not repository.tree()["config.json"].lfs


def test_what_is_there_already_costs_a_handful_of_requests_and_no_upload(hub: HubServer, result):
    first = put(result)
    hub.heal()
    again = put(result)
    assert again == dataclasses.replace(first, changed=False)
    assert hub.requests == ["model_info"]


@pytest.mark.parametrize(
    "options",
    [
        {"namespace": "me"},
        {"repo_id": REPO, "tag": "v1"},
        {"create_pr": True},
        {"namespace": "me", "revision": "next"},
        {},
    ],
    ids=str,
)
def test_a_new_model_takes_as_many_requests_as_an_estimate_says(hub: HubServer, result, options):
    put(result, **options)
    others = [kind for kind in hub.requests if kind in ("lfs_upload", "whoami")]  # the storage's, once a run
    assert len(hub.requests) - len(others) == requests_of(PublishOptions(**options)), hub.requests


def test_other_figures_on_the_same_files_are_the_same_result(hub: HubServer, result, tmp_path: Path):
    put(result)
    hub.heal()
    elsewhere = converted(tmp_path / "elsewhere", max_abs_error=2e-6, release="0.2.0")
    assert not put(elsewhere, repo_id=REPO).changed
    assert hub.requests == ["model_info", "resolve"]


@pytest.mark.parametrize(
    "changes",
    [{"exact": "logits"}, {"pool_padding": "-inf"}, {"source": {"file": "x", "format": "npz", "sha256": "cd" * 32}}],
    ids=["exact", "pool padding", "source"],
)
def test_another_result_is_committed_though_the_files_are_the_same(hub: HubServer, result, tmp_path: Path, changes):
    put(result)
    assert put(converted(tmp_path / "other", **changes)).changed
    assert len(hub.repositories[REPO].history()) == 2


def test_a_report_that_claims_what_the_files_are_not_is_not_believed(hub: HubServer, result):
    put(result)
    repository = hub.repositories[REPO]
    tampered = repository.tree() | {"config.json": dataclasses.replace(repository.tree()["config.json"], content=b"{}")}
    repository.commit("main", tampered, "tampered", "somebody")
    assert put(result).changed
    assert contents(repository) == whole(result[0])


def test_a_failed_report_on_the_hub_is_no_result(hub: HubServer, result):
    put(result)
    repository = hub.repositories[REPO]
    failed = Blob(dataclasses.replace(result[1], verdict="failed").to_json().encode(), lfs=False)
    repository.commit("main", repository.tree() | {"parity.json": failed}, "theirs", "somebody")
    assert put(result).changed


def test_others_files_stay_and_our_stale_ones_go_in_the_same_commit(hub: HubServer, tmp_path: Path):
    hub.add(REPO, files={"theirs.txt": b"theirs", "model-00003-of-00003.safetensors": b"theirs too"})
    shards = {"model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2"}
    shards |= {"model.safetensors.index.json": b"{}", "config.json": b"{}"}
    put(converted(tmp_path / "sharded", shards))
    put(converted(tmp_path / "whole"))
    repository = hub.repositories[REPO]
    assert len(repository.history()) == 3
    theirs = {"theirs.txt": b"theirs", "model-00003-of-00003.safetensors": b"theirs too"}
    assert contents(repository) == whole(tmp_path / "whole") | theirs


def test_a_gitignore_of_the_repository_keeps_nothing_out(hub: HubServer, result):
    hub.add(REPO, files={".gitignore": b"*.safetensors config.json"})
    put(result)
    assert contents(hub.repositories[REPO]).keys() == {*whole(result[0]), ".gitignore"}


@pytest.mark.parametrize(
    ("options", "repo_id"),
    [
        ({}, REPO),
        ({"namespace": "ours"}, f"ours/{NAME}"),
        ({"repo_id": "ours/another"}, "ours/another"),
    ],
)
def test_where_it_goes(hub: HubServer, result, options, repo_id):
    assert put(result, **options).repo_id == repo_id
    assert [*hub.repositories] == [repo_id]


def test_the_token_may_be_given(hub: HubServer, result, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    assert put(result, token=TOKEN).repo_id == REPO


def test_a_new_repository_is_private_on_request(hub: HubServer, result):
    put(result, private=True)
    assert hub.repositories[REPO].private
    assert not put(result, private=True).changed


def test_what_is_to_be_private_does_not_go_into_a_public_repository(hub: HubServer, result):
    repository = hub.add(REPO)
    with pytest.raises(HubError, match="is public, so nothing was published"):
        put(result, private=True)
    assert not repository.history()


def test_a_branch_is_made_from_main_where_it_is_missing(hub: HubServer, result):
    repository = hub.add(REPO, files={"theirs.txt": b"theirs"})
    before = repository.refs["main"]
    published = put(result, revision="v2 / test")
    assert published.url == f"{hub.url}/{REPO}/tree/v2%20%2F%20test"
    assert contents(repository, "v2 / test") == whole(result[0]) | {"theirs.txt": b"theirs"}
    assert repository.refs["main"] == before
    assert not put(result, revision="v2 / test").changed


def test_a_tag_is_put_once_and_never_moved(hub: HubServer, result, tmp_path: Path):
    first = put(result, tag="v1")
    repository = hub.repositories[REPO]
    assert repository.tags == {"v1": first.commit}
    assert put(result, tag="v1") == dataclasses.replace(first, changed=False)
    other = converted(tmp_path / "other", FILES | {"config.json": b'{"other": 1}'})
    with pytest.raises(HubError, match=f"the tag v1 is on commit {first.commit[:12]} and is never moved. Nothing was"):
        put(other, tag="v1")
    assert len(repository.history()) == 1
    assert put(other, tag="v2").commit == repository.tags["v2"]


def test_a_pull_request_is_opened_once_and_then_updated(hub: HubServer, result, tmp_path: Path, monkeypatch):
    repository = hub.add("someone/model", files={"theirs.txt": b"theirs"})
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    # Pull requests that only look like ours: of somebody else, and one of ours that carries no report.
    title = f"Add {NAME}, converted and verified by bit-convert"
    repository.pull_requests += [PullRequest(1, title, "somebody"), PullRequest(2, title, "stranger")]
    repository.refs |= {"refs/pr/1": repository.refs["main"], "refs/pr/2": repository.refs["main"]}

    first = put(result, repo_id="someone/model", create_pr=True)
    assert (first.pull_request, first.revision, first.changed) == (3, "refs/pr/3", True)
    assert first.url == f"{hub.url}/someone/model/discussions/3"
    assert contents(repository, "refs/pr/3") == whole(result[0]) | {"theirs.txt": b"theirs"}
    assert put(result, repo_id="someone/model", create_pr=True) == dataclasses.replace(first, changed=False)

    other = converted(tmp_path / "other", FILES | {"config.json": b'{"other": 1}'})
    assert put(other, repo_id="someone/model", create_pr=True).pull_request == 3
    assert contents(repository, "refs/pr/3") == whole(other[0]) | {"theirs.txt": b"theirs"}
    assert len(repository.pull_requests) == 3
    assert len(repository.history()) == 1

    repository.refs["main"] = repository.refs["refs/pr/3"]  # merged
    repository.pull_requests[2].status = "merged"
    assert put(other, repo_id="someone/model", create_pr=True).pull_request is None
    assert len(repository.pull_requests) == 3


@pytest.mark.parametrize("message", ["Another title", "Another title\n\nThe reason,\nin two lines."])
def test_a_message_of_the_user_s_is_the_commit_s_and_the_pull_request_s(hub: HubServer, result, message):
    put(result, commit_message=message)
    repository = hub.repositories[REPO]
    assert "Another title" in {commit.title for commit in repository.history()}
    hub.repositories.clear()
    hub.add(REPO)
    first = put(result, commit_message=message, create_pr=True)
    (pull_request,) = hub.repositories[REPO].pull_requests
    assert pull_request.title == "Another title"
    assert put(result, commit_message=message, create_pr=True).pull_request == first.pull_request == 1


def test_an_empty_message_is_refused():
    with pytest.raises(UsageError, match="--commit-message is empty"):
        PublishOptions(commit_message=" \n")
    with pytest.raises(UsageError, match="a folder hub has no --commit-message"):
        PublishOptions(commit_message="x", hub=Path("hub"))


@pytest.mark.parametrize("options", [{"tag": "v1"}, {"revision": "v2"}])
def test_a_pull_request_goes_with_neither_tag_nor_branch(hub: HubServer, result, options):
    with pytest.raises(UsageError, match="--create-pr"):
        put(result, create_pr=True, **options)
    assert not hub.requests


# ---------------------------------------------------------------------------------------------------------- the guard


def spoil_verdict(folder: Path, report: Report) -> Report:
    return dataclasses.replace(report, verdict="failed", reason="head is wrong")


def spoil_report(folder: Path, report: Report) -> Report:
    (folder / "parity.json").write_text(dataclasses.replace(report, ratio=2.0).to_json())
    return report


def spoil_weights(folder: Path, report: Report) -> Report:
    (folder / "model.safetensors").write_bytes(b"Weights" + FILES["model.safetensors"][7:])
    return report


def spoil_missing(folder: Path, report: Report) -> Report:
    (folder / "README.md").unlink()
    return report


def spoil_link(folder: Path, report: Report) -> Report:
    (folder / "config.json").rename(folder.parent / "config.json")
    (folder / "config.json").symlink_to(folder.parent / "config.json")
    return report


def spoil_name(folder: Path, report: Report) -> Report:
    (folder.parent / "outside").write_bytes(b"")
    report = dataclasses.replace(report, files={**report.files, "../outside": hashlib.sha256(b"").hexdigest()})
    (folder / "parity.json").write_text(report.to_json())
    return report


def spoil_empty(folder: Path, report: Report) -> Report:
    report = dataclasses.replace(report, files={})
    (folder / "parity.json").write_text(report.to_json())
    return report


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_verdict, "verification failed: head is wrong"),
        (spoil_report, "parity.json: not published: it is not the file that was verified"),
        (spoil_weights, "model.safetensors: not published: it is not the file that was verified"),
        (spoil_missing, "README.md: not published: it is missing"),
        (spoil_link, "config.json: not published: it is a link"),
        (spoil_name, "'../outside' is not a plain file name"),
        (spoil_empty, "names no file"),
    ],
)
def test_only_what_a_passed_report_vouches_for_is_published(hub: HubServer, result, spoil, said):
    folder, report = result
    report = spoil(folder, report)
    with pytest.raises(ParityError, match=said):
        put((folder, report))
    assert not hub.requests


@pytest.mark.parametrize("size", [0, 10**9], ids=["sent from disk", "sent from memory"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_changes_on_the_way_is_not_committed(hub: HubServer, result, monkeypatch, name, size):
    monkeypatch.setattr("converters.hub.upload.IN_MEMORY", size)
    other = bytes(reversed(FILES[name]))
    repository = hub.add(REPO, files={"config.json": bytes(reversed(FILES["config.json"]))})
    hub.on_request = lambda request: (result[0] / name).write_bytes(other)
    with pytest.raises(ParityError, match=f"{name}: changed while it was published. Nothing was committed"):
        put(result)
    assert len(repository.history()) == 1


def test_what_the_hub_made_of_it_is_compared(hub: HubServer, result, monkeypatch):
    apply = hub._apply
    monkeypatch.setattr(
        hub, "_apply", lambda *a: apply(*a[:3], a[3] | {"content": "AAAA"} if "content" in a[3] else a[3])
    )
    with pytest.raises(HubError, match=r"does not hold what was sent: README.md, config.json, parity.json"):
        put(result)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("token", "options", "said"),
    [
        ("hf_" + "WrongWrongWrong", {}, "Log in with `hf auth login`, or set HF_TOKEN"),
        (None, {}, "no token was found. Log in with `hf auth login`"),
        (READ_ONLY, {}, "Use a token with write access"),
        (TOKEN, {"namespace": "stranger"}, "another --namespace or --repo-id"),
        (TOKEN, {"repo_id": "someone/model"}, "rights to write to someone/model"),
        (TOKEN, {"repo_id": "someone/model", "revision": "v2"}, "rights to write to someone/model"),
        (TOKEN, {"repo_id": "someone/hidden"}, "under the namespace someone"),
        (TOKEN, {"repo_id": REPO, "revision": "refs/pr/7"}, "Check --repo-id, --revision"),
        (TOKEN + "é", {}, "characters that no token has"),
    ],
)
def test_what_is_refused_is_not_asked_again(hub: HubServer, result, monkeypatch, token, options, said):
    hub.add("someone/model")
    hub.add("someone/hidden", private=True)
    hub.add(REPO)
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nonexistent")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    clock = Clock()
    with pytest.raises(HubError, match=said) as raised:
        put(result, clock, **options)
    assert raised.value.exit_status == 4
    assert "\n" not in str(raised.value)
    assert len(hub.requests) <= 5
    assert not clock.waits
    assert not any(repository.history() for repository in hub.repositories.values())


@pytest.mark.parametrize(("status", "said"), [(404, "HF_HUB_DISABLE_XET=1 uploads without it"), (403, "write access")])
def test_what_xet_is_refused_is_not_asked_again(hub: HubServer, result, monkeypatch, status, said):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.fail("xet_token", status, times=None)
    clock = Clock()
    with pytest.raises(HubError, match=said):
        put(result, clock)
    assert not clock.waits


@pytest.mark.parametrize("repo_id", ["no/such/name", "onlyname", "me/..", "me/a--b"])
def test_a_name_that_is_no_repositorys_is_wrong_usage(hub: HubServer, result, repo_id):
    with pytest.raises(UsageError, match=repo_id.replace(".", r"\.")):
        put(result, repo_id=repo_id)
    assert not hub.requests


def test_a_card_that_the_hub_refuses_is_said(hub: HubServer, result):
    (result[0] / "README.md").write_bytes(b"no metadata")
    with pytest.raises(HubError, match=r"Invalid metadata in README\.md\. - metadata is missing"):
        put(result)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "BIT_CONVERT_OFFLINE"])
def test_offline_is_said(hub: HubServer, result, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        put(result)
    assert not hub.requests


# ------------------------------------------------------------------------------------------------- the table of faults

TO_A_BRANCH = {"revision": "v2", "tag": "v1"}
"""Options under which a publication makes every kind of request."""


def commits(hub: HubServer, since: int = 0, ref: str = "v2") -> int:
    """How many commits the branch has got."""
    repository = hub.repositories.get(REPO)
    return len(repository.history(ref)) - since if repository and ref in repository.refs else 0


def prepare(hub: HubServer, kind: str, tmp_path: Path) -> int:
    """Puts there what makes a publication meet this kind of request; returns how many commits that are."""
    if kind == "resolve":
        put(converted(tmp_path / "older", FILES | {"config.json": b'{"older": 1}'}), revision="v2")
    hub.requests.clear()
    return commits(hub)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
@pytest.mark.parametrize("kind", STEPS)
def test_every_fault_leaves_one_whole_commit_or_none(hub, result, tmp_path, kind, trouble: Trouble, after):
    older = prepare(hub, kind, tmp_path)
    hub.fail(kind, trouble.what, after=after, headers=trouble.headers, error=trouble.error)
    clock, published, error = Clock(), None, None
    try:
        published = put(result, clock, trouble, **TO_A_BRANCH)
    except HubError as refused:
        error = str(refused)
    assert kind in hub.requests, "the fault did not strike"
    assert not (error and trouble.passes), error
    assert "\n" not in (error or "")
    assert commits(hub, older) == 1 if published else commits(hub, older) <= 1
    assert clock.waits or trouble.what != "slow"
    assert published or (kind, after) != ("commit", True), "what was made was not found"
    assert float(trouble.headers.get("Retry-After", 0)) <= clock.time < 60

    again = put(result, **TO_A_BRANCH)
    assert commits(hub, older) == 1
    assert contents(hub.repositories[REPO], "v2") == whole(result[0])
    assert hub.repositories[REPO].tags == {"v1": again.commit} == {"v1": hub.repositories[REPO].refs["v2"]}
    assert published in (None, dataclasses.replace(again, changed=True))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
@pytest.mark.parametrize("kind", PULL_REQUEST_STEPS)
def test_every_fault_leaves_one_pull_request_or_none(hub, result, monkeypatch, kind, trouble: Trouble, after):
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    repository = hub.add(REPO, files={"theirs.txt": b"theirs"})
    hub.fail(kind, trouble.what, after=after, headers=trouble.headers, error=trouble.error)
    options = {"repo_id": REPO, "create_pr": True}
    published, error = None, None
    try:
        published = put(result, None, trouble, **options)
    except HubError as refused:
        error = str(refused)
    assert not (error and trouble.passes), error
    assert kind in hub.requests, "the fault did not strike"
    if (kind, trouble.what, after) == ("commit", "slow", False):
        time.sleep(hub.delay)  # until the late one is there, too

    again = put(result, **options)
    still_open = [pr for pr in repository.pull_requests if pr.status == "open"]
    assert [pr.number for pr in still_open] == [again.pull_request]
    assert len(repository.pull_requests) == 1 or trouble.what == "slow"
    assert contents(repository, again.revision) == whole(result[0]) | {"theirs.txt": b"theirs"}
    assert contents(repository) == {"theirs.txt": b"theirs"}
    assert published in (None, dataclasses.replace(again, changed=True)) or trouble.what == "slow"


@pytest.mark.parametrize("what", LASTING)
@pytest.mark.parametrize("kind", STEPS)
def test_it_gives_up_in_time_and_a_rerun_finishes(hub: HubServer, result, tmp_path, kind, what):
    older = prepare(hub, kind, tmp_path)
    hub.fail(kind, what, times=None)
    clock = Clock()
    with pytest.raises(HubError, match=r"gave up after 120 s without progress") as raised:
        put(result, clock, **TO_A_BRANCH)
    first, second = str(raised.value).splitlines()
    assert str(what) in first or "Error" in first
    assert second.endswith("Run the same command again to go on from there.")
    assert 60 < clock.time <= 120
    assert max(clock.waits) <= 8
    assert commits(hub, older) == (1 if kind == "tag" else 0)

    hub.faults.clear()
    again = put(result, **TO_A_BRANCH)
    assert commits(hub, older) == 1
    assert contents(hub.repositories[REPO], "v2") == whole(result[0])
    assert hub.repositories[REPO].tags == {"v1": again.commit}


@pytest.mark.parametrize("what", ["reset", "cut", 503])
def test_a_commit_whose_answers_are_all_lost_is_found(hub: HubServer, result, what):
    hub.fail("commit", what, after=True, times=None)
    assert put(result).changed
    assert commits(hub, ref="main") == 1
    assert hub.requests.count("commit") == 1


@pytest.mark.parametrize("seed", range(12))
def test_one_request_in_five_fails(hub: HubServer, result, seed):
    hub.fail_at_random(RANDOM, 0.2, seed)
    published = put(result, **TO_A_BRANCH)
    assert published.changed
    assert commits(hub) == 1
    assert contents(hub.repositories[REPO], "v2") == whole(result[0])


@pytest.mark.parametrize("seed", range(12))
def test_one_request_for_a_pull_request_in_five_fails(hub: HubServer, result, monkeypatch, seed):
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    repository = hub.add(REPO)
    hub.fail_at_random(RANDOM, 0.2, seed)
    assert put(result, repo_id=REPO, create_pr=True).pull_request == 1
    assert len(repository.pull_requests) == 1
    assert contents(repository, "refs/pr/1") == whole(result[0])


def test_other_work_on_the_account_is_waited_for(hub: HubServer, result):
    busy = "Cannot create repo: another conflicting operation is in progress"
    hub.fail("create_repo", 409, error=busy, times=3)
    clock = Clock()
    assert put(result, clock).changed
    assert len(clock.waits) == 3


def test_a_wait_beyond_patience_is_not_begun(hub: HubServer, result):
    hub.fail("preupload", 429, headers={"Retry-After": "3601"})
    clock = Clock()
    with pytest.raises(HubError, match=r"429 .* \(it asks to wait 3601 s\)\nThe repository is there, without this"):
        put(result, clock)
    assert not clock.waits


def test_a_date_to_wait_for_and_a_rate_limit_are_heeded(hub: HubServer, result):
    begun = datetime.now(UTC)
    date = email.utils.format_datetime(begun + timedelta(seconds=300), usegmt=True)
    hub.fail("preupload", 503, headers={"Retry-After": date})
    hub.fail("lfs_batch", 429, headers={"RateLimit": '"api";r=0;t=55'})
    clock = Clock()
    put(result, clock)
    until, rate_limit = clock.waits
    took = (datetime.now(UTC) - begun).total_seconds()
    assert 300 - took - 1 <= until <= 300
    assert rate_limit == 55


def test_waits_that_the_hub_asks_for_are_no_lack_of_progress(hub: HubServer, result):
    hub.fail("preupload", 429, headers={"RateLimit": '"api";r=0;t=150'}, times=3)
    clock = Clock()
    assert put(result, clock).changed
    assert clock.waits == [150, 150, 150]


def test_a_hub_that_asks_to_wait_is_waited_for_as_long_as_patience_says(hub: HubServer, result):
    hub.fail("preupload", 429, headers={"RateLimit": '"api";r=0;t=150'}, times=None)
    clock = Clock()
    with pytest.raises(HubError, match=r"gave up: 429 .*it asks to wait 150 s"):
        put(result, clock, patience=400)
    assert clock.waits == [150, 150]
    with pytest.raises(UsageError, match="--patience"):
        PublishOptions(patience=float("nan"))


def test_what_was_committed_is_not_put_off(hub: HubServer, result):
    """Or a later attempt finds the commit there, and says that nothing was published."""

    def fill(request: Request) -> None:
        if request.kind == "commit":
            hub.fail("model_info", 429, headers={"RateLimit": '"api";r=0;t=150'})

    hub.on_request = fill
    clock = Clock()
    with retry.postponing(5):
        assert put(result, clock).changed
    assert clock.waits == [150]
    hub.on_request = None
    hub.fail("model_info", 429, headers={"RateLimit": '"api";r=0;t=150'})
    with retry.postponing(5), pytest.raises(retry.Postponed):
        put(result, clock, repo_id="me/other")


@pytest.mark.slow
def test_what_the_hub_asks_one_thread_all_with_its_token_heed(hub: HubServer, result, tmp_path, monkeypatch):
    other = converted(tmp_path / "other", FILES | {"config.json": b'{"other": 1}'})
    refused, asked = threading.Event(), []

    def note(request: Request) -> None:
        asked.append((time.monotonic(), request.user and request.user.name))
        if request.kind == "preupload" and not refused.is_set():
            refused.set()

    hub.fail("preupload", 429, headers={"Retry-After": "1"})
    hub.on_request = note
    pace = Pace(timeout=10)
    first = threading.Thread(target=put, args=(result,), kwargs={"pace": pace})
    first.start()
    refused.wait(10)
    time.sleep(0.3)
    begun = time.monotonic()
    put(other, repo_id="me/other", pace=pace)
    put(other, repo_id="stranger/other", token=STRANGER, pace=pace)
    first.join()
    assert not [at for at, user in asked if user == "me" and begun - 0.2 < at < begun + 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_threads_publish_at_once_and_others_requests_are_as_ever(hub: HubServer, tmp_path, seed):
    from huggingface_hub import get_session

    results = [converted(tmp_path / str(n), FILES | {"config.json": b"%d" % n}) for n in range(6)]
    shards = {f"model-0000{n}-of-00003.safetensors": b"%d" % n for n in (1, 2, 3)}
    results += [converted(tmp_path / f"shards {n}", shards | {"config.json": b"%d" % n}) for n in range(2)]
    published: dict[int, Publication] = {}
    before = dict(os.environ)
    hub.fail_at_random(RANDOM, 0.2, seed)

    def work(number: int) -> None:
        published[number] = put(results[number], repo_id=f"me/{number}", pace=Pace(first=0.001, longest=0.01))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(results))]
    for thread in threads:
        thread.start()
    strange = []
    for _ in range(5):
        try:
            strange.append(get_session().get(f"{hub.url}/api/whoami-v2").status_code)
        except Exception as error:
            strange.append(type(error).__module__.partition(".")[0])
    for thread in threads:
        thread.join()
    assert all(published[n].changed for n in range(len(results)))
    assert all(contents(hub.repositories[f"me/{n}"]) == whole(results[n][0]) for n in range(len(results)))
    assert [commits_of(hub, f"me/{n}") for n in range(len(results))] == [1] * len(results)
    assert {*strange} <= {401, *RANDOM, "httpx", "httpx2"}
    assert dict(os.environ) == before


def commits_of(hub: HubServer, name: str) -> int:
    return len(hub.repositories[name].history())


ODD_ANSWERS = {
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a text": b'"x"',
    "half": b'{"id": ',
    "other types": b'{"id": 5, "siblings": {"a": 1}, "sha": [], "name": null, "tags": 3, "branches": 4}',
    "deep": b"[" * 100_000,
    "long numbers": b'{"id": ' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"id": "\xff"}',
    "dates": b'{"id": "a/b", "createdAt": "99999-99-99", "lastModified": 7}',
}


@pytest.mark.parametrize("body", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
@pytest.mark.parametrize("kind", ["whoami", "model_info", "preupload", "lfs_batch", "commit", "refs"])
def test_whatever_a_hub_answers_it_is_an_error_of_the_hub(hub: HubServer, result, monkeypatch, kind, body):
    work = hub.work
    monkeypatch.setattr(hub, "work", lambda request: Answer(200, body) if request.kind == kind else work(request))
    with suppress(HubError):
        put(result, tag="v1", pace=dataclasses.replace(Clock().pace(), silence=3.0))


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_no_more_is_read_of_an_answer_than_is_needed(hub: HubServer, result, monkeypatch, status):
    monkeypatch.setattr("converters.download.answers.LONGEST_BODY", 1 << 20)
    endless = Answer(status, bytes(64 << 20), {"Location": f"{hub.url}/api/whoami-v2"} if status == 302 else {})
    monkeypatch.setattr(hub, "_model_info", lambda *_, **__: endless)
    tracemalloc.start()
    with pytest.raises(HubError):
        put(result, pace=dataclasses.replace(Clock().pace(), silence=1.0))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 200 << 20  # the server's own copies: the body, and the answer with it


def test_a_hub_that_is_not_there_is_said(hub: HubServer, result, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(HubError, match=r"ConnectError at GET /api/whoami-v2: .*refused\nNothing was published."):
            put(result)


def test_a_web_page_in_place_of_the_hub_is_said(hub: HubServer, result, monkeypatch):
    monkeypatch.setattr(hub, "_model_info", lambda *_, **__: Answer(200, b"<html>Please sign in</html>"))
    with pytest.raises(HubError, match="an answer that is not a Hub's"):
        put(result)


# -------------------------------------------------------------------------------------- other writers, and killed runs


def test_another_writer_who_is_faster_is_built_upon(hub: HubServer, result):
    hub.add(REPO, files={"config.json": FILES["config.json"]})

    def write(request: Request) -> None:
        if request.kind == "commit" and hub.requests.count("commit") <= 2:
            names = ("config.json", f"theirs-{hub.requests.count('commit')}")
            theirs = dict.fromkeys(names, Blob(b"theirs", False))
            repository.commit("main", repository.tree() | theirs, "theirs", "somebody")

    repository = hub.repositories[REPO]
    hub.on_request = write
    put(result)
    assert [commit.author for commit in repository.history()] == ["me", "somebody", "somebody", "somebody"]
    assert contents(repository) == whole(result[0]) | {"theirs-1": b"theirs", "theirs-2": b"theirs"}


def in_a_process(folder: Path, options: dict) -> multiprocessing.context.ForkServerProcess:
    """Starts a publication in a process of its own, with the environment of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["converters.hub.upload", "huggingface_hub.hf_api", "tests.converters.test_publish"])
    variables = {name: os.environ[name] for name in ("HF_ENDPOINT", "HF_TOKEN", "HF_HOME")}
    process = context.Process(target=run_in_a_process, args=(folder, options, variables))
    process.start()
    return process


def run_in_a_process(folder: Path, options: dict, variables: dict[str, str]) -> None:
    import huggingface_hub.constants

    os.environ.update(variables)
    huggingface_hub.constants.HF_HUB_DISABLE_XET = True
    report = Report.from_json((folder / "parity.json").read_text())
    publish(folder, report, NAME, PublishOptions(**options), pace=Pace(first=0.01))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", STEPS)
def test_a_killed_run_is_finished_by_the_next(hub: HubServer, result, tmp_path, kind, after):
    older = prepare(hub, kind, tmp_path)
    hub.fail(kind, "kill", after=after)
    process = in_a_process(result[0], TO_A_BRANCH)
    hub.victim = process.pid
    process.join(30)
    assert process.exitcode == -signal.SIGKILL

    again = put(result, **TO_A_BRANCH)
    assert commits(hub, older) == 1
    assert contents(hub.repositories[REPO], "v2") == whole(result[0])
    assert hub.repositories[REPO].tags == {"v1": again.commit}


@pytest.mark.parametrize("same", [True, False], ids=["the same result", "two results"])
def test_two_processes_at_once(hub: HubServer, result, tmp_path, same):
    other = result if same else converted(tmp_path / "other", FILES | {"config.json": b'{"other": 1}'})
    hub.add(REPO)
    both = threading.Barrier(2)

    def meet(request: Request) -> None:
        if request.kind == "commit" and hub.requests.count("commit") <= 2:
            both.wait(10)

    hub.on_request = meet
    processes = [in_a_process(folder, {}) for folder, _ in (result, other)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert commits(hub, ref="main") == (1 if same else 2)
    assert contents(hub.repositories[REPO]) in (whole(result[0]), whole(other[0]))


def test_a_pull_request_that_came_late_twice_is_closed_but_for_one(hub: HubServer, result, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    repository = hub.add(REPO)
    first = put(result, repo_id=REPO, create_pr=True)
    repository.pull_requests.append(dataclasses.replace(repository.pull_requests[0], number=2))
    repository.refs["refs/pr/2"] = repository.refs["refs/pr/1"]
    assert put(result, repo_id=REPO, create_pr=True) == dataclasses.replace(first, changed=False)
    assert [pr.status for pr in repository.pull_requests] == ["open", "closed"]


def test_of_a_pull_request_that_was_opened_late_and_again_one_is_kept(hub: HubServer, result, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    monkeypatch.setattr(hub, "delay", 1.3 * SOON)
    repository = hub.add(REPO)

    def let_the_late_one_pass(request: Request) -> None:
        while request.kind == "commit" and hub.requests.count("commit") == 2 and not repository.pull_requests:
            time.sleep(0.001)

    hub.fail("commit", "slow")
    hub.on_request = let_the_late_one_pass
    published = put(result, None, Trouble("slow", True), repo_id=REPO, create_pr=True)
    assert published.changed
    still_open = [pr.number for pr in repository.pull_requests if pr.status == "open"]
    assert still_open == [published.pull_request]


# ------------------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize("kind", ["whoami", "create_repo", "model_info", "preupload", "lfs_upload", "commit"])
@pytest.mark.parametrize("what", [400, 401, 403, 404, 409, 429, 500, "reset"])
def test_the_token_is_in_nothing_that_is_said(hub: HubServer, result, monkeypatch, capfd, caplog, kind, what):
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "huggingface_hub")
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    hub.fail(kind, what, error=f"your token {TOKEN} and {STRANGER} are no good", times=None)
    said: list[str] = []
    with pytest.raises(HubError) as raised:
        put(result, progress=said.append)
    said += ["".join(traceback.format_exception(raised.value)), repr(raised.value), *capfd.readouterr()]
    assert not [line for line in said if "signature=secret" in line]
    assert caplog.text
    assert not [line for line in [*said, caplog.text] if TOKEN in line or STRANGER in line]


def test_the_steps_are_told(hub: HubServer, result):
    said: list[str] = []
    hub.fail("commit", 503)
    put(result, progress=said.append, **TO_A_BRANCH)
    assert said[0] == f"making the repository {REPO}"
    assert said[1] == "making the branch v2"
    assert said[2].startswith("uploading 5 files, 0.0 MB")
    assert any(line.startswith("503 Service Unavailable at POST") and "trying again in" in line for line in said)
    assert said[-1].startswith("tagging")


def test_what_was_published_is_asked_for_unless_offline(hub: HubServer, result, monkeypatch: pytest.MonkeyPatch):
    published = put(result)
    hub.heal()
    assert is_there(published, PublishOptions())
    assert not is_there(dataclasses.replace(published, commit="0" * 40), PublishOptions())
    assert hub.requests == ["model_info"] * 2
    monkeypatch.setenv("BIT_CONVERT_OFFLINE", "1")
    assert is_there(published, PublishOptions())
    assert hub.requests == ["model_info"] * 2


# -------------------------------------------------------------------------------------------------------- collections

MODELS = ("me/BiT-1", "me/BiT-2", "me/BiT-3")
COLLECTION_STEPS = ("create_collection", "collection", "add_item")


@pytest.fixture
def models(hub: HubServer) -> tuple[str, ...]:
    """The names of models that are on the Hub."""
    for name in MODELS:
        hub.add(name)
    return MODELS


def items(hub: HubServer) -> list[str]:
    """What the one collection holds."""
    (collection,) = hub.collections.values()
    return [name for _, name in collection.items]


def test_a_collection_is_made_and_later_added_to(hub: HubServer, models):
    first = gather("BiT, verified", models[:2])
    assert (first.title, first.added) == ("BiT, verified", models[:2])
    assert first.url == f"{hub.url}/collections/{first.slug}"
    assert hub.requests == ["create_collection", "add_item", "add_item"]
    hub.heal()
    again = gather("BiT, verified", models)
    assert (again.slug, again.added) == (first.slug, models[2:])
    assert hub.requests == ["create_collection", "collection", "add_item"]
    assert items(hub) == [*models]
    hub.heal()
    assert gather("BiT, verified", models).added == ()
    assert hub.requests == ["create_collection", "collection"]


def test_a_collection_is_given_by_its_slug(hub: HubServer, models):
    collection = hub.add_collection("ours/theirs", "Others and ours")
    collection.items.append(("dataset", MODELS[0]))
    found = gather(collection.slug, models)
    assert (found.title, found.added, found.slug) == ("Others and ours", models, collection.slug)
    assert hub.requests[0] == "collection"
    assert items(hub) == [MODELS[0], *models]


def test_a_collection_is_private_on_request(hub: HubServer, models):
    slug = gather("BiT", models, private=True).slug
    assert hub.collections[slug].private


def test_a_collection_of_another_owner_is_another(hub: HubServer, models):
    hub.add("ours/BiT-1")
    assert gather("BiT", models).slug.startswith("me/bit-")
    assert gather("BiT", ["ours/BiT-1"]).slug.startswith("ours/bit-")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("trouble", [t for t in TROUBLES if t.passes and t.what not in (409, 412, "slow")], ids=str)
@pytest.mark.parametrize("step", COLLECTION_STEPS)
def test_a_collection_is_whole_after_any_trouble(hub: HubServer, models, step, trouble, after):
    if step == "collection":
        gather("BiT", models[:1])
    hub.fail(step, trouble.what, after=after, headers=trouble.headers, error=trouble.error)
    found = gather("BiT", models, pace=Clock().pace())
    assert items(hub) == [*models]
    assert found.added == (models[1:] if step == "collection" else models)


@pytest.mark.parametrize("seed", range(20))
def test_a_collection_is_whole_after_much_trouble(hub: HubServer, models, seed):
    hub.fail_at_random([500, 503, "reset", "cut"], rate=0.4, seed=seed)
    gather("BiT", models, pace=Clock().pace())
    assert items(hub) == [*models]


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (READ_ONLY, "BiT", "403 Forbidden .* Use a token that may write the collections of its owner"),
        (STRANGER, "BiT", "403 Forbidden"),
        ("hf_nobody", "BiT", "401 Unauthorized .* Log in with"),
        (TOKEN, f"me/bit-{'0' * 24}", "Check the slug of the collection"),
    ],
)
def test_a_refused_collection_is_said(hub: HubServer, models, token, name, message):
    with pytest.raises(HubError, match=rf"^the collection {name} lacks 3 of 3 models: .*{message}"):
        gather(name, models, token=token)


def test_a_model_that_is_not_there_is_not_gathered(hub: HubServer, models):
    with pytest.raises(HubError, match="lacks 1 of 4 models: 404"):
        gather("BiT", [*models, "me/missing"])
    assert items(hub) == [*models]


def test_a_hub_that_stays_away_is_waited_for(hub: HubServer, models):
    hub.fail("add_item", 503, times=None)
    clock = Clock()
    with pytest.raises(HubError, match=r"lacks 3 of 3 models: gave up: 503.*\nRun the same command again") as error:
        gather("BiT", models, pace=clock.pace())
    assert 100 < clock.time <= 120
    assert error.value.scope is Scope.PASSING


def test_no_collection_is_asked_for_offline(hub: HubServer, models, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BIT_CONVERT_OFFLINE", "1")
    with pytest.raises(HubError, match="BIT_CONVERT_OFFLINE"):
        gather("BiT", models)
    assert hub.requests == []
