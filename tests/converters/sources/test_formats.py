"""Every format gives the same network: names, order, shapes and bits of Google's npz."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.errors import CheckpointError
from converters.mapping.architecture import Architecture
from converters.mapping.layouts import BY_SCHEME
from converters.mapping.names import SCHEMES, parameters
from converters.sources import open_checkpoint, open_source
from tests.checkpoints import make_checkpoint, tensor_shapes
from tests.converters.sources import writers
from tests.converters.sources.conftest import CLASSES, FORMATS, MIDS, UNITS, WIDTH, tar_of

every_format = pytest.mark.parametrize("name", FORMATS)
SCHEME_OF = {
    "big_vision": "big_vision", "h5": "keras", "TF2": "tf2", "SavedModel": "tf2", "TF1": "npz", "TF1-Hub": "npz",
    "npz": "npz", "timm": "timm", "original": "original", "transformers": "transformers",
}  # fmt: skip
"""First word of a format's name → the scheme it is recognised by."""


@every_format
def test_every_format_gives_google_s_names_order_and_bits(name: str, written, tensors) -> None:
    with open_checkpoint(written(name)) as source:
        assert source.architecture == Architecture(UNITS, WIDTH, MIDS, CLASSES)
        assert list(source.shapes.items()) == [(key, value.shape) for key, value in tensors.items()]
        for key, value in tensors.items():
            got = source.read(key)
            assert got.flags["C_CONTIGUOUS"], key
            np.testing.assert_array_equal(got, value, err_msg=key, strict=True)
        assert source.path == str(written(name))
        assert source.scheme == SCHEME_OF[name.split()[0]]
        assert source.pool_padding == ("-inf" if source.scheme == "big_vision" else "zeros")


@every_format
def test_a_git_lfs_pointer_in_place_of_any_file_is_named_as_such(name: str, written, tmp_path: Path) -> None:
    whole = written(name)
    prefix = whole.with_name(whole.name + ".index").exists()  # of a TensorFlow checkpoint
    place = whole.parent if prefix or whole.is_file() else whole
    with open_source(whole) as source:
        files = list(source.files.values())
    for file in files:
        copy = tmp_path / file.name
        shutil.copytree(place, copy)
        pointer = copy / file.relative_to(place)
        pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n")
        with pytest.raises(CheckpointError, match=r"a Git LFS pointer, not the file: run git lfs pull") as caught:
            open_checkpoint(copy if place == whole else copy / whole.name)
        assert file.name in str(caught.value)


@every_format
def test_every_format_may_lack_a_head(name: str, written, headless) -> None:
    with open_checkpoint(written(name, head=False)) as source:
        assert source.architecture == Architecture((1, 2), WIDTH, MIDS, None)
        assert list(source.shapes) == list(headless)
        assert all(source.read(key).tobytes() == value.tobytes() for key, value in headless.items())


@every_format
def test_every_tensor_of_the_file_is_used_once_or_dropped_with_a_reason(name: str, written, tensors) -> None:
    with open_source(written(name)) as raw, open_checkpoint(written(name)) as view:
        assert len(raw.shapes) == len(tensors) + len(view.dropped)
        assert all(view.dropped.values())


@every_format
def test_reading_twice_gives_fresh_arrays(name: str, written) -> None:
    with open_checkpoint(written(name)) as source:
        key = "resnet/group_norm/gamma"
        first = source.read(key)
        again = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(source.read(key), again)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npz_of_any_width_is_read_as_float32(dtype: str, tmp_path: Path, tensors) -> None:
    saved = {name: value.astype(dtype) for name, value in tensors.items()}
    np.savez(tmp_path / "model.npz", **saved)
    with open_checkpoint(tmp_path / "model.npz") as source:
        for name, value in saved.items():
            np.testing.assert_array_equal(source.read(name), value.astype(np.float32), strict=True)


def test_float64_beyond_float32_is_refused(tmp_path: Path, tensors) -> None:
    saved = {name: value.astype(np.float64) for name, value in tensors.items()}
    saved["resnet/group_norm/beta"][0] = 1e39
    np.savez(tmp_path / "model.npz", **saved)
    with open_checkpoint(tmp_path / "model.npz") as source, pytest.raises(CheckpointError, match="group_norm/beta"):
        source.read("resnet/group_norm/beta")


def test_jax_s_bfloat16_is_read_exactly(tmp_path: Path, tensors) -> None:
    """NumPy saves it as two bytes without a type."""
    import torch

    halves = {name: torch.from_numpy(value).bfloat16() for name, value in writers.to_big_vision(tensors).items()}
    np.savez(
        tmp_path / "model.npz", **{name: value.view(torch.int16).numpy().view("V2") for name, value in halves.items()}
    )
    with open_checkpoint(tmp_path / "model.npz") as source:
        kernel = halves["root_block/conv_root/kernel"].float().numpy()
        np.testing.assert_array_equal(source.read("resnet/root_block/standardized_conv2d/kernel"), kernel)


