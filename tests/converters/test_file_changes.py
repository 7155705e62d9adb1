"""What happens to files while they are read: nothing, or it is named; a restored content and a restored time too."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.auditing.audits import audit_folder
from converters.auditing.target import own_readers
from converters.file_changes import SMALL, FileChanges, loaded_files
from converters.options import Proof
from converters.sources import open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.command_line import converted

REPLACED = {"model.safetensors": "was replaced or written to"}


def rewrite(path: Path, content: bytes) -> None:
    """In place, with the time of modification set back."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def write_and_restore(path: Path) -> None:
    content = path.read_bytes()
    rewrite(path, content[::-1])
    rewrite(path, content)


def move_away_and_back(path: Path) -> None:
    path.rename(path.with_name(".aside"))
    path.write_bytes(b"other")
    path.with_name(".aside").replace(path)


def lead_elsewhere_and_back(path: Path) -> None:
    content = path.resolve()
    path.unlink()
    path.symlink_to(path.with_name("config.json"))
    path.unlink()
    path.symlink_to(content)


CHANGES = {
    "rewritten": lambda path: rewrite(path, path.read_bytes()[::-1]),
    "replaced": lambda path: replace(path, path.read_bytes()[::-1]),
    "replaced by the same content": lambda path: replace(path, path.read_bytes()),
    "written and restored": write_and_restore,
    "moved away and back": move_away_and_back,
}


@pytest.fixture(params=["small", "large"])
def weights(request, tmp_path):
    """Some file of a folder, as large as is told by its times alone, or smaller; it was written a while ago."""
    path = tmp_path / "model.safetensors"
    size = SMALL + 4096 if request.param == "large" else 4096
    path.write_bytes(os.urandom(4096) + bytes(size - 4096))
    (tmp_path / "config.json").write_text("{}")
    return path


@pytest.fixture
def old(monkeypatch):
    """Files count as written long ago, however short the test."""
    monkeypatch.setattr("converters.file_changes.YOUNG", -(10**18))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_is_named(weights, change, old):
    watch = FileChanges(lambda: loaded_files(weights.parent))
    assert watch.changes() == {}
    change(weights)
    assert watch.changes() == REPLACED


def test_a_change_within_the_resolution_of_the_times_is_named(weights, monkeypatch):
    """As on a file system that gives everything the same time: the content tells."""
    monkeypatch.setattr("converters.file_changes._identity", lambda path: (((0,),), path.stat().st_size, True))
    watch = FileChanges(lambda: loaded_files(weights.parent))
    assert watch.changes() == {}
    rewrite(weights, weights.read_bytes()[::-1])
    assert watch.changes() == REPLACED


def test_a_large_file_that_was_just_written_is_known_by_its_times(tmp_path, monkeypatch):
    """They are waited for, which is shorter than reading 4 GB twice."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(SMALL + 1))
    monkeypatch.setattr("converters.file_changes.sha256", lambda path: pytest.fail("it was read"))
    watch = FileChanges(lambda: loaded_files(tmp_path))
    assert watch.changes() == {}
    path.touch()
    assert watch.changes() == REPLACED


def test_a_link_that_leads_elsewhere_and_back_is_named(weights, old):
    blob = weights.rename(weights.with_name(".blob"))
    weights.symlink_to(blob)
    watch = FileChanges(lambda: loaded_files(weights.parent))
    assert watch.changes() == {}
    lead_elsewhere_and_back(weights)
    assert watch.changes() == REPLACED


def test_files_that_come_and_go_are_named(weights):
    watch = FileChanges(lambda: loaded_files(weights.parent))
    weights.unlink()
    weights.with_name("adapter_config.json").write_text("{}")
    weights.with_name("README.md").write_text("A card is not loaded.")
    weights.with_name(".cache").write_text("")
    assert watch.changes() == {"adapter_config.json": "was added", "model.safetensors": "was removed"}


class Meddler:
    """A reader that does something while it runs."""

    def __init__(self, reader, meddle):
        self._reader, self._meddle = reader, meddle
        self.name, self.unit = reader.name, reader.unit

    def run(self, image):
        outputs = self._reader.run(image)
        self._meddle()
        return outputs

    def close(self):
        self._reader.close()


@pytest.fixture(scope="module")
def audited_pair(tmp_path_factory):
    place = tmp_path_factory.mktemp("race")
    np.savez(place / "tiny.npz", **make_checkpoint((1, 1), 32, 4, mids=(32, 64)))
    converted(place / "tiny.npz", place / "folder")
    return place / "tiny.npz", place / "folder"


def raced(checkpoint: Path, folder: Path, meddle):
    def readers(target):
        first, *rest = own_readers(target)
        return [Meddler(first, meddle), *rest]

    with open_checkpoint(checkpoint) as source:
        return audit_folder(folder, source, readers, Proof(pool_padding="zeros"), lambda *_: None)


def reverse_head(folder: Path) -> None:
    """Other weights in the place of the folder's: the classes in reverse."""
    stored = load_file(folder / "model.safetensors")
    stored = {n: v[::-1].copy() if n.startswith("classifier") else v for n, v in stored.items()}
    save_file(stored, folder / "new", metadata={"format": "pt"})
    (folder / "new").replace(folder / "model.safetensors")


@pytest.mark.slow
def test_weights_replaced_while_the_readers_ran_fail_with_the_digest_of_those_that_were_read(audited_pair):
    checkpoint, folder = audited_pair
    before = raced(checkpoint, folder, lambda: None)
    assert before, before.reason
    report = raced(checkpoint, folder, lambda: reverse_head(folder))
    assert (report.verdict, report.fault.kind, report.fault.place) == (
        "failed",
        "changed while audited",
        "model.safetensors",
    )
    assert report.reason.startswith("model.safetensors was replaced or written to while the audit ran")
    assert report.files == before.files


def test_a_checkpoint_replaced_while_the_readers_ran_fails(audited_pair, tmp_path):
    checkpoint, folder = tmp_path / "tiny.npz", audited_pair[1]
    checkpoint.write_bytes(audited_pair[0].read_bytes())
    report = raced(checkpoint, folder, lambda: replace(checkpoint, b"another"))
    assert (report.verdict, report.fault.place) == ("failed", "the checkpoint's tiny.npz")
