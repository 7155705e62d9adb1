"""What inspections mean for bit-verify: exit status, the report, and that nothing of a folder is run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converters.cli.commands import convert, verify
from tests.checkpoints import make_checkpoint
from tests.converters.inspection_cases import DELETED, bin_alone, bin_beside, safe_beside, set_fields, write
from tests.verify.folders import write_folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.npz"
    np.savez(path, **make_checkpoint((1,), 32, 4, seed=3, kernel_std=1e-2, mids=(32,)))
    return path


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    with np.load(checkpoint) as tensors:
        return write_folder(tmp_path / "folder", dict(tensors))


def audited(folder: Path, checkpoint: Path, *options: str) -> tuple[int, dict, str]:
    command = [folder, "--against", checkpoint, "--report", folder.parent / "parity", "--json", "--quiet"]
    result = CliRunner().invoke(verify, [str(word) for word in [*command, "--runner", "bit_ref", *options]])
    return result.exit_code, json.loads(result.stdout) if result.stdout else {}, result.stderr


def change(folder: Path, **fields: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(set_fields(content, fields)))


def test_fates_are_in_the_report_and_unknown_ones_are_counted(folder, checkpoint):
    change(folder, my_note="x", finetuning_task="y")
    (folder / "NOTES").write_text("z")
    status, report, _ = audited(folder, checkpoint)
    assert status == 0, report
    fates = {each["place"]: each["fate"] for each in report["inspected"]}
    assert fates["config.json depths"] == fates["model.safetensors"] == "compared"
    assert fates["config.json finetuning_task"] == "no effect"
    assert {place for place, fate in fates.items() if fate == "unknown"} == {"config.json my_note", "NOTES"}
    words = [folder, "--against", checkpoint, "--report", folder.parent / "parity", "--runner", "bit_ref"]
    assert "2 files and fields" in CliRunner().invoke(verify, [str(word) for word in words]).stdout


@pytest.mark.parametrize("alone", [bin_alone, bin_beside()], ids=["alone", "beside safetensors"])
def test_pytorch_model_bin_is_audited(folder, checkpoint, alone):
    alone(folder)
    status, report, _ = audited(folder, checkpoint)
    assert status == 0, report
    assert "pytorch_model.bin" in report["files"]


def test_code_in_a_folder_is_a_fault_and_is_not_run(folder, checkpoint, tmp_path):
    write("modeling.py", f"open({str(tmp_path / 'ran')!r}, 'w')")(folder)
    change(folder, auto_map={"AutoModelForImageClassification": "modeling.Net", "AutoConfig": "modeling.Config"})
    status, report, _ = audited(folder, checkpoint)
    assert status == 1
    assert {"config.json auto_map", "modeling.py"} <= {fault["place"] for fault in report["faults"]}
    assert {fault["kind"] for fault in report["faults"]} == {"configuration"}
    assert not (tmp_path / "ran").exists()


def test_a_loader_that_is_sent_elsewhere_is_a_fault(folder, checkpoint):
    safe_beside("other.safetensors", 1.5)(folder)
    change(folder, transformers_weights="other.safetensors")
    status, report, _ = audited(folder, checkpoint)
    assert status == 1
    assert report["reason"].startswith('config.json transformers_weights is "other.safetensors", not absent')


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_labels", 10**12), ("depths", [10**9]), ("hidden_sizes", [10**13]), ("id2label", 10**13), ("depths", "text")],
    ids=str,
)
def test_junk_is_a_configuration_fault_in_little_time(folder, checkpoint, name, value):
    change(folder, **{name: value})
    start = time.monotonic()
    status, report, error = audited(folder, checkpoint)
    assert (status, error) == (1, "")
    assert report["faults"][0]["kind"] == "configuration"
    assert report["faults"][0]["place"].startswith("config.json")
    assert time.monotonic() - start < 30


def test_levels_that_no_library_reads_are_refused_in_one_line(folder, checkpoint):
    (folder / "config.json").write_text('{"model_type": ' + "[" * 1000 + "]" * 1000 + "}")
    status, _, error = audited(folder, checkpoint)
    assert status == 3
    assert "levels deep" in error
    assert len(error.splitlines()) <= 2


@pytest.mark.parametrize("epsilon", [DELETED, 1e-8], ids=["nothing", "the epsilon"])
def test_larger_kernels_are_recognised_where_a_library_dropped_the_declaration(checkpoint, tmp_path, epsilon):
    with np.load(checkpoint) as tensors:
        folder = write_folder(tmp_path / "folder", dict(tensors), factor=10)
    change(folder, weight_standardization_eps=epsilon)
    status, report, _ = audited(folder, checkpoint)
    assert status == 0, report
    assert report["exact"] == "logits"


def test_larger_kernels_beside_google_s_epsilon_are_a_fault(checkpoint, tmp_path):
    with np.load(checkpoint) as tensors:
        folder = write_folder(tmp_path / "folder", dict(tensors), factor=10, weight_standardization_eps=1e-10)
    status, report, _ = audited(folder, checkpoint)
    assert (status, report["exact"]) == (1, "bits")
    assert report["faults"][0]["kind"] == "scaled values"


def test_google_s_own_files_have_google_s_epsilon(checkpoint, tmp_path):
    """Neither an npz nor big_transfer's PyTorch names have a library that would hard-code another."""
    folder = tmp_path / "npz"
    folder.mkdir()
    (folder / "BiT.npz").write_bytes(checkpoint.read_bytes())
    original = tmp_path / "original"
    arguments = ["--checkpoint", checkpoint, "--layout", "original", "--output", original, "--no-verify", "--quiet"]
    assert CliRunner().invoke(convert, [str(word) for word in arguments]).exit_code == 0
    (original / "config.json").unlink()
    for each, layout in ((folder, "npz"), (original, "original")):
        status, report, _ = audited(each, checkpoint)
        assert status == 0, report
        assert report["layout"] == layout
