"""What a folder says beside its weights: every fault is found, no honest folder is refused, nothing is unknown."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.auditing.audits import photographs
from converters.auditing.inspection import inspect_folder
from converters.auditing.inspection.fates import Notes
from converters.auditing.target import Folder
from converters.catalogue.labels import id2label
from converters.catalogue.variants import Variant, find
from converters.conversion import plan_of
from converters.errors import CheckpointError, UsageError
from converters.folder.plan import Plan
from converters.folder.stored_weights import open_weights
from converters.mapping.architecture import Architecture
from converters.mapping.storage import Storage
from converters.options import ConvertOptions
from tests.checkpoints import make_checkpoint
from tests.converters.inspection_cases import (
    FAULTS,
    HONEST,
    TIMM_FAULTS,
    TIMM_HONEST,
    UNREADABLE,
    Case,
    set_fields,
    unknown,
)
from tests.verify.folders import write_folder
from tests.verify.support import OpenedSource

IMAGENET = "BiT-M-R50x1-ILSVRC2012"
RECIPE = {
    "image_processor_type": "BitImageProcessor", "do_convert_rgb": True, "do_resize": True,
    "size": {"height": 480, "width": 480}, "resample": 2, "do_center_crop": False,
    "crop_size": {"height": 480, "width": 480}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip
"""big_transfer's, in transformers' terms."""


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1,), 32, 1000, seed=3, kernel_std=1e-3, mids=(32,))


@pytest.fixture(scope="module")
def honest(tensors, tmp_path_factory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("honest") / "folder", tensors, torch_dtype="float32")
    config = json.loads((folder / "config.json").read_text())
    names = id2label("ilsvrc2012")
    config["id2label"] = {str(index): name for index, name in enumerate(names)}
    config["label2id"] = {name: index for index, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(RECIPE))
    return folder


def made(case: Case, honest: Path, folder: Path) -> Path:
    shutil.copytree(honest, folder)
    for name, changes in (("config.json", case.config), ("preprocessor_config.json", case.recipe)):
        if changes:
            content = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(set_fields(content, changes)))
    if case.change is not None:
        case.change(folder)
    return folder


def inspected(folder: Path, tensors, variant: Variant | None) -> Notes:
    with Folder(folder, OpenedSource(tensors), lambda _: [], variant=variant) as target:
        return target.inspection


@pytest.fixture
def imagenet() -> Variant:
    return find(IMAGENET)[0]


@pytest.fixture(autouse=True)
def no_libraries(monkeypatch) -> None:
    """As where the stock libraries are not installed: an inspection is the same without them."""
    for name in ("transformers", "timm", "peft"):
        monkeypatch.setitem(sys.modules, name, None)


def test_there_are_sixty_of_each():
    for cases in (FAULTS, HONEST):
        assert len({case.name for case in cases}) == len(cases) >= 60


@pytest.mark.parametrize("case", FAULTS, ids=str)
def test_fault_is_found(case, honest, tensors, imagenet, tmp_path):
    inspection = inspected(made(case, honest, tmp_path / "folder"), tensors, imagenet)
    wrong = [each for each in inspection.unmet if each.place.startswith(case.place)]
    assert wrong, [str(each) for each in inspection.unmet]
    assert case.found in " ".join(map(str, wrong))
    assert bool(inspection.misleading) == case.misleads, inspection.misleading


@pytest.mark.parametrize("case", UNREADABLE, ids=str)
def test_what_no_library_reads_is_refused(case, honest, tensors, imagenet, tmp_path):
    folder = made(case, honest, tmp_path / "folder")
    with pytest.raises(CheckpointError, match=f"{case.place}.*{case.found}"):
        inspected(folder, tensors, imagenet)


@pytest.mark.parametrize("case", HONEST, ids=str)
def test_honest_folder_is_not_refused(case, honest, tensors, imagenet, tmp_path):
    folder = made(case, honest, tmp_path / "folder")
    for variant in (imagenet, None):
        inspection = inspected(folder, tensors, variant)
        assert [str(each) for each in inspection.unmet] == []
        assert inspection.misleading == ""
        expected = ["config.json my_own_note"] if "my_own_note" in case.config else []
        expected += ["model.params"] if case.name == "a file of nobody" else []
        assert unknown(inspection) == expected


TIMM = {
    "architecture": "resnetv2_50x1_bit", "num_classes": 3, "num_features": 2048, "global_pool": "avg",
    "weight_standardization_eps": 1e-10, "exact": "bits", "pool_padding": "zeros",
    "pretrained_cfg": {
        "tag": "x", "custom_load": False, "input_size": [3, 224, 224], "fixed_input_size": False,
        "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash", "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5], "num_classes": 3, "pool_size": [7, 7], "first_conv": "stem.conv",
        "classifier": "head.fc", "license": "apache-2.0",
    },
}  # fmt: skip


def inspected_as_timm(case: Case, folder: Path) -> Notes:
    """Of a folder that describes R50x1 with three classes; its weights, one small tensor, are not looked at."""
    folder.mkdir()
    save_file({"stem.conv.weight": np.ones((2, 3), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TIMM))
    if case.config:
        (folder / "config.json").write_text(json.dumps(set_fields(json.loads(json.dumps(TIMM)), case.config)))
    if case.change is not None:
        case.change(folder)
    plan = Plan("timm", Architecture.released("R50x1", 3), None, Storage("timm"))
    with closing(open_weights(folder)) as weights:
        return inspect_folder(folder, plan, weights)


@pytest.mark.parametrize("case", TIMM_FAULTS, ids=str)
def test_fault_of_timm_is_found(case, tmp_path):
    inspection = inspected_as_timm(case, tmp_path / "folder")
    wrong = [each for each in inspection.unmet if each.place.startswith(case.place)]
    assert wrong, [str(each) for each in inspection.unmet]
    assert case.found in " ".join(map(str, wrong))
    assert bool(inspection.misleading) == case.misleads, inspection.misleading


@pytest.mark.parametrize("case", TIMM_HONEST, ids=str)
def test_honest_timm_folder_is_not_refused(case, tmp_path):
    inspection = inspected_as_timm(case, tmp_path / "folder")
    assert [str(each) for each in inspection.unmet] == []
    assert inspection.misleading == ""
    assert unknown(inspection) == []


def test_shards_that_timm_would_not_read_are_not_written():
    source: Any = SimpleNamespace(
        architecture=Architecture.released("R50x1", 3), pool_padding="zeros", path="x.npz", graph_input=None
    )
    options = ConvertOptions(layout="timm")
    assert plan_of(source, None, options).layout == "timm"
    with pytest.raises(UsageError, match="one file"):
        plan_of(source, None, replace(options, max_shard_size=10**7))


def test_a_pipe_among_photographs_is_not_waited_for(honest, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png: cannot be read as an image: it is a pipe"):
        photographs(tmp_path, honest)