networks = st.builds(
    lambda units, width, mids, classes: (
        tuple(units),
        32 * width,
        tuple(32 * mid for mid in mids[: len(units)]),
        classes,
    ),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.integers(1, 2),
    st.lists(st.integers(1, 2), min_size=4, max_size=4),
    st.none() | st.integers(1, 40),
)


@settings(max_examples=30, deadline=None)
@given(network=networks, scheme=st.sampled_from(SCHEMES), prefix=st.booleans())
def test_any_network_in_any_scheme_comes_back(tmp_path_factory, network, scheme: str, prefix: bool) -> None:
    """Written under the table's names and forms, read by the reader that has files of the scheme."""
    units, width, mids, classes = network
    tensors = make_checkpoint(units, width, classes, mids=mids)
    layout = BY_SCHEME[scheme]
    stored = {
        row.names[scheme]: layout.store(row, tensors[row.names["npz"]], "bits")
        for row in parameters(Architecture(units, width, mids, classes))
    }
    folder = tmp_path_factory.mktemp("any")
    if scheme in ("original", "transformers", "timm"):
        from safetensors.numpy import save_file

        save_file(stored, folder / "model.safetensors")
    else:
        before = "params/" if prefix and scheme == "big_vision" else ""
        np.savez(folder / "model.npz", **{before + name: value for name, value in stored.items()})
    with open_checkpoint(folder) as source:
        assert source.architecture == Architecture(units, width, mids, classes)
        assert list(source.shapes) == list(tensor_shapes(units, width, classes, mids))
        assert all(source.read(name).tobytes() == value.tobytes() for name, value in tensors.items())


# -- what a source is known by


@pytest.mark.parametrize("name", ["npz", "h5 with whole names", "SavedModel .tar.gz"])
def test_digest_of_a_file_is_the_file_s(name: str, written) -> None:
    with open_source(written(name)) as source:
        assert source.sha256 == hashlib.sha256(written(name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "used"),
    [
        ("transformers in shards", "model-*.safetensors"),
        ("TF1-Hub", "tfhub_module.pb variables/*"),
        ("SavedModel", "saved_model.pb variables/*"),
        ("TF1 checkpoint", "model.ckpt-7.index model.ckpt-7.data-*"),
    ],
)
def test_digest_of_a_folder_is_what_sha256sum_gives(name: str, used: str, written) -> None:
    folder = written(name) if written(name).is_dir() else written(name).parent
    command = f"LC_ALL=C; export LC_ALL; sha256sum $(ls -d {used} | sort) | sha256sum"
    expected = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    with open_source(written(name)) as source:
        assert source.sha256 == expected


def test_digest_changes_with_any_file(tmp_path: Path, written) -> None:
    folder = shutil.copytree(written("TF1-Hub with its graph"), tmp_path / "module")
    with open_source(folder) as source:
        before = source.sha256
    with (folder / "saved_model.pb").open("ab") as file:
        file.write(b"\x0a\x00")  # one more, empty, graph: still a SavedModel
    with open_source(folder) as source:
        assert source.sha256 != before


# -- folders that hold more than one


def test_a_saved_model_comes_before_the_checkpoint_beside_it(tmp_path: Path, written) -> None:
    folder = shutil.copytree(written("SavedModel"), tmp_path / "both")
    for file in written("TF1 checkpoint").parent.iterdir():
        shutil.copy(file, folder)
    with open_source(folder) as source:
        assert source.format == "saved-model"


def test_safetensors_come_before_bin(tmp_path: Path, written) -> None:
    folder = shutil.copytree(written("transformers"), tmp_path / "both")
    shutil.copy(written("original .bin") / "pytorch_model.bin", folder)
    with open_source(folder) as source:
        assert (source.format, source.scheme) == ("safetensors", "transformers")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("transformers", "SavedModel"),
        ("transformers", "npz"),
        ("TF1 checkpoint", "original .bin"),
        ("npz", "h5 with whole names"),
    ],
)
def test_anything_else_that_fits_twice_is_refused(tmp_path: Path, written, one: str, other: str) -> None:
    folder = tmp_path / "both"
    for name in (one, other):
        path = written(name)
        shutil.copytree(path if path.is_dir() else path.parent, folder, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match="more than one checkpoint") as caught:
        open_source(folder)
    assert str(folder) in str(caught.value)


def test_several_checkpoints_of_one_folder_are_named(tmp_path: Path, written, tensors) -> None:
    for step in (7, 8):
        writers.tf1_checkpoint(tensors, tmp_path / f"model.ckpt-{step}")
    with pytest.raises(CheckpointError, match=r"model\.ckpt-7, model\.ckpt-8"):
        open_source(tmp_path)
    for path in ("model.ckpt-8", "model.ckpt-8.index", "model.ckpt-8.data-00000-of-00001"):
        with open_checkpoint(tmp_path / path) as source:
            assert source.architecture.classes == CLASSES


