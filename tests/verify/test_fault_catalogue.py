"""Every fault of the catalogue, planted in a folder in the transformers layout: found, and named where it is."""

import json
from collections import Counter

import numpy as np
import pytest

from converters.auditing.target import Folder
from converters.catalogue.variants import EMBEDDED_NAME, find
from converters.errors import CheckpointError
from converters.folder.config import model_config, preprocessor_config
from converters.folder.plan import Plan
from converters.mapping.storage import Storage
from tests.checkpoints import make_checkpoint
from tests.verify.fault_catalogue import CATALOGUE, Planted
from tests.verify.folders import transformers_name, write_folder
from tests.verify.support import OpenedSource, TorchModel
from verify import AuditSettings, BitRefReader, Report, audit, default_images
from verify.images import SIDE

SIZE = 33
"""Half of a default image's side, on which nothing less is found."""
SEPARATOR = " || "


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 2), 32, 10, seed=3, kernel_std=1e-3, mids=(64, 32))


def planted_report(folder, tensors, fault: Planted, size: int = SIZE, variant=None) -> Report:
    """The audit of a folder that is honest but for the fault. Raises CheckpointError where it cannot be read."""
    source = OpenedSource(tensors)
    plan = Plan.of(source, variant, Storage())
    held = fault.store(dict(tensors)) if fault.store else tensors
    write_folder(folder, {n: t for n, t in held.items() if n in tensors})
    if "extra" in held:
        add_tensor(folder, held["extra"])
    (folder / "config.json").write_text(json.dumps(model_config(plan) | fault.config))
    recipe = preprocessor_config(plan.preprocessing) | fault.preprocessor
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe))
    if fault.file:
        fault.file(folder)
    computed = fault.reads(dict(tensors)) if fault.reads else tensors
    wrong = fault.compute or fault.reads
    reader = TorchModel(computed, **fault.compute) if wrong else BitRefReader(folder)
    with Folder(folder, source, lambda _: [reader], variant=variant) as target:
        return audit(target, source, AuditSettings(images=default_images(size)))


def add_tensor(folder, values):
    from safetensors.numpy import load_file, save_file

    stored = load_file(folder / "model.safetensors")
    save_file({**stored, "extra": values}, folder / "model.safetensors")


def named_place(fault: Planted) -> str:
    """What is stored is named as the folder has it, what is computed as the source."""
    if fault.compute or fault.reads:
        return fault.place
    return transformers_name(fault.place, headless=False) if fault.place.startswith("resnet/") else fault.place


def outcome(folder, tensors, fault: Planted, **options) -> tuple[bool, bool, str]:
    """Whether it was found, whether kind and place are right, and what was said."""
    variant = find(EMBEDDED_NAME)[0] if fault.config or fault.preprocessor or fault.file else None
    try:
        report = planted_report(folder, tensors, fault, variant=variant, **options)
    except CheckpointError as error:
        return True, fault.kind == "unreadable" and fault.place in str(error), str(error)
    first = report.fault
    right = first is not None and first.kind == fault.kind and first.place.startswith(named_place(fault))
    right = right and fault.said in str(first)
    return not report.passed, right, SEPARATOR.join(map(str, report.faults)) or report.reason


@pytest.fixture(scope="module")
def outcomes(tensors, tmp_path_factory):
    return {fault: outcome(tmp_path_factory.mktemp("port"), tensors, fault) for fault in CATALOGUE}


def test_catalogue_has_sixty_kinds_of_faults():
    assert len(CATALOGUE) >= 60
    assert Counter(fault.name for fault in CATALOGUE).most_common(1)[0][1] == 1


@pytest.mark.slow
def test_every_fault_is_found(outcomes):
    assert [f"{fault}: {said}" for fault, (found, _, said) in outcomes.items() if not found] == []


@pytest.mark.slow
def test_kind_and_place_are_right_in_nine_of_ten(outcomes):
    wrong = [
        f"{fault} ({fault.kind}, {fault.place}): {said}" for fault, (_, right, said) in outcomes.items() if not right
    ]
    assert len(wrong) <= len(outcomes) // 10, "\n".join(wrong)


@pytest.mark.slow
def test_one_fault_is_one_line(outcomes):
    """What follows from a fault is not told as another one, but for the pixels that a wrong field makes."""
    more = {str(fault): said.split(SEPARATOR)[1:] for fault, (_, _, said) in outcomes.items()}
    beside = {name: [line for line in lines if " pixels: " not in line] for name, lines in more.items()}
    assert {name: lines for name, lines in beside.items() if lines} == {}


def test_folder_without_a_fault_passes(tensors, tmp_path):
    fault = Planted("none", "none", "none")
    report = planted_report(tmp_path, tensors, fault, variant=find(EMBEDDED_NAME)[0])
    assert report, report.reason
    assert len(report.expectations) > 25
    assert all(expectation.met for expectation in report.expectations)
    assert np.isfinite(report.ratio)


@pytest.fixture(scope="module")
def large():
    return make_checkpoint((3, 4, 6, 3), 64, 1000, seed=3, kernel_std=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in CATALOGUE if fault.subtle], ids=str)
def test_subtle_faults_are_found_in_r50x1(fault, large, tmp_path):
    found, right, said = outcome(tmp_path, large, fault, size=SIDE)
    assert found
    assert right, said


def test_undeclared_problem_type_is_single_label(tensors, tmp_path):
    fault = Planted("none", "none", "none", config={"problem_type": None})
    assert planted_report(tmp_path, tensors, fault, variant=find(EMBEDDED_NAME)[0])
