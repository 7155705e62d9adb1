"""The folder hub, read with the real huggingface_hub client: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache

from converters.errors import HubError, ParityError, UsageError
from converters.hub.guard import Publication
from converters.hub.local_folder import publish
from converters.options import PublishOptions
from tests.checkpoints import make_checkpoint
from tests.verify.support import audited
from verify import Report

ROOT = Path(__file__).parents[2]
REPO = "google/BiT-tiny"
WEIGHTS, OTHER_WEIGHTS = os.urandom(300_000), os.urandom(300_000)


@pytest.fixture(scope="session")
def passed() -> Report:
    return audited(make_checkpoint((1,), 32, 4), size=32)


def folder_of(path: Path, report: Report, weights: bytes = WEIGHTS, **more: bytes) -> tuple[Path, Report]:
    """A verified folder of small files, and its report."""
    contents = {"model.safetensors": weights, "config.json": b'{"model_type": "bit"}'} | more
    path.mkdir(parents=True)
    for name, content in contents.items():
        (path / name).write_bytes(content)
    (path / "README.md").write_text("# BiT-tiny\n")
    report = replace(report, files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    (path / "parity.json").write_text(report.to_json())
    return path, report


@pytest.fixture
def first(tmp_path, passed) -> tuple[Path, Report]:
    return folder_of(tmp_path / "first", passed)


@pytest.fixture
def second(tmp_path, passed) -> tuple[Path, Report]:
    return folder_of(tmp_path / "second", passed, OTHER_WEIGHTS)


@pytest.fixture
def hub(tmp_path) -> Path:
    return tmp_path / "hub"


def read(hub: Path, revision: str = "main") -> dict[str, bytes]:
    """What the client finds offline: file → content."""
    found = Path(snapshot_download(REPO, cache_dir=hub, revision=revision, local_files_only=True))
    return {p.relative_to(found).as_posix(): p.read_bytes() for p in found.rglob("*") if p.is_file()}


def put(folder: Path, report: Report, repo_id: str, hub: Path, **names: str) -> Publication:
    return publish(folder, report, "BiT-tiny", PublishOptions(repo_id=repo_id, hub=hub, **names))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def scanned(hub: Path):
    info = scan_cache_dir(hub)
    assert info.warnings == []
    (repository,) = info.repos
    assert repository.repo_id == REPO
    return repository


def test_the_client_finds_what_was_published(first, hub):
    folder, report = first
    made = put(folder, report, REPO, hub)
    assert read(hub) == contents(folder)
    assert made.changed
    assert (made.repo_id, made.revision) == (REPO, "main")
    path = hf_hub_download(REPO, "model.safetensors", cache_dir=hub, local_files_only=True)
    assert made.url == Path(path).parent.as_uri()
    assert try_to_load_from_cache(REPO, "config.json", cache_dir=hub, revision=made.commit)
    (revision,) = scanned(hub).revisions
    assert (revision.commit_hash, revision.refs) == (made.commit, {"main"})


def test_blobs_have_the_caches_names_and_links_are_relative(first, hub):
    folder, report = first
    put(folder, report, REPO, hub)
    repository = hub / "models--google--BiT-tiny"
    git = subprocess.run(["git", "hash-object", folder / "config.json"], capture_output=True, text=True, check=True)
    names = {file.file_name: file.blob_path.name for file in next(iter(scanned(hub).revisions)).files}
    assert names["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert names["config.json"] == git.stdout.strip()
    moved = hub.rename(hub.with_name("moved"))
    assert read(moved) == contents(folder)
    assert sorted(p.name for p in (moved / repository.name).iterdir()) == ["blobs", "refs", "snapshots"]


def test_publishing_again_changes_nothing(first, hub):
    folder, report = first
    made = put(folder, report, REPO, hub)
    before = {path: path.lstat().st_mtime_ns for path in (hub / "models--google--BiT-tiny").rglob("*")}
    again = put(folder, report, REPO, hub)
    assert again == replace(made, changed=False)
    assert {path: path.lstat().st_mtime_ns for path in before} == before
    remeasured = replace(report, max_abs_error=1.5e-6)
    (folder / "parity.json").write_text(remeasured.to_json())
    assert not put(folder, remeasured, REPO, hub).changed


def test_the_same_content_is_the_same_commit_in_any_hub(first, second, hub, tmp_path):
    one = put(*first, REPO, hub)
    two = put(*second, REPO, hub)
    back = put(*first, REPO, hub, tag="v1")
    elsewhere = put(*first, "other/name", tmp_path / "elsewhere")
    assert one.commit == back.commit == elsewhere.commit != two.commit
    assert read(hub) == contents(first[0])
    assert read(hub, two.commit) == contents(second[0])
    assert len(scanned(hub).revisions) == 2


def test_damaged_weights_are_published_anew(first, hub):
    folder, report = first
    put(folder, report, REPO, hub)
    blob = hub / "models--google--BiT-tiny" / "blobs" / report.files["model.safetensors"]
    blob.write_bytes(WEIGHTS[:-1] + b"?")
    assert put(folder, report, REPO, hub).changed
    assert read(hub) == contents(folder)
    next(blob.parent.parent.glob("snapshots/*/config.json")).unlink()
    assert put(folder, report, REPO, hub).changed
    assert read(hub) == contents(folder)
    scanned(hub)


def test_others_files_stay_and_our_stale_ones_go(first, hub, tmp_path, passed):
    sharded = folder_of(tmp_path / "sharded", passed, **{"model-2.safetensors": b"2", "model.index.json": b"{}"})
    old = put(*sharded, REPO, hub)
    snapshot = hub / "models--google--BiT-tiny" / "snapshots" / old.commit
    (snapshot / "onnx").mkdir()
    blob = snapshot.parent.parent / "blobs" / ("0" * 40)
    blob.write_bytes(b"theirs")
    (snapshot / "onnx" / "model.onnx").symlink_to("../../../blobs/" + blob.name)
    (snapshot / "notes.txt").write_text("a copy, as on a file system without links")
    put(*first, REPO, hub)
    theirs = {"onnx/model.onnx": b"theirs", "notes.txt": b"a copy, as on a file system without links"}
    assert read(hub) == contents(first[0]) | theirs
    assert read(hub, old.commit) == contents(sharded[0]) | theirs
    scanned(hub)


def test_branches_and_tags(first, second, hub):
    one = put(*first, REPO, hub, tag="v1")
    two = put(*second, REPO, hub, revision="refs/pr/1", tag="v2/rc")
    assert (read(hub), read(hub, "v1")) == (contents(first[0]), contents(first[0]))
    assert read(hub, "refs/pr/1") == read(hub, "v2/rc") == contents(second[0])
    assert not put(*first, REPO, hub, revision="stable").changed
    refs = {revision.commit_hash: revision.refs for revision in scanned(hub).revisions}
    assert refs == {one.commit: {"main", "v1", "stable"}, two.commit: {"refs/pr/1", "v2/rc"}}


def test_a_tag_is_never_moved(first, second, hub):
    put(*first, REPO, hub, tag="v1")
    with pytest.raises(HubError, match="tag v1 is on commit") as caught:
        put(*second, REPO, hub, tag="v1")
    assert caught.value.exit_status == 4
    assert read(hub) == read(hub, "v1") == contents(first[0])
    assert len(scanned(hub).revisions) == 1


@pytest.mark.parametrize("repo_id", ["../evil", "a/b/c", "a--b", "/etc", "a/..", "", ".", "a/b\n"])
def test_a_repository_outside_the_hub_is_refused(first, hub, repo_id):
    with pytest.raises(UsageError, match="--repo-id"):
        put(*first, repo_id, hub)
    assert not hub.exists()


@pytest.mark.parametrize("name", ["../main", "/main", "a//b", "a/../b", ".hidden", "", "-x", "a\n", "f" * 40, "a/"])
def test_a_ref_outside_the_refs_is_refused(first, hub, name):
    for names in ({"revision": name}, {"tag": name}):
        with pytest.raises(UsageError):
            put(*first, REPO, hub, **names)
    with pytest.raises(UsageError, match="same name"):
        put(*first, REPO, hub, revision="v1", tag="v1")
    assert not hub.exists()


def test_only_what_passed_and_is_unchanged_is_published(first, hub):
    folder, report = first
    with pytest.raises(ParityError):
        put(folder, replace(report, verdict="inconclusive"), REPO, hub)
    (folder / "model.safetensors").write_bytes(OTHER_WEIGHTS)
    with pytest.raises(ParityError, match=r"model\.safetensors"):
        put(folder, report, REPO, hub)
    assert not hub.exists()


def test_a_file_that_changes_while_it_is_copied_is_not_published(first, hub, monkeypatch):
    folder, report = first
    import converters.hub.local_folder as module

    real = module.verified_files

    def then_changed(*arguments):
        files = real(*arguments)
        (folder / "model.safetensors").write_bytes(OTHER_WEIGHTS)
        return files

    monkeypatch.setattr(module, "verified_files", then_changed)
    with pytest.raises(ParityError, match="changed after it was verified"):
        put(folder, report, REPO, hub)
    assert scanned(hub).revisions == frozenset()
    assert not (hub / "models--google--BiT-tiny" / ".bit-convert").exists()


def test_a_file_system_without_links_gets_copies(first, second, hub, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    one = put(*first, REPO, hub)
    put(*second, REPO, hub)
    assert not put(*second, REPO, hub).changed
    assert read(hub) == contents(second[0])
    assert read(hub, one.commit) == contents(first[0])
    assert not any(path.is_symlink() for path in hub.rglob("*"))
    scanned(hub)


def test_a_file_system_without_locks_is_told(first, hub, monkeypatch):
    def refuse(*_args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(HubError, match="no locks"):
        put(*first, REPO, hub)


def test_a_hub_that_cannot_be_written_is_told(first, hub):
    hub.write_text("a file")
    with pytest.raises(HubError, match="cannot be written") as caught:
        put(*first, REPO, hub)
    assert str(hub) in str(caught.value)


# Threads and processes


def test_threads_take_turns(first, second, hub):
    def work(result: tuple[Path, Report]) -> None:
        for _ in range(3):
            made.append(put(*result, REPO, hub).commit)

    made: list[str] = []
    threads = [threading.Thread(target=work, args=(result,)) for result in (first, second, first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 12
    assert len(set(made)) == 2
    assert read(hub) in (contents(first[0]), contents(second[0]))
    scanned(hub)


PUBLISH = """
import pickle, sys
from pathlib import Path
from converters.hub.local_folder import publish
from converters.options import PublishOptions
folder, report, hub, times = pickle.loads(sys.stdin.buffer.read())
for _ in range(times):
    publish(folder, report, "BiT-tiny", PublishOptions(repo_id="google/BiT-tiny", hub=hub))
