"""The catalogue: what Google released, held against lists written by hand and against the arithmetic of npz files."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

import converters
from converters.catalogue.labels import labels
from converters.catalogue.released import listing
from converters.catalogue.variants import EMBEDDED_NETWORK, Preprocessing, Variant, find, variants
from converters.errors import UsageError
from converters.mapping.architecture import Architecture
from tests.checkpoints import npz_bytes, tensor_shapes

PACKAGE = Path(converters.__file__).parent
FIVE = ("R50x1", "R50x3", "R101x1", "R101x3", "R152x4")
SIX = (*FIVE, "R152x2")
ILSVRC2012_BYTES = {
    "R50x1": 102_242_668,
    "R101x1": 178_256_468,
    "R50x3": 869_321_580,
    "R152x2": 945_476_668,
    "R101x3": 1_551_830_100,
    "R152x4": 3_746_270_104,
}
VTAB_CLASSES = {
    "caltech101": 102,
    "cifar100": 100,
    "dtd": 47,
    "oxford_flowers102": 102,
    "oxford_iiit_pet": 37,
    "sun397": 397,
    "svhn": 10,
    "eurosat": 10,
    "resisc45": 45,
    "patch_camelyon": 2,
    "diabetic_retinopathy": 5,
    "clevr-count": 8,
    "clevr-distance": 6,
    "dmlab": 6,
    "kitti-distance": 4,
    "dsprites-orientation": 16,
    "dsprites-xpos": 16,
    "smallnorb-azimuth": 18,
    "smallnorb-elevation": 9,
}
TINY_IMAGES = {"cifar100", "svhn", "eurosat", "dsprites-orientation", "dsprites-xpos"}
"""Tasks whose images are smaller than 96 x 96."""


def one(name: str) -> Variant:
    (found,) = find(name)
    return found


def task(variant: Variant) -> str | None:
    """The VTAB task in a name, if there is one."""
    found = re.search(r"-run\d-(.+)", variant.name)
    return found[1] if found else None


def test_base_and_fine_tuned_npz_files_are_those_google_names() -> None:
    base = {f"BiT-{family}-{architecture}" for family in "SM" for architecture in SIX}
    fine_tuned = {f"BiT-M-{architecture}-ILSVRC2012" for architecture in SIX}
    names = {v.name for v in variants() if "/" not in v.name}
    assert names == base | fine_tuned | {"BiT-M-R50x1-CIFAR10", "BiT-digits"}


def test_vtab_has_every_task_three_times_for_five_architectures_in_both_formats() -> None:
    expected = {
        f"vtab/BiT-M-{architecture}-run{run}-{task}"
        for architecture, run, task in product(FIVE, range(3), VTAB_CLASSES)
    }
    assert len(expected) == 285
    assert {v.name for v in find("vtab/*")} == expected
    assert {v.name for v in find("tfhub/vtab/*")} == {f"tfhub/{name}" for name in expected}


def test_other_sets_have_the_size_google_says() -> None:
    counts = {"h5/*": 10, "distill/*": 8, "tfhub/bit/*": 25, "tfhub/experts/*": 48}
    assert {glob: len(find(glob)) for glob in counts} == counts
    assert Counter(v.format for v in variants()) == {"npz": 313, "h5": 10, "saved_model": 358}
    assert {v.name.split("/")[-1] for v in find("tfhub/experts/*")} >= {"bird", "food", "object", "woody_plant"}


def test_names_are_unique_also_as_repositories_and_on_case_blind_file_systems() -> None:
    assert len({v.name.lower() for v in variants()}) == len(variants())
    repositories = {v.repository_name.lower() for v in variants()}
    assert len(repositories) == len(variants())
    assert all(re.fullmatch(r"[\w.-]{1,96}", name) and "--" not in name for name in repositories)


def test_every_line_says_where_it_comes_from() -> None:
    pinned = re.compile(
        r"(google-research/(big_transfer|big_vision|task_adaptation)|tensorflow/tfhub\.dev)@[0-9a-f]{7} \S+"
    )
    assert all(pinned.match(v.source) for v in variants() if not v.embedded)
    assert (PACKAGE.parent / one("BiT-digits").source).is_file()
    assert all(v.top1_source for v in variants() if v.top1)


def test_urls_are_whole_and_lead_to_the_published_name() -> None:
    published = [v for v in variants() if not v.embedded]
    assert len({v.url for v in published}) == len(published) == len(variants()) - 1
    for v in published:
        url = urlsplit(v.url)
        assert url.scheme == "https"
        assert re.fullmatch(r"[\w./-]+", url.path), v.url
        if v.format == "npz":
            assert v.url == f"https://storage.googleapis.com/bit_models/{v.name}.npz"
        elif v.format == "h5":
            assert v.url == f"https://storage.googleapis.com/bit_models/{v.name.removeprefix('h5/')}.h5"
        elif "vtab" in v.name:
            assert v.url == f"https://storage.googleapis.com/bit_models/{v.name.removeprefix('tfhub/')}.tfhub/"
        else:
            assert v.url == f"https://tfhub.dev/google/{v.name.removeprefix('tfhub/')}/1"


@pytest.mark.parametrize("architecture", SIX)
def test_known_sizes_are_those_of_an_uncompressed_npz_of_the_architecture(architecture: str) -> None:
    fine_tuned = one(f"BiT-M-{architecture}-ILSVRC2012")
    assert fine_tuned.bytes == ILSVRC2012_BYTES[architecture]
    assert npz_bytes(Architecture.released(architecture, 1000)) == fine_tuned.bytes


def test_arithmetic_gives_the_size_of_a_written_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, shape in sorted(tensor_shapes((1, 2), 32, 7).items()):
            tensor, member = np.zeros(shape, np.float32), tmp_path / "member.npy"
            np.save(member, tensor)
            archive.write(member, f"{name}.npy")
    assert npz_bytes(Architecture.regular((1, 2), 32, 7)) == path.stat().st_size


def test_size_of_a_base_file_is_expected_but_not_claimed() -> None:
    base = one("BiT-M-R50x1")
    assert base.bytes is None
    difference = 4 * (21_843 - 1000) * (2048 + 1)
    assert npz_bytes(base.network) == ILSVRC2012_BYTES["R50x1"] + difference


def test_embedded_checkpoint_is_here() -> None:
    digits = one("BiT-digits")
    assert digits.file is not None
    assert digits.url is None
    assert digits.bytes == digits.file.stat().st_size
    assert digits.network == EMBEDDED_NETWORK
    assert digits.architecture == EMBEDDED_NETWORK.name
    assert [v.name for v in variants() if v.embedded] == ["BiT-digits"]


def test_architecture_is_the_one_in_the_name() -> None:
    for variant in variants()[1:]:
        found = re.search(r"r(50|101|152)x([1-4])", variant.name.lower())
        assert found
        assert variant.architecture == variant.network.name == found[0].capitalize()
        assert variant.network.classes == variant.classes


def test_heads_are_those_of_what_the_files_were_trained_on() -> None:
    globs = {
        "BiT-S-*": 1000,
        "BiT-M-R*x[1-4]": 21_843,
        "*-ILSVRC2012": 1000,
        "*-CIFAR10": 10,
        "h5/BiT-S-*": 1000,
        "h5/BiT-M-*": 21_843,
        "distill/*_[123]??": 1000,
        "distill/*flowers*": 102,
        "distill/*pet*": 37,
        "distill/*food*": 101,
        "distill/*sun*": 397,
        "tfhub/bit/?-r*x[1-4]": None,
        "tfhub/bit/*/ilsvrc2012_classification": 1000,
        "tfhub/bit/*/imagenet21k_classification": 21_843,
        "tfhub/experts/*": None,
    } | {f"*vtab/*-{name}": count for name, count in VTAB_CLASSES.items()}
    expected = {v.name: count for glob, count in globs.items() for v in find(glob)}
    assert {v.name: v.classes for v in variants()[1:]} == expected


def test_labels_number_the_classes() -> None:
    for variant in variants():
        if variant.labels:
            assert len(labels(variant.labels)) == variant.classes
        else:
            assert variant.classes is None or (task(variant) == "dmlab" and "order" in str(variant.note))


def test_only_imagenet_21k_heads_are_multi_label() -> None:
    kinds = {None: None, 21_843: "multi_label_classification"}
    for variant in variants():
        assert variant.problem_type == kinds.get(variant.classes, "single_label_classification")


def test_preprocessing_is_the_recipe_of_the_files_authors() -> None:
    big_vision = {
        "R50x1_224": Preprocessing({"shortest_edge": 256}, (224, 224), resample=3),
        "R50x1_160": Preprocessing({"shortest_edge": 183}, (160, 160), resample=3),
        "R152x2_T_224": Preprocessing({"shortest_edge": 256}, (224, 224), resample=3),
        "R152x2_T_384": Preprocessing({"shortest_edge": 448}, (384, 384), resample=2),
    }
    small = Preprocessing({"shortest_edge": 160}, (128, 128), resample=3)
    for variant in variants()[1:]:
        side = 128 if task(variant) in TINY_IMAGES or variant.labels == "cifar10" else 480
        expected = Preprocessing({"height": side, "width": side})
        if variant.name.startswith("distill/"):
            expected = big_vision.get(variant.name.removeprefix("distill/"), small)
        assert variant.preprocessing == expected, variant.name
    assert one("BiT-digits").preprocessing == Preprocessing({"height": 32, "width": 32})


def test_hub_ids_are_of_models_and_data_sets_that_exist() -> None:
    assert {v.base_model for v in variants()} == {
        None,
        *(f"timm/resnetv2_{architecture.removeprefix('R')}_bit.goog_in21k" for architecture in SIX),
    }
    assert {dataset for v in variants() for dataset in v.datasets} == {
        "imagenet-1k",
        "imagenet-21k",
        "uoft-cs/cifar10",
        "uoft-cs/cifar100",
        "ufldl-stanford/svhn",
        "ethz/food101",
    }


@pytest.mark.parametrize(
    ("broken", "right", "channels"), [("R50x3", "BiT-S-R50x1.h5", "64"), ("R101x1", "BiT-S-R152x4.h5", "256")]
)
def test_files_that_are_copies_of_other_models_are_refused(broken: str, right: str, channels: str) -> None:
    defective = one(f"h5/BiT-S-{broken}")
    with pytest.raises(UsageError) as refusal:
        defective.refuse_defect()
    message = str(refusal.value)
    assert message.count("\n") == 1
    assert all(part in message for part in (f"BiT-S-{broken}.h5", f"copy of {right}", channels, f"BiT-S-{broken}."))
    instead = one(str(defective.instead))
    assert (instead.format, instead.network, instead.defect) == ("npz", defective.network, None)


def test_no_other_file_is_refused() -> None:
    assert {v.name for v in variants() if v.defect} == {"h5/BiT-S-R50x3", "h5/BiT-S-R101x1"}
    for v in variants():
        if not v.defect:
            v.refuse_defect()


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("BiT-M-R50x1", "BiT-M-R50x1"),
        ("BiT-M-R50x1.npz", "BiT-M-R50x1"),
        ("BiT-M-R50x1.h5", "h5/BiT-M-R50x1"),
        ("google/bit/m-r50x1/1", "tfhub/bit/m-r50x1"),
        ("https://storage.googleapis.com/bit_models/distill/R50x1_160.npz", "distill/R50x1_160"),
        ("vtab/BiT-M-R50x1-run0-dtd.tfhub", "tfhub/vtab/BiT-M-R50x1-run0-dtd"),
    ],
)
def test_a_checkpoint_is_found_by_its_name_and_by_what_google_calls_it(wanted: str, name: str) -> None:
    assert [v.name for v in find(wanted)] == [name]


def test_a_glob_finds_all_it_matches_in_order() -> None:
    assert [v.name for v in find("BiT-M-R50x[13]")] == ["BiT-M-R50x1", "BiT-M-R50x3"]
    assert {v.format for v in find("BiT-M-*")} == {"npz"}
    assert len(find("vtab/*-run1-dtd")) == 5
    assert find("*") == variants()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("BiT-M-R50x2", "BiT-M-R50x1"), ("bit-m-r152x4-ilsvrc2012", "BiT-M-R152x4-ILSVRC2012"), ("1", "--list")],
)
def test_an_unknown_name_is_wrong_usage_and_the_nearest_is_named(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"no released checkpoint is called {typed}") as refusal:
        find(typed)
    assert meant in str(refusal.value)
    assert str(refusal.value).count("\n") == 1


def test_json_listing_holds_every_field_in_plain_types() -> None:
    listed = json.loads(listing("BiT-M-R50x1-ILSVRC2012", as_json=True))
    assert len(listed) == 1
    assert listed[0] == one("BiT-M-R50x1-ILSVRC2012").to_json() | {"datasets": ["imagenet-21k", "imagenet-1k"]} | {
        "preprocessing": {
            "size": {"height": 480, "width": 480},
            "crop": None,
            "resample": 2,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        }
    }
    assert json.loads(listing("BiT-digits", as_json=True))[0]["file"] == "digits/BiT-digits.npz"
    assert len(json.loads(listing(as_json=True))) == len(variants())


def test_text_listing_has_a_line_for_each_variant_and_marks_the_defective() -> None:
    heading, *lines = listing().splitlines()
    assert heading.split()[:2] == ["name", "format"]
    assert [line.split()[0] for line in lines] == [v.name for v in variants()]
    assert [line.split()[0] for line in lines if "(defective)" in line] == ["h5/BiT-S-R50x3", "h5/BiT-S-R101x1"]


def test_listing_imports_nothing_heavy() -> None:
    script = "import sys; from converters.catalogue.released import listing; listing(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "torch", "tensorflow", "transformers", "huggingface_hub", "h5py", "rich"} & set(loaded)


def test_documentation_counts_the_checkpoints() -> None:
    page = (PACKAGE.parent / "docs" / "catalogue.md").read_text("utf-8")
    names = page.split("\n## ")[1]
    assert sum(int(count) for count in re.findall(r"\| (\d+) \|$", names, flags=re.MULTILINE)) == len(variants())
    with (PACKAGE / "catalogue" / "released.csv").open(encoding="utf-8") as file:
        lines = len(list(csv.DictReader(file))) - 1
    assert f"{len(variants()) - 1} checkpoints in {lines}" in " ".join(page.split())
