"""The names of the classes, against installed packages and against the definitions of the tasks."""

from __future__ import annotations

import csv
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import converters
from converters.catalogue.labels import Label, id2label, labels
from converters.catalogue.variants import variants

FOLDER = Path(converters.__file__).parent / "catalogue" / "labels"
SETS = sorted({variant.labels for variant in variants() if variant.labels})


@pytest.mark.parametrize(
    ("set_name", "timms_list", "count"),
    [("ilsvrc2012", "imagenet_synsets.txt", 1000), ("imagenet21k", "imagenet21k_goog_synsets.txt", 21_843)],
)
def test_imagenet_is_in_the_order_timm_has_for_google(set_name: str, timms_list: str, count: int) -> None:
    info = files("timm.data") / "_info"
    ids = (info / timms_list).read_text("utf-8").split()
    lemmas = dict(csv.reader((info / "imagenet_synset_to_lemma.txt").open(encoding="utf-8"), delimiter="\t"))
    assert labels(set_name) == tuple(Label(synset, lemmas[synset]) for synset in ids)
    assert len({label.id for label in labels(set_name)}) == len(ids) == count


def test_imagenet_names_are_those_of_google_bit_50() -> None:
    names = id2label("ilsvrc2012")
    assert names[0] == "tench, Tinca tinca"
    assert names[1] == "goldfish, Carassius auratus"
    assert names[999] == "toilet tissue, toilet paper, bathroom tissue"


def test_synsets_that_share_their_lemmas_are_told_apart_by_their_ids() -> None:
    names = id2label("ilsvrc2012")
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")
    assert [name for name in names if "(n" in name] == [names[134], names[517]]
    assert labels("ilsvrc2012")[134] == Label("n02012849", "crane")


@pytest.mark.parametrize("set_name", SETS)
def test_names_are_unique_and_clean(set_name: str) -> None:
    names = id2label(set_name)
    assert len(set(names)) == len(names)
    assert all(name and name == name.strip() for name in names)


@pytest.mark.parametrize("set_name", ["caltech101", "cifar100", "dtd", "eurosat", "resisc45", "sun397"])
def test_sets_of_alphabetical_order_are_in_it(set_name: str) -> None:
    names = id2label(set_name)
    assert names == sorted(names)


def test_digits_are_spelt_out() -> None:
    assert id2label("digits") == ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert labels("digits")[3] == Label(None, "three")


@pytest.mark.parametrize(
    ("set_name", "values", "classes"), [("dsprites-orientation", 40, 16), ("dsprites-xpos", 32, 16)]
)
def test_dsprites_classes_are_vtabs_groups_of_values(set_name: str, values: int, classes: int) -> None:
    """task_adaptation/data/dsprites.py divides the value by values / classes and rounds down."""
    group = np.floor_divide(np.arange(values, dtype=np.float32), values / classes).astype(int)
    for index, name in enumerate(id2label(set_name)):
        first, last, of = map(int, re.findall(r"\d+", name))
        assert (first, last, of) == (*np.flatnonzero(group == index)[[0, -1]], values)


def test_distances_are_between_vtabs_thresholds() -> None:
    """task_adaptation/data/clevr.py and kitti.py."""
    bounds = [tuple(map(float, re.findall(r"[\d.]+", name))) for name in id2label("clevr-distance")]
    assert [low for low, _ in bounds] == [0.0, 8.0, 8.5, 9.0, 9.5, 10.0]
    assert bounds[-1][1] == 100.0
    assert [re.findall(r"\d+", name) for name in id2label("kitti-distance")] == [["8"], ["8", "20"], ["20"], []]


def test_counts_and_angles_start_where_the_data_sets_do() -> None:
    numbers = {
        name: [int(re.findall(r"\d+", label)[0]) for label in id2label(name)]
        for name in ("clevr-count", "smallnorb-elevation", "smallnorb-azimuth")
    }
    assert numbers["clevr-count"] == list(range(3, 11))
    assert numbers["smallnorb-elevation"] == list(range(30, 75, 5))
    assert numbers["smallnorb-azimuth"] == list(range(0, 360, 20))


def test_a_set_that_does_not_ship_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="dmlab"):
        labels("dmlab")


def test_readme_accounts_for_every_file_and_every_file_is_used() -> None:
    readme = (FOLDER / "README.md").read_text("utf-8")
    shipped = {file.name for file in FOLDER.iterdir()} - {"README.md"}
    assert {name for name in shipped if f"`{name}`" not in readme} == set()
    imagenet = {"ilsvrc2012_ids.txt", "imagenet21k_ids.txt.gz", "wordnet_lemmas.tsv.gz"}
    assert shipped == imagenet | {f"{name}.txt" for name in SETS if name not in ("ilsvrc2012", "imagenet21k")}
