"""float16 and bfloat16: rounded as PyTorch rounds, judged on what is stored, and read by the libraries as such."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save_file

from converters.mapping.dtypes import DTYPES, round_to, widened
from tests.command_line import audited, converted, refused
from tests.converters.sources.writers import torch_names
from tests.verify.support import TorchModel
from verify import default_images

STOCK_ARITHMETIC = "bit_ref with transformers' arithmetic"
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SPECIAL = np.array(
    [0, -0.0, np.inf, -np.inf, 1, 1e-45, -1e-45, 1e-41, 2**-24, 2**-25, 1.5 * 2**-25, 65504, 65519.99, 65520,
     3.4028235e38, 3.3961775e38, 1.00390625, 1.01171875, 1 + 2**-11, 1 + 3 * 2**-11, 6.1e-5, 2**-126],
    np.float32,
)  # fmt: skip
"""Zeros, ties to even in either dtype, denormal numbers, and what overflows."""


def torch_bits(values: np.ndarray, dtype: str) -> np.ndarray:
    return torch.from_numpy(values).to(HALVES[dtype]).view(torch.int16).numpy()


@pytest.mark.parametrize("dtype", HALVES)
@given(values=hnp.arrays(np.float32, hnp.array_shapes(max_dims=4)))
def test_values_are_rounded_as_pytorch_rounds_them(dtype: str, values: np.ndarray) -> None:
    values = np.where(np.isnan(values), SPECIAL[0], values)  # no source holds one
    for array in (values, SPECIAL):
        stored = round_to(array, dtype)
        assert stored.dtype == DTYPES[dtype].storage
        np.testing.assert_array_equal(stored.view(np.int16), torch_bits(array, dtype))
        back = torch.from_numpy(array).to(HALVES[dtype]).float().numpy()
        assert widened(stored, dtype).tobytes() == back.tobytes()


# -- folders


@pytest.fixture(scope="module")
def half(checkpoint, tmp_path_factory):
    """(dtype, exact) → a folder of that, and its report; made once."""
    made: dict[tuple[str, str], tuple[Path, dict]] = {}

    def make(dtype: str, exact: str = "bits") -> tuple[Path, dict]:
        if (dtype, exact) not in made:
            folder = tmp_path_factory.mktemp("half") / "model"
            made[dtype, exact] = folder, converted(checkpoint, folder, "--dtype", dtype, "--exact", exact)["report"]
        return made[dtype, exact]

    return make


def kernels(tensors: dict[str, np.ndarray]) -> set[str]:
    return {name for name in tensors if "standardized_conv2d" in name}


@pytest.mark.parametrize("exact", ["bits", "logits"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_folder_stores_what_pytorch_makes_of_the_source(half, tensors, dtype: str, exact: str) -> None:
    folder, report = half(dtype, exact)
    factor = np.float32(10 if exact == "logits" else 1)
    scaled = {name: value * factor if name in kernels(tensors) else value for name, value in tensors.items()}
    stored = load_file(folder / "model.safetensors")
    for name, value in torch_names(scaled, "transformers").items():
        assert torch.equal(stored[name], torch.from_numpy(value).to(HALVES[dtype])), name
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
    assert (report["verdict"], report["dtype"]) == ("passed", dtype)
    assert report["tensors"]["bit_exact"] == len(tensors)
    assert report["readers"][0]["name"] == ("bit_ref" if exact == "bits" else STOCK_ARITHMETIC)


@pytest.mark.parametrize("exact", ["bits", "logits"])
@pytest.mark.parametrize("dtype", HALVES)
def test_the_report_says_how_far_rounding_moved_the_logits(half, tensors, dtype: str, exact: str) -> None:
    """By an independent model in float64, on the source's values and on PyTorch's rounding of them."""
    folder, report = half(dtype, exact)
    factor = np.float32(10 if exact == "logits" else 1)

    def rounded(name: str, value: np.ndarray) -> np.ndarray:
        scale = factor if name in kernels(tensors) else np.float32(1)
        return torch.from_numpy(value * scale).to(HALVES[dtype]).double().numpy() / scale.astype(np.float64)

    image = default_images()[0].astype(np.float64)
    wide, moved = (
        TorchModel(values).run(image)["logits"]
        for values in (
            {name: value.astype(np.float64) for name, value in tensors.items()},
            {name: rounded(name, value) for name, value in tensors.items()},
        )
    )
    assert report["rounding"] == pytest.approx(np.abs(moved - wide).max(), rel=1e-3)
    assert report["rounding"] > 100 * report["floor"]
    assert f"moved the logits by up to {report['rounding']:.2g}" in (folder / "README.md").read_text()


@pytest.mark.parametrize("dtype", HALVES)
def test_one_bit_in_one_value_fails_and_is_named(half, checkpoint, tmp_path: Path, dtype: str) -> None:
    folder = Path(shutil.copytree(half(dtype)[0], tmp_path / "model"))
    name = "bit.encoder.stages.1.layers.0.conv2.weight"
    stored = load_file(folder / "model.safetensors")
    stored[name].view(torch.int16)[5, 3, 1, 2] ^= 1
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    report = audited(folder, checkpoint, tmp_path / "parity")
    assert report["verdict"] == "failed"
    assert name in report["reason"]
    assert report["tensors"]["bit_exact"] == report["tensors"]["target"] - 1


@pytest.mark.parametrize("dtype", HALVES)
def test_truncation_instead_of_rounding_fails(half, checkpoint, tmp_path: Path, dtype: str) -> None:
    folder = Path(shutil.copytree(half(dtype)[0], tmp_path / "model"))
    name = "bit.encoder.stages.0.layers.0.conv2.weight"
    with np.load(checkpoint) as file:
        source = file["resnet/block1/unit01/b/standardized_conv2d/kernel"].transpose(3, 2, 0, 1)
    lost = 16 if dtype == "bfloat16" else 13
    cut = (np.ascontiguousarray(source).view(np.uint32) >> lost << lost).view(np.float32)
    stored = load_file(folder / "model.safetensors")
    stored[name] = torch.from_numpy(cut).to(HALVES[dtype])
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    assert name in audited(folder, checkpoint, tmp_path / "parity")["reason"]


@pytest.mark.parametrize("dtype", HALVES)
def test_stock_transformers_loads_it_in_its_dtype(half, tensors, dtype: str) -> None:
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(half(dtype)[0])
    assert model.dtype == HALVES[dtype]
    source = tensors["resnet/head/conv2d/kernel"][0, 0].T
    assert torch.equal(model.classifier[1].weight, torch.from_numpy(source.copy()).to(HALVES[dtype]))


def test_a_half_folder_is_a_source_again_of_its_own_values(half, tmp_path: Path) -> None:
    """float32 of what is stored: nothing more is lost, and the way back to float16 gives the same bytes."""
    folder = half("float16")[0]
    report = converted(folder, tmp_path / "wide")["report"]
    assert (report["verdict"], report["rounding"]) == ("passed", 0.0)
    converted(tmp_path / "wide", tmp_path / "narrow", "--dtype", "float16", "--no-verify")
    assert (tmp_path / "narrow/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_what_float16_cannot_hold_is_not_made(tensors, tmp_path: Path) -> None:
    """A gamma of 1e5 overflows float16, not bfloat16."""
    name = "resnet/block1/unit01/a/group_norm/gamma"
    np.savez(tmp_path / "large.npz", **{**tensors, name: tensors[name] * np.float32(1e5)})
    message = refused(1, "--checkpoint", tmp_path / "large.npz", "--output", tmp_path / "model", "--dtype", "float16")
    assert "inconclusive" in message
    assert name in message
    assert not (tmp_path / "model").exists()
    assert converted(tmp_path / "large.npz", tmp_path / "b", "--dtype", "bfloat16")["report"]["verdict"] == "passed"


def test_npz_is_float32_alone(checkpoint, tmp_path: Path) -> None:
    arguments = ("--checkpoint", checkpoint, "--output", tmp_path / "model", "--layout", "npz", "--dtype", "float16")
    assert "Leave out --dtype" in refused(2, *arguments)
