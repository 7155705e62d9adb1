"""Oracles beside the first through the command lines: a SavedModel's graph unasked, the others with --oracle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converters.cli.commands import verify
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, converted, refused, run
from tests.converters.sources import writers
from tests.converters.sources.conftest import tar_of

BOTH = "NumPy float64 and the SavedModel's graph in float64"
AGREES = {
    "oracle": "graph",
    "name": "the SavedModel's graph in float64",
    "verdict": "agrees",
    "compared": 2,
    "reason": "takes colours in 0 … 1",
}


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 1), 32, 5, seed=5, kernel_std=1e-3, mids=(32, 64))


@pytest.fixture(scope="module")
def module(tensors, tmp_path_factory) -> Path:
    return writers.tf1_hub_module(tensors, tmp_path_factory.mktemp("hub") / "module", with_graph=True)


@pytest.fixture(scope="module")
def bare(tensors, tmp_path_factory) -> Path:
    """Variables without a graph."""
    return writers.tf1_hub_module(tensors, tmp_path_factory.mktemp("hub") / "module")


@pytest.fixture(scope="module")
def model(module, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    converted(module, folder)
    return folder


def parity(folder: Path) -> dict:
    return json.loads((folder / "parity.json").read_text())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_conversion_of_a_saved_model_has_both_oracles(dtype, module, tmp_path):
    result = run("--checkpoint", module, "--output", tmp_path / "model", "--dtype", dtype, "--quiet")
    assert result.exit_code == 0, result.stderr
    assert "oracle graph" in result.stdout
    report = parity(tmp_path / "model")
    assert (report["verdict"], report["oracle"], report["other_oracles"]) == ("passed", BOTH, [AGREES])
    card = (tmp_path / "model/README.md").read_text()
    assert f"against {BOTH} on the source's own tensors" in card
    assert "| the SavedModel's graph in float64 | agrees: takes colours in 0 … 1 |" in card
    assert run("--check", tmp_path / "model/parity.json", command=verify).exit_code == 0


def test_archive_is_compared_with_the_graph_inside(module, tmp_path):
    archive = tar_of(module, tmp_path / "module.tar.gz")
    report = converted(archive, tmp_path / "model")["report"]
    assert (report["oracle"], report["other_oracles"]) == (BOTH, [AGREES])


def test_variables_alone_are_judged_by_numpy_and_it_is_said(bare, tmp_path):
    report = converted(bare, tmp_path / "model")["report"]
    assert (report["verdict"], report["oracle"]) == ("passed", "NumPy float64")
    (other,) = report["other_oracles"]
    assert (other["verdict"], other["reason"]) == ("not run", "there is no saved_model.pb, only variables")
    card = (tmp_path / "model/README.md").read_text()
    assert "| the graph oracle | not run: there is no saved\\_model.pb, only variables |" in card


def test_graph_that_was_asked_for_and_is_not_there_is_inconclusive(model, bare, tmp_path):
    report = audited(model, bare, tmp_path / "parity", "--oracle", "graph")
    assert report["verdict"] == "inconclusive"
    assert report["reason"] == "the graph oracle was not run: there is no saved_model.pb, only variables"
    page = (tmp_path / "parity/parity.html").read_text()
    assert "Oracles beside NumPy" in page
    assert audited(model, bare, tmp_path / "parity")["passed"]
    message = refused(1, "--checkpoint", bare, "--output", tmp_path / "new", "--oracle", "graph", "--quiet")
    assert "verification inconclusive: the graph oracle was not run" in message


@pytest.mark.parametrize("options", [{"epsilon": 1e-8}, {"norm_epsilon": 1e-6}], ids=str)
def test_graph_of_another_arithmetic_leaves_only_a_report(options, tensors, tmp_path):
    source = writers.tf1_hub_module(tensors, tmp_path / "module", with_graph=True, **options)
    message = refused(1, "--checkpoint", source, "--output", tmp_path / "model", "--quiet")
    assert "verification inconclusive: the oracles disagree: the SavedModel's graph in float64 differs" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.failed", "module"]
    report = parity(tmp_path / "model.failed")
    assert [other["verdict"] for other in report["other_oracles"]] == ["disagrees"]


def test_oracles_are_part_of_what_a_folder_is(tensors, tmp_path):
    """A folder that was verified with fewer oracles is not the result that was asked for."""
    np.savez(tmp_path / "model.npz", **tensors)
    folder = tmp_path / "model"
    assert converted(tmp_path / "model.npz", folder)["made"]
    assert not converted(tmp_path / "model.npz", folder)["made"]
    arguments = ("--checkpoint", tmp_path / "model.npz", "--output", folder, "--oracle", "tensorflow", "--quiet")
    assert "--force" in refused(2, *arguments)
    assert run(*arguments, "--force").exit_code == 0
    assert parity(folder)["oracle"] == "NumPy float64 and TensorFlow float64"
    assert not converted(tmp_path / "model.npz", folder, "--oracle", "tensorflow")["made"]


def test_keras_layers_witness_a_file_of_keras(tensors, tmp_path):
    path = writers.keras_h5(tensors, tmp_path / "model.h5", "numbered")
    options = ("--oracle", "keras", "--oracle", "tensorflow")
    report = converted(path, tmp_path / "model", *options)["report"]
    assert report["oracle"] == "NumPy float64 and Keras float64 and TensorFlow float64"
    assert [(each["verdict"], each["reason"]) for each in report["other_oracles"]] == [
        ("agrees", "weights in the file's own order"),
        ("agrees", ""),
    ]
    assert audited(tmp_path / "model", path, tmp_path / "parity", *options)["passed"]
    assert converted(path, tmp_path / "plain")["report"]["other_oracles"] == []