"""


def publishing(folder: Path, report: Report, hub: Path, times: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", PUBLISH], cwd=ROOT, stdin=subprocess.PIPE)
    process.stdin.write(pickle.dumps((folder, report, hub, times)))
    process.stdin.close()
    return process


def test_two_writers_at_once_and_a_reader_that_always_finds_a_whole_one(first, second, hub):
    put(*first, REPO, hub)
    writers = [publishing(*result, hub, 15) for result in (first, second)]
    wholes = (contents(first[0]), contents(second[0]))
    while any(writer.poll() is None for writer in writers):
        assert read(hub) in wholes
        assert scan_cache_dir(hub).warnings == []
    assert [writer.returncode for writer in writers] == [0, 0]
    assert read(hub) in wholes
    assert len(scanned(hub).revisions) == 2


KILLED = """
import pickle, sys
from pathlib import Path
from shutil import copytree
from huggingface_hub import scan_cache_dir, snapshot_download
from converters.hub.local_folder import publish
from converters.options import PublishOptions
from tests.killing import killed_at_every_step

first, second, hubs, before = pickle.loads(sys.stdin.buffer.read())
REPO = "google/BiT-tiny"

def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}

def read(hub, revision="main"):
    return contents(snapshot_download(REPO, cache_dir=hub, revision=revision, local_files_only=True))