def test_a_folder_may_hold_one_npz_with_its_config(tmp_path: Path, written) -> None:
    """As the npz layout is written."""
    shutil.copy(written("npz"), tmp_path / "BiT.npz")
    (tmp_path / "config.json").write_text('{"pool_padding": "-inf", "exact": "bits"}')
    with open_checkpoint(tmp_path) as source:
        assert (source.format, source.pool_padding) == ("npz", "-inf")


def test_an_archive_leaves_nothing_behind(tmp_path: Path, written, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = written("SavedModel .tar.gz")  # TensorFlow, which makes it, has files of its own there
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with open_checkpoint(archive) as source:
        assert len(list(tmp_path.iterdir())) == 1
        source.read("resnet/group_norm/gamma")
    assert not list(tmp_path.iterdir())


def test_an_archive_of_what_is_no_checkpoint_names_the_archive(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("nothing")
    archive = tar_of(tmp_path / "folder", tmp_path / "x.tar.gz")
    with pytest.raises(CheckpointError, match=r"x\.tar\.gz.*notes\.txt"):
        open_source(archive)


@pytest.mark.parametrize("here", [".", ".."])
def test_the_working_folder_is_called_by_its_name(tmp_path: Path, written, monkeypatch, here: str) -> None:
    folder = Path(shutil.copytree(written("transformers"), tmp_path / "model"))
    (folder / "inside").mkdir()
    monkeypatch.chdir(folder if here == "." else folder / "inside")
    with open_checkpoint(Path(here)) as source:
        assert Path(source.path).name == "model"


def test_a_damaged_tensor_in_an_archive_names_the_archive(tmp_path: Path, tensors) -> None:
    from safetensors.numpy import save_file

    state = writers.torch_names(tensors, "timm")
    state["norm.bias"] = np.full_like(state["norm.bias"], np.nan)
    (tmp_path / "folder").mkdir()
    save_file(state, tmp_path / "folder/model.safetensors")
    archive = tar_of(tmp_path / "folder", tmp_path / "x.tar.gz")
    with open_source(archive) as source, pytest.raises(CheckpointError, match="NaN") as caught:
        source.read("norm.bias")
    assert str(caught.value).startswith(str(archive))


# -- unknown files


@pytest.mark.parametrize("content", [b"", b"RIFF1234WEBP", b"\x00" * 64, b"<html>"])
def test_an_unknown_file_is_refused_with_what_was_looked_for(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    for word in (str(path), ".npz", ".h5", "SavedModel", "checkpoint", "safetensors", "pytorch_model.bin", ".tar.gz"):
        assert word in message


@pytest.mark.parametrize("files", [[], ["README.md", "notes.txt"]])
def test_an_unknown_folder_is_refused_with_what_it_holds(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_text("x")
    with pytest.raises(CheckpointError, match="README.md, notes.txt" if files else "nothing"):
        open_source(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    open_end = os.open(tmp_path / "pipe.npz", os.O_RDWR)
    os.write(open_end, bytes(4096))  # so that whoever reads from it does not wait for ever
    try:
        with pytest.raises(CheckpointError, match=r"pipe\.npz: it is a pipe"):
            open_checkpoint(tmp_path / "pipe.npz")
    finally:
        os.close(open_end)


def test_another_network_is_refused_with_the_nearest_layout(tmp_path: Path, tensors) -> None:
    from safetensors.numpy import save_file

    state = writers.torch_names(tensors, "timm")
    state["head.extra.weight"] = state.pop("norm.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    message = str(caught.value)
    assert "in the timm scheme: 1 missing: norm.bias; 1 unexpected: head.extra.weight" in message


def test_a_resnet_of_another_kind_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(
        {"conv1.weight": np.ones((64, 3, 7, 7), "f4"), "bn1.weight": np.ones(64, "f4")}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"conv1\.weight.*\n.*Looked for"):
        open_checkpoint(tmp_path)


def test_two_spellings_of_one_tensor_are_refused(tmp_path: Path, tensors) -> None:
    name = "resnet/block1/unit01/a/standardized_conv2d/kernel"
    twice = {**tensors, name.replace("conv2d", "conv2d_3"): tensors[name]}
    np.savez(tmp_path / "model.npz", **twice)
    with pytest.raises(CheckpointError, match="standardized_conv2d_3/kernel are the same tensor"):
        open_checkpoint(tmp_path / "model.npz")


# -- what is imported


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("npz", "torch tensorflow h5py transformers"),
        ("h5 with whole names", "torch tensorflow transformers"),
        ("transformers", "torch tensorflow h5py transformers"),
        ("TF1 checkpoint", "torch transformers"),
        ("original .bin", "tensorflow h5py transformers"),
    ],
)
def test_a_format_loads_no_library_but_its_own(name: str, absent: str, written) -> None:
    program = (
        "import sys; from pathlib import Path; from converters.sources import open_checkpoint\n"
        "with open_checkpoint(Path(sys.argv[1])) as source: source.read('resnet/group_norm/gamma')\n"
        "print(*(m for m in sys.argv[2].split() if m in sys.modules))"
    )
    command = [sys.executable, "-c", program, str(written(name)), absent]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
