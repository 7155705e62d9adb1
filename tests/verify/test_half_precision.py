"""Folders in float16 and bfloat16: the rounded source, bit for bit, and limits of their own."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converters.auditing.audits import audit_folder
from converters.auditing.target import audit_readers, own_readers
from converters.folder.plan import Plan
from converters.mapping.storage import Storage
from converters.options import Proof
from converters.writers import model
from tests.checkpoints import make_checkpoint
from tests.verify.support import OpenedSource
from verify import Report

NAME = "bit.encoder.stages.1.layers.0.norm2.bias"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def source():
    return OpenedSource(make_checkpoint((1, 1), 32, 5, seed=3, mids=(32, 64)))


def written(folder, source, dtype, exact="bits"):
    folder.mkdir(exist_ok=True)
    plan = Plan.of(source, None, Storage(exact=exact, dtype=dtype))
    model.write(folder, source, plan, lambda *_: None)
    return folder


def audited(folder, source) -> Report:
    return audit_folder(folder, source, own_readers, Proof(pool_padding="zeros"), lambda *_: None)


def store(folder, change) -> None:
    stored = load_file(folder / "model.safetensors")
    save_file(change(stored), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("exact", ["bits", "logits"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounded_source_passes_and_the_report_says_how_far_it_moved(tmp_path, source, dtype, exact):
    report = audited(written(tmp_path, source, dtype, exact), source)
    assert report, report.reason
    assert report.dtype == dtype
    assert report.tensors.bit_exact == report.tensors.target
    assert report.ratio < 3
    assert report.rounding > 20 * report.max_abs_error


def test_float16_runs_of_kernels_too_small_for_it_are_not_judged(tmp_path):
    """PyTorch's float16 batch norm rounds a kernel's mean to multiples of 2⁻²⁴."""
    names = {}
    for std in (1e-5, 1e-2):
        source = OpenedSource(make_checkpoint((1, 1), 32, 5, seed=3, kernel_std=std))
        folder = written(tmp_path / str(std), source, "float16")
        report = audit_folder(folder, source, audit_readers, Proof(pool_padding="zeros"), lambda *_: None)
        assert report, report.reason
        names[std] = [reader.name for reader in report.readers]
    assert names[1e-2] == [*names[1e-5], "transformers in float16"]


def test_values_that_are_not_finite_are_judged_and_not_warned_of(tmp_path, source):
    def change(stored):
        stored["bit.embedder.convolution.weight"].view(-1)[:2] = torch.tensor([np.inf, -np.inf])
        return stored

    folder = written(tmp_path, source, "float16")
    store(folder, change)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        report = audit_folder(folder, source, audit_readers, Proof(pool_padding="zeros"), lambda *_: None)
    assert report.fault.kind == "not a number"
    assert [each for each in warned if each.category is RuntimeWarning] == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_last_place_is_found(tmp_path, source, dtype):
    def change(stored):
        stored[NAME].view(torch.int16)[3] += 1
        return stored

    folder = written(tmp_path, source, dtype)
    store(folder, change)
    report = audited(folder, source)
    assert (report.verdict, report.fault.kind, report.fault.place) == ("failed", "changed values", NAME)
    assert "the first at [3]" in report.fault.detail


def test_values_cut_off_instead_of_rounded_are_found(tmp_path, source):
    folder = written(tmp_path, source, "bfloat16")
    kernel = source.tensors["resnet/block2/unit01/c/standardized_conv2d/kernel"].transpose(3, 2, 0, 1)
    cut = (np.ascontiguousarray(kernel).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    name = "bit.encoder.stages.1.layers.0.conv3.weight"
    store(folder, lambda stored: stored | {name: torch.from_numpy(cut).bfloat16()})
    report = audited(folder, source)
    assert (report.verdict, report.fault.place) == ("failed", name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_values_stored_as_float32_are_not_the_source(tmp_path, source, dtype):
    folder = written(tmp_path, source, "float32")
    store(folder, lambda stored: {n: v.to(DTYPES[dtype]).float() for n, v in stored.items()})
    report = audited(folder, source)
    assert (report.verdict, report.fault.kind) == ("failed", "reduced precision")
    assert f"{dtype} round trip" in report.fault.detail


def test_one_tensor_in_another_dtype_is_named(tmp_path, source):
    folder = written(tmp_path, source, "float16")
    store(folder, lambda stored: stored | {NAME: stored[NAME].float()})
    report = audited(folder, source)
    assert (report.verdict, report.fault.kind, report.fault.place) == ("failed", "other dtype", NAME)