def is_whole(hub, allowed):
    if hub.exists():
        info = scan_cache_dir(hub)
        assert info.warnings == [], info.warnings
        if any((repo.repo_path / "refs" / "main").exists() for repo in info.repos):
            assert read(hub) in allowed
            return
    assert not before

def prepare(step):
    if before:
        copytree(hubs / "before", hubs / str(step), symlinks=True)

def work(step):
    publish(*second, "BiT-tiny", PublishOptions(repo_id=REPO, hub=hubs / str(step), tag="v2"))

def check(step, killed):
    hub = hubs / str(step)
    is_whole(hub, [contents(first[0]), contents(second[0])])
    assert all(read(hub, tag) == contents(result[0]) for result, tag in before)
    work(step)
    is_whole(hub, [contents(second[0])])
    assert read(hub, "v2") == contents(second[0])
    assert len(list(scan_cache_dir(hub).repos)[0].revisions) == (2 if before else 1)
    assert not list(hub.glob("models--*/.bit-convert"))
    prepare(step + 1)

for result, tag in before:
    publish(*result, "BiT-tiny", PublishOptions(repo_id=REPO, hub=hubs / "before", tag=tag))
prepare(0)
print(killed_at_every_step(work, check))
"""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["new", "existing", "back"])
def test_killed_at_every_step_a_hub_is_whole_and_the_next_run_finishes(first, second, hub, start):
    before = {"new": [], "existing": [(first, "v1")], "back": [(second, "v0"), (first, "v1")]}[start]
    given = pickle.dumps((first, second, hub, before))
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) > 20
