"""What ``bit-verify`` is given: names before paths, and never a target as its own source."""

import os
import shutil
import tarfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from converters.cli.commands import verify
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, converted, refused, run

DIGITS = Path(str(files("converters.catalogue"))) / "digits" / "BiT-digits.npz"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A parent folder with the converted digits under their own name, and a tiny network."""
    place = tmp_path_factory.mktemp("models")
    assert run("--variant", "BiT-digits", "--output", place, "--quiet").exit_code == 0
    np.savez(place / "tiny.npz", **make_checkpoint((1, 1), 32, 4, mids=(32, 64)))
    converted(place / "tiny.npz", place / "tiny")
    converted(place / "tiny.npz", place / "tiny-npz", "--layout", "npz")
    return place


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    """A copy of the models, which is the working folder."""
    shutil.copytree(models, tmp_path / "models")
    monkeypatch.chdir(tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.slow
def test_a_name_after_against_wins_over_a_path(here):
    report = audited("BiT-digits", "BiT-digits", here / "report")
    assert report["verdict"] == "passed"
    assert report["source"]["file"] == "BiT-digits.npz"
    assert any(found["place"] == "config.json id2label" for found in report["expectations"])


@pytest.mark.slow
def test_the_folder_of_a_name_is_audited_not_assumed(here):
    np.savez("other.npz", **make_checkpoint((1, 1, 1, 1), 32, 10))
    shutil.rmtree("BiT-digits")
    converted("other.npz", here / "BiT-digits")
    assert audited("BiT-digits", "BiT-digits", here / "report")["verdict"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["./tiny", "tiny", "tiny/", "{here}/tiny", "../models/tiny"])
def test_a_path_that_is_no_name_is_a_path(here, spelling):
    other = here / "copy"
    shutil.copytree("tiny", other)
    report = audited(other, spelling.format(here=here), here / "report")
    assert (report["verdict"], report["source"]["format"]) == ("passed", "safetensors")


def test_a_path_of_a_name_is_written_with_its_folder(here):
    shutil.copytree("BiT-digits", "copy")
    for spelling in ("./BiT-digits", "BiT-digits/", here / "BiT-digits"):
        assert audited("copy", spelling, here / "report")["source"]["format"] == "safetensors"


def test_a_pattern_of_several_names_is_refused(here):
    assert "names" in refused(2, "tiny", "--against", "BiT-M-*", command=verify)
    assert "one is meant" in refused(2, "tiny", "--against", "tiny.npz", "--variant", "BiT-*", command=verify)


def test_a_name_as_target_that_is_no_folder_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused(2, "BiT-digits", "--against", "BiT-digits", command=verify)
    assert "BiT-digits: a released checkpoint, not a converted folder" in said


def by_hard_link(here: Path) -> Path:
    os.link(here / "tiny" / "model.safetensors", here / "link.safetensors")
    return here / "link.safetensors"


def by_link(here: Path) -> Path:
    (here / "link").symlink_to(here / "tiny")
    return here / "link"


def by_link_of_the_weights(here: Path) -> Path:
    (here / "other").mkdir()
    (here / "other" / "model.safetensors").symlink_to(here / "tiny" / "model.safetensors")
    return here / "other"


@pytest.mark.parametrize(
    "source",
    [
        lambda here: here / "tiny",
        lambda here: "./tiny",
        lambda here: "tiny/",
        lambda here: here / "tiny" / "model.safetensors",
        by_hard_link,
        by_link,
        by_link_of_the_weights,
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_a_target_that_is_its_own_source_is_refused(here, source, check):
    checked = ["--check", here / "tiny" / "parity.json"] if check else []
    said = refused(2, "tiny", "--against", source(here), *checked, "--quiet", command=verify)
    assert "is its own source" in said
    assert not (here / "parity").exists()


def test_a_report_beside_its_own_source_is_refused(here):
    said = refused(2, "--check", "tiny/parity.json", "--against", "./tiny", "--quiet", command=verify)
    assert "is its own source" in said


def test_an_npz_folder_is_its_own_source_too(here):
    assert "is its own source" in refused(2, "tiny-npz", "--against", here / "tiny-npz", "--quiet", command=verify)


def test_copies_and_other_formats_are_other_sources(here):
    with tarfile.open("tiny.tar.gz", "w:gz") as archive:
        archive.add("tiny", "tiny")
    shutil.copytree("tiny", "copy")
    for source in ("tiny.tar.gz", "copy", "tiny.npz", "tiny-npz"):
        assert audited("tiny", source, here / "report")["verdict"] == "passed"
