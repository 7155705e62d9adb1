"""Model folders: what config.json declares, safetensors whose headers lie, pickles that want to run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.errors import CheckpointError
from converters.mapping.names import TensorKind, parameters
from converters.sources import open_checkpoint, open_source
from tests.checkpoints import make_checkpoint
from tests.converters.sources import writers
from tests.converters.sources.conftest import CLASSES, MIDS, UNITS, WIDTH
from tests.converters.sources.costs import cost_of_refusal
from tests.converters.sources.refusals import (
    read_all,
    refuse,
    refuse_cut_short,
    refuse_or_equal_flipped,
)

MB = 1 << 20
LOGITS = {"exact": "logits", "weight_standardization_eps": 1e-8}


@pytest.fixture
def folder(written, tmp_path: Path) -> Path:
    """A folder in the transformers layout, to be changed."""
    return Path(shutil.copytree(written("transformers"), tmp_path / "folder"))


@pytest.fixture
def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def declare(folder: Path, **config) -> None:
    (folder / "config.json").write_text(json.dumps(config))


# -- folders of other libraries


def test_a_folder_that_transformers_saved_is_read(tmp_path: Path) -> None:
    from transformers import BitConfig, BitForImageClassification

    config = BitConfig(embedding_size=32, hidden_sizes=[128, 256], depths=[1, 2], num_labels=3)
    model = BitForImageClassification(config)
    model.save_pretrained(tmp_path)
    state = model.state_dict()
    with open_checkpoint(tmp_path) as source:
        assert (source.scheme, source.architecture.units, source.exact) == ("transformers", (1, 2), "bits")
        kernel = state["bit.encoder.stages.1.layers.1.conv2.weight"].numpy().transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(source.read("resnet/block2/unit02/b/standardized_conv2d/kernel"), kernel)
        head = state["classifier.1.weight"].numpy().T[None, None]
        np.testing.assert_array_equal(source.read("resnet/head/conv2d/kernel"), head)


@pytest.mark.slow
def test_folders_that_timm_saved_are_read(tmp_path: Path) -> None:
    import timm
    from timm.models import save_for_hf

    model = timm.create_model("resnetv2_50x1_bit", pretrained=False, num_classes=10)
    save_for_hf(model, tmp_path, safe_serialization=True)
    with open_checkpoint(tmp_path) as source:
        assert (source.scheme, str(source.architecture.name), source.architecture.classes) == ("timm", "R50x1", 10)
        np.testing.assert_array_equal(
            source.read("resnet/head/conv2d/kernel"), model.head.fc.weight.detach().numpy().transpose(2, 3, 1, 0)
        )


def test_a_single_file_is_read_with_the_config_beside_it(folder: Path, weights: Path, tensors) -> None:
    declare(folder, pool_padding="-inf")
    with open_checkpoint(weights) as source:
        assert source.pool_padding == "-inf"
        assert all(source.read(name).tobytes() == value.tobytes() for name, value in tensors.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_any_width_is_read(tmp_path: Path, tensors, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    kind = getattr(torch, dtype)
    state = {name: torch.from_numpy(v).to(kind) for name, v in writers.torch_names(tensors, "original").items()}
    save_torch(state, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    expected = state["body.block1.unit01.conv2.weight"].float().numpy().transpose(2, 3, 1, 0)
    for _ in ("safetensors", "bin"):
        got = read_all(tmp_path)["resnet/block1/unit01/b/standardized_conv2d/kernel"]
        np.testing.assert_array_equal(got, expected, strict=True)
        (tmp_path / "model.safetensors").unlink(missing_ok=True)


def test_a_wrapped_model_of_google_s_training_is_read(tmp_path: Path, tensors) -> None:
    """DataParallel puts ``module.`` before every name."""
    state = {f"module.{name}": value for name, value in writers.torch_names(tensors, "original").items()}
    save_file(state, tmp_path / "model.safetensors")
    assert read_all(tmp_path).keys() == tensors.keys()


# -- what config.json declares


def test_logits_are_divided_by_ten_and_lose_at_most_one_unit_in_the_last_place(folder: Path, weights: Path) -> None:
    tensors = make_checkpoint(UNITS, WIDTH, CLASSES, seed=21, kernel_std=1.0, mids=MIDS)
    state = writers.torch_names(tensors, "transformers")
    kernels = {name for name in state if "conv" in name}
    save_file({n: v * np.float32(10) if n in kernels else v for n, v in state.items()}, weights)
    declare(folder, **LOGITS)
    with open_checkpoint(folder) as source:
        assert source.exact == "logits"
        got = {name: source.read(name) for name in source.shapes}
    kinds = {row.names["npz"]: row.kind for row in parameters(source.architecture)}
    exact = total = 0
    for name, value in tensors.items():
        if kinds[name] is not TensorKind.KERNEL:
            assert got[name].tobytes() == value.tobytes(), name
            continue
        assert (np.abs(got[name] - value) <= np.spacing(np.abs(value))).all(), name
        exact, total = exact + int((got[name] == value).sum()), total + value.size
    assert 0.8 < exact / total < 0.9  # facts: 85 % of the mantissas come back


@pytest.mark.parametrize("config", [{}, {"weight_standardization_eps": 1e-8}, {"exact": "bits"}])
def test_kernels_of_stock_ports_and_of_bits_are_taken_as_they_are(folder: Path, tensors, config: dict) -> None:
    declare(folder, **config)
    got = read_all(folder)
    assert all(got[name].tobytes() == value.tobytes() for name, value in tensors.items())


@pytest.mark.parametrize(
    "text",
    [
        '{"exact": "logits"}',
        '{"exact": "logits", "weight_standardization_eps": 1e-10}',
        '{"exact": "both"}',
        '{"exact": ["bits"]}',
        '{"pool_padding": "reflect"}',
        '{"exact": "bits", "exact": "logits", "weight_standardization_eps": 1e-8}',
        "[]",
        "{",
        "\0",
        "[" * 100_000,
        "",
    ],
)
def test_a_config_that_says_nothing_clear_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json" in refuse(folder)


def test_a_gigantic_config_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "config.json" in refuse(folder)


# -- safetensors


def lie(weights: Path, change) -> None:
    """Rewrites the header as ``change`` leaves it."""
    content = weights.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = change(header)
    new = text if isinstance(text, bytes) else json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


NAME = "bit.norm.weight"


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h[NAME].update(shape=[1 << 40]),
        lambda h: h[NAME].update(shape=[-384]),
        lambda h: h[NAME].update(shape=[384.0]),
        lambda h: h[NAME].update(shape=[True] * 2),
        lambda h: h[NAME].update(shape=384),
        lambda h: h[NAME].update(shape=[1 << 62, 1 << 62, 0]),
        lambda h: h[NAME].update(dtype="F8"),
        lambda h: h[NAME].update(dtype=["F32"]),
        lambda h: h[NAME].update(data_offsets=[0, 1 << 60]),
        lambda h: h[NAME].update(data_offsets=[-1536, 0]),
        lambda h: h[NAME].update(data_offsets=[0]),
        lambda h: h[NAME].update(data_offsets=h["bit.norm.bias"]["data_offsets"]),
        lambda h: h[NAME].update(data_offsets=None),
        lambda h: h[NAME].update(data_offsets=1),
        lambda h: h[NAME].update(data_offsets=True),
        lambda h: h[NAME].update(data_offsets=[None, None]),
        lambda h: h[NAME].update(shape=[1] * 8 + [384]),
        lambda h: h.update({"\ud800": h.pop(NAME)}),
        lambda h: h.update({"a/" * 100: h.pop(NAME)}),
        lambda h: h[NAME].update(more=1),
        lambda h: h[NAME].pop("dtype"),
        lambda h: h.update({NAME: None}),
        lambda h: h.pop(NAME),
        lambda h: h.clear(),
        lambda h: json.dumps(h).replace("bit.norm.bias", NAME).encode(),
        lambda h: b"[" * 100_000,
        lambda h: b"\xff\xfe{}",
        lambda h: b"",
        lambda h: b'{"a": 1e999}',
        lambda h: json.dumps(
            {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(5000)}
        ).encode(),
    ],
)
def test_headers_that_lie_are_refused(folder: Path, weights: Path, change) -> None:
    lie(weights, change)
    refuse(folder)


@pytest.mark.parametrize("length", [0, 1, 1 << 20, 100_000_001, 1 << 40, (1 << 64) - 1])
def test_header_lengths_that_lie_are_refused(folder: Path, weights: Path, length: int) -> None:
    content = weights.read_bytes()
    weights.write_bytes(struct.pack("<Q", length) + content[8:])
    refuse(folder)


def test_a_sparse_file_of_a_terabyte_is_refused_without_reading_it(folder: Path, weights: Path, written) -> None:
    with weights.open("r+b") as file:
        file.truncate(1 << 40)
    assert cost_of_refusal(folder, written("transformers")).memory < 20 * MB


def test_safetensors_cut_short_are_refused(folder: Path, weights: Path) -> None:
    refuse_cut_short(weights, folder)


def test_bytes_after_the_last_tensor_are_refused(folder: Path, weights: Path) -> None:
    with weights.open("ab") as file:
        file.write(b"\0" * 8)
    assert "end at" in refuse(folder)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite_are_refused(folder: Path, weights: Path, value: float) -> None:
    state = load_file(weights)
    state[NAME] = np.full_like(state[NAME], value)
    save_file(state, weights)
    assert f"{NAME} holds NaN or Inf" in refuse(folder)


def test_other_dtypes_are_refused(folder: Path, weights: Path) -> None:
    save_file({**load_file(weights), NAME: np.ones(384, "i4")}, weights)
    assert f"{NAME} holds I32" in refuse(folder)


# -- shards


@pytest.fixture
def shards(written, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written("transformers in shards"), tmp_path / "shards"))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update({NAME: "../" + m[NAME]}),
        lambda m: m.update({NAME: "/etc/passwd"}),
        lambda m: m.update({NAME: ".."}),
        lambda m: m.update({NAME: ""}),
        lambda m: m.update({NAME: 3}),
        lambda m: m.update({NAME: "absent.safetensors"}),
        lambda m: m.update({NAME: "a" * 300}),
        lambda m: m.update({NAME: "a\0"}),
        lambda m: m.update({NAME: "\ud800"}),
        lambda m: m.update({"\ud800": m[NAME]}),
        lambda m: m.update({NAME: next(file for file in m.values() if file != m[NAME])}),
        lambda m: m.update({"more": m[NAME]}),
        lambda m: m.pop(NAME),
        lambda m: m.clear(),
    ],
)
def test_an_index_that_lies_is_refused(shards: Path, change) -> None:
    index = shards / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))
    assert index.name in refuse(shards)


def test_a_missing_shard_is_named(shards: Path) -> None:
    gone = sorted(shards.glob("*.safetensors"))[1]
    gone.unlink()
    assert gone.name in refuse(shards)


def test_a_tensor_in_two_shards_is_refused(shards: Path) -> None:
    first, second = sorted(shards.glob("*.safetensors"))[:2]
    save_file({**load_file(first), **load_file(second)}, first)
    assert "in two shards" in refuse(shards)


def test_an_index_beside_a_whole_file_is_refused(shards: Path, weights: Path) -> None:
    shutil.copy(weights, shards)
    assert "out of date" in refuse(shards)


# -- .bin


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["whole", "beside", "inside"])
def test_a_pickle_is_never_executed(tmp_path: Path, tensors, zipped: bool, place: str) -> None:
    import torch

    mark = tmp_path / "executed"
    state: object = {name: torch.from_numpy(v) for name, v in writers.torch_names(tensors, "original").items()}
    state = {"whole": Runs(mark), "beside": {**state, "x": Runs(mark)}, "inside": {**state, "x": [Runs(mark)]}}[place]
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    refuse(tmp_path)
    assert not mark.exists()


def bin_with(folder: Path, data: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", b"3\n")
    return folder


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        pickle.dumps({"a": 1}),
        pickle.dumps([1, 2]),
        pickle.dumps({1: 2}, 2),
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
        b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x02B\xff\xff\xff\x7f.",
        b"(" * 10_000,
        b"\x80\x02}q\x00h\x05.",
    ],
)
def test_pickles_of_anything_else_are_refused(tmp_path: Path, data: bytes) -> None:
    refuse(bin_with(tmp_path, data))


@pytest.mark.slow
def test_a_packed_pickle_is_refused_before_it_expands(tmp_path: Path, written) -> None:
    bin_with(tmp_path, bytes(200 * MB), zipfile.ZIP_DEFLATED)
    assert "packed" in refuse(tmp_path)
    assert cost_of_refusal(tmp_path, written("original .bin")).memory < 20 * MB


def test_a_pickle_that_reserves_memory_on_demand_is_refused(tmp_path: Path, written) -> None:
    """torch.load, weights only, would make this bytearray of two gigabytes."""
    bin_with(tmp_path, b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.")
    assert "builtins bytearray" in refuse(tmp_path)
    assert cost_of_refusal(tmp_path, written("original .bin")).memory < 20 * MB


def test_tensors_larger_than_their_bytes_are_refused(tmp_path: Path, written) -> None:
    """One value, stretched to a gigabyte by strides of zero."""
    import torch

    torch.save({"root.conv.weight": torch.ones(1).expand(1 << 28)}, tmp_path / "pytorch_model.bin")
    assert "claim more bytes" in refuse(tmp_path)
    assert cost_of_refusal(tmp_path, written("original .bin")).memory < 20 * MB


@pytest.fixture
def bin_folder(written, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written("original .bin"), tmp_path / "bin"))


def test_a_bin_cut_short_is_refused(bin_folder: Path) -> None:
    refuse_cut_short(bin_folder / "pytorch_model.bin", bin_folder)


@pytest.mark.slow
def test_one_flipped_bit_never_changes_what_is_read(bin_folder: Path, tensors) -> None:
    refuse_or_equal_flipped(bin_folder / "pytorch_model.bin", bin_folder, tensors)


def test_a_single_bin_is_told_from_an_npz(bin_folder: Path, tmp_path: Path, tensors) -> None:
    path = shutil.copy(bin_folder / "pytorch_model.bin", tmp_path / "model.npz")
    with open_source(Path(path)) as source:
        assert source.format == "torch-bin"
    assert read_all(Path(path)).keys() == tensors.keys()


def test_an_unreadable_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_source(tmp_path / ("x" * 300))
