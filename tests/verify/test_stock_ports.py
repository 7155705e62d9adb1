"""Ports as the world makes them: Google's kernels as they are, no epsilon declared, read by stock libraries.

Those hard-code 1e-8 where Google has 1e-10: the report says failed, by how much, and why.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.auditing.target import Folder, audit_readers
from tests.checkpoints import make_checkpoint
from tests.verify.folders import write_folder
from tests.verify.support import MemoryTarget, OpenedSource
from verify import AuditSettings, Correspondence, Report, TimmReader, audit, default_images

KERNEL_STDS = [1e-2, 1e-3, 1e-4]
OFF = {1e-2: 4, 1e-3: 300, 1e-4: 3000}
"""Kernel std → how many times Google's own float32 error the largest error of a logit is, at least."""


def refuses(report: Report, library: str, std: float) -> None:
    assert report.verdict == "failed"
    assert report.tensors.bit_exact == report.tensors.source
    assert report.readers[0].name == library
    assert report.readers[0].exceeds_limit_at == "root"
    assert (report.fault.kind, report.fault.place) == ("standardisation epsilon", "root")
    assert "1e-08" in report.reason
    assert "error" in report.reason
    assert "exceeds its limit" in report.reason
    assert report.max_abs_error > OFF[std] * report.floor


@pytest.mark.parametrize("std", KERNEL_STDS)
def test_port_to_transformers(tmp_path, std):
    tensors = make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=std, mids=(64, 32))
    folder = write_folder(tmp_path, tensors)
    config = json.loads((folder / "config.json").read_text())
    del config["weight_standardization_eps"]
    (folder / "config.json").write_text(json.dumps(config))
    source = OpenedSource(tensors)
    with Folder(folder, source, audit_readers) as target:
        report = audit(target, source, AuditSettings(images=default_images(64)))
    refuses(report, "transformers", std)


def timm_name(name: str) -> str:
    """resnet/block1/unit01/a/group_norm/gamma → stages.0.blocks.0.norm1.weight."""
    if name.startswith("resnet/head/"):
        return "head.fc.weight" if name.endswith("kernel") else "head.fc.bias"
    kind = "bias" if name.endswith("beta") else "weight"
    if "root_block" in name:
        return "stem.conv.weight"
    if name.startswith("resnet/group_norm"):
        return f"norm.{kind}"
    _, block, unit, part, what, *_ = name.split("/")
    module = {"group_norm": "norm", "standardized_conv2d": "conv"}.get(what, "")
    module = "downsample.conv" if what == "proj" else module + {"a": "1", "b": "2", "c": "3"}[part]
    return f"stages.{int(block[5:]) - 1}.blocks.{int(unit[4:]) - 1}.{module}.{kind}"


def timm_target(folder, tensors: dict, factor: int) -> MemoryTarget:
    """An R50x1 in timm's layout, written by hand."""
    classes = tensors["resnet/head/conv2d/kernel"].shape[-1]
    expected = {}
    for name, tensor in tensors.items():
        value = np.ascontiguousarray(tensor.transpose(3, 2, 0, 1)) if tensor.ndim == 4 else tensor
        if tensor.ndim == 4 and "head" not in name:
            value = value * np.float32(factor)
        expected[name] = np.ascontiguousarray(value)
    stored = {timm_name(name): value for name, value in expected.items()}
    save_file(stored, folder / "model.safetensors")
    pretrained = {"num_classes": classes, "input_size": [3, 64, 64], "first_conv": "stem.conv", "classifier": "head.fc"}
    config = {"architecture": "resnetv2_50x1_bit", "num_classes": classes, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config))
    pairs = [
        Correspondence(name, timm_name(name), lambda n=name: expected[n], lambda n=name: stored[timm_name(n)])
        for name in tensors
    ]
    return MemoryTarget(stored, pairs, [TimmReader(folder)], exact="bits" if factor == 1 else "logits")


@pytest.mark.slow
@pytest.mark.parametrize("std", KERNEL_STDS)
def test_port_to_timm(tmp_path, std):
    tensors = make_checkpoint((3, 4, 6, 3), 64, 100, seed=3, kernel_std=std)
    report = audit(timm_target(tmp_path, tensors, 1), OpenedSource(tensors), AuditSettings(images=default_images(64)))
    refuses(report, "timm", std)


@pytest.mark.slow
@pytest.mark.parametrize("std", KERNEL_STDS)
def test_timm_is_exact_with_kernels_ten_times_as_large(tmp_path, std):
    tensors = make_checkpoint((3, 4, 6, 3), 64, 100, seed=3, kernel_std=std)
    report = audit(timm_target(tmp_path, tensors, 10), OpenedSource(tensors), AuditSettings(images=default_images(64)))
    assert report, report.reason
    assert len(report.layers) == 20
    assert report.ratio < 2.5
