"""What stands beside the weights: the training's state in an npz, and what macOS puts into folders and archives."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.sources import open_checkpoint
from tests.command_line import converted, run
from tests.converters.sources import writers
from tests.converters.sources.refusals import read_all, refuse

Tensors = dict[str, np.ndarray]
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(96)


def flattened(tree: object, path: str = "") -> Tensors:
    """The leaves of dicts and tuples, named by the way to them, as big_vision's tree_flatten_with_names has it."""
    if isinstance(tree, dict):
        return {name: leaf for key in sorted(tree) for name, leaf in flattened(tree[key], f"{path}{key}/").items()}
    if isinstance(tree, tuple | list):
        return {name: leaf for key, node in enumerate(tree) for name, leaf in flattened(node, f"{path}{key}/").items()}
    return {} if tree is None else {path.rstrip("/"): np.asarray(tree)}


def tree_of(tensors: Tensors) -> dict[str, object]:
    tree: dict = {}
    for name, value in writers.to_big_vision(tensors).items():
        *way, last = name.split("/")
        node = tree
        for part in way:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def slots(tensors: Tensors, dtype: str = "f4", fill: float = 0.5) -> dict[str, object]:
    """A tree of the network's shape, of another content."""
    return tree_of({name: np.full(value.shape, fill, dtype) for name, value in tensors.items()})


CHRONO = {
    "accum_program_time": 12.5,
    "accum_train_time": 10.25,
    "accum_pause_time": 2.0,
    "accum_examples_seen": 1024,
}
COUNT = np.int32(7)


def optax_chain(tensors: Tensors) -> object:
    """big_vision's optax.make, masked states and all, as of named tuples taken for tuples."""
    bfloat16 = slots(tensors, "V2", b"\x80\x3f")
    return ((), ((), ((bfloat16,),)), (None,), (COUNT,), ((COUNT,),), ())


def optax_named(tensors: Tensors) -> object:
    adam = {"count": COUNT, "mu": {"params": slots(tensors)}, "nu": {"params": slots(tensors)}}
    return (adam, {"count": COUNT, "hyperparams": {"learning_rate": np.float32(0.1)}}, {"inner_state": (adam,)})


def adafactor(tensors: Tensors) -> object:
    """Factored moments: other shapes than the network's, NaN where nothing was seen yet."""
    rows = {name: np.full(value.shape[-1:], np.nan, "f4") for name, value in tensors.items()}
    return {"v_row": tree_of({**tensors, **rows}), "v": slots(tensors), "count": COUNT, "rng": np.arange(2, dtype="u4")}


def newer(optimiser):
    return lambda tensors: {"params": tree_of(tensors), "opt": optimiser(tensors), "chrono": CHRONO}


def older(slot: str):
    def save(tensors: Tensors) -> dict[str, object]:
        states = tree_of(tensors)

        def nest(node: object) -> object:
            return {key: nest(value) for key, value in node.items()} if isinstance(node, dict) else {slot: node * 0}

        state = {"step": COUNT, "param_states": nest(states)}
        extra = {"accum_train_time": 3.5, "rngs_loop": np.arange(16, dtype="u4").reshape(8, 2)}
        return {"opt": {"target": states, "state": state}, "extra": extra}

    return save


TRAININGS = {
    "chain": newer(optax_chain),
    "named": newer(optax_named),
    "adafactor": newer(adafactor),
    "momentum": older("momentum"),
    "adam": older("grad_ema"),
    "v_row": older("v_row"),
    "params in opt": lambda tensors: {"opt": {"params": tree_of(tensors), "mu": slots(tensors), "step": COUNT}},
    "params twice": lambda tensors: {"params": tree_of(tensors), "opt": {"params": slots(tensors), "count": COUNT}},
    "bare": lambda tensors: {**tree_of(tensors), "opt": optax_named(tensors), "chrono": CHRONO},
    "nested": lambda tensors: {"student": {"params": tree_of(tensors), "opt": (slots(tensors), COUNT)}},
}


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
def test_a_whole_training_of_big_vision_is_read(tmp_path: Path, tensors, training: str, saver) -> None:
    saved = flattened(TRAININGS[training](tensors))
    saver(tmp_path / "checkpoint.npz", **saved)
    with open_checkpoint(tmp_path / "checkpoint.npz") as source:
        assert source.pool_padding == "-inf"
        assert all(source.read(name).tobytes() == value.tobytes() for name, value in tensors.items())
        assert len(source.dropped) == len(saved) - len(tensors)
        assert all(source.dropped.values())


@pytest.mark.parametrize("training", ["chain", "momentum", "params in opt"])
@pytest.mark.parametrize("inside", ["", "block1/unit01/"])
def test_a_tensor_too_many_beside_the_others_is_not_the_training_s(tmp_path: Path, tensors, training, inside) -> None:
    saved = flattened(TRAININGS[training](tensors))
    prefix = next(name for name in saved if name.endswith("root_block/conv_root/kernel") and "param_states" not in name)
    odd = {"chain": "params/", "momentum": "opt/target/", "params in opt": "opt/params/"}[training]
    assert prefix.startswith(("params/", "opt/"))
    np.savez(tmp_path / "model.npz", **saved, **{f"{odd}{inside}conv9/kernel": np.ones((1, 1, 2, 2), "f4")})
    assert f"1 unexpected: {odd}{inside}conv9/kernel" in refuse(tmp_path / "model.npz")


@pytest.mark.parametrize("training", ["chain", "v_row"])
def test_what_is_left_out_is_said_in_one_line(tmp_path: Path, tensors, training: str) -> None:
    np.savez(tmp_path / "model.npz", **flattened(TRAININGS[training](tensors)))
    entry = converted(tmp_path / "model.npz", tmp_path / "json", "--no-verify")
    count = f"{len(tensors)} tensors (" if training == "v_row" else f"{len(tensors) + 2} tensors (the optimiser's state"
    assert count in entry["left_out"]
    assert "\n" not in entry["left_out"]
    assert entry["left_out"] in (tmp_path / "json/README.md").read_text(encoding="utf-8")
    options = ("--checkpoint", tmp_path / "model.npz", "--output", tmp_path / "text", "--no-verify")
    assert entry["left_out"] in run(*options, "--dry-run").stdout
    said = run(*options).stdout
    assert "left out" in said
    assert count in " ".join(said.replace("│", " ").split())


def test_nothing_left_out_is_not_said(tmp_path: Path, tensors) -> None:
    np.savez(tmp_path / "model.npz", **tensors)
    assert converted(tmp_path / "model.npz", tmp_path / "model", "--no-verify")["left_out"] == ""
    assert "left out" not in (tmp_path / "model/README.md").read_text(encoding="utf-8")
    again = run("--checkpoint", tmp_path / "model.npz", "--output", tmp_path / "again", "--no-verify").stdout
    assert "left out" not in again


@pytest.mark.parametrize("name", ["global_step", "step", "epoch", "optimizer/iterations", "model_version"])
@pytest.mark.parametrize("dtype", ["i4", "<i8", ">i8", "u2"])
def test_an_integer_alone_is_a_counter(tmp_path: Path, tensors, name: str, dtype: str) -> None:
    np.savez(tmp_path / "model.npz", **tensors, **{name: np.array(1000, dtype)})
    with open_checkpoint(tmp_path / "model.npz") as source:
        assert source.dropped.keys() == {name}
    assert read_all(tmp_path / "model.npz").keys() == tensors.keys()


@pytest.mark.parametrize("dtype", ["i8", "f4", "f8", "?", "U5", "O"])
def test_a_tensor_with_a_row_is_left_out_whatever_it_holds(tmp_path: Path, tensors, dtype: str) -> None:
    np.savez(tmp_path / "model.npz", **tensors, global_step=np.array([1], dtype))
    with open_checkpoint(tmp_path / "model.npz") as source:
        assert "counter" in source.dropped["global_step"]
    assert read_all(tmp_path / "model.npz").keys() == tensors.keys()


@pytest.mark.parametrize("value", [np.ones(3, "i4"), np.ones(3, "f4"), np.array("text"), np.array([{}], dtype=object)])
def test_a_tensor_without_a_row_is_unexpected_whatever_it_holds(tmp_path: Path, tensors, value) -> None:
    np.savez(tmp_path / "model.npz", **tensors, something=value)
    assert "1 unexpected: something" in refuse(tmp_path / "model.npz")


@pytest.mark.parametrize("dtype", ["i4", "c8", "O"])
def test_a_tensor_that_is_used_must_hold_floats(tmp_path: Path, tensors, dtype: str) -> None:
    """Before anything is written."""
    name = "resnet/group_norm/beta"
    np.savez(tmp_path / "model.npz", **{**tensors, name: tensors[name].astype(dtype)})
    with pytest.raises(CheckpointError, match=f"{name} holds"):
        open_checkpoint(tmp_path / "model.npz")


def test_a_slot_need_not_be_finite(tmp_path: Path, tensors) -> None:
    slot = {"resnet/group_norm/beta/Momentum": np.full_like(tensors["resnet/group_norm/beta"], np.inf)}
    np.savez(tmp_path / "model.npz", **tensors, **slot)
    converted(tmp_path / "model.npz", tmp_path / "model", "--no-verify")


# -- macOS


def with_metadata(folder: Path) -> None:
    """As a copy from a Mac to another file system has it: an AppleDouble file for each, .DS_Store in each folder."""
    for path in list(folder.rglob("*")):
        if path.is_file():
            path.with_name("._" + path.name).write_bytes(APPLE_DOUBLE)
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        (path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")


@pytest.mark.parametrize(
    "name", ["npz", "h5 with whole names", "TF1 checkpoint", "SavedModel", "transformers", "original .bin"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_macos_puts_beside_a_checkpoint_is_passed_over(tmp_path: Path, written, tensors, name, packed) -> None:
    path = written(name)
    folder = shutil.copytree(path if path.is_dir() else path.parent, tmp_path / "model")
    with_metadata(folder)
    opened = folder
    if packed:
        opened = tmp_path / "model.tar.gz"
        (tmp_path / "__MACOSX/model").mkdir(parents=True)
        (tmp_path / "__MACOSX/model/._weights").write_bytes(APPLE_DOUBLE)
        with tarfile.open(opened, "w:gz") as tar:
            tar.add(folder, "model")
            tar.add(tmp_path / "__MACOSX", "__MACOSX")
    got = read_all(opened)
    assert all(got[key].tobytes() == value.tobytes() for key, value in tensors.items())


def test_what_macos_puts_into_an_archive_is_passed_over(tmp_path: Path, tensors) -> None:
    np.savez(tmp_path / "model.npz", **tensors)
    with zipfile.ZipFile(tmp_path / "model.npz", "a") as file:
        for name in (
            "__MACOSX/",
            "__MACOSX/resnet/._kernel.npy",
            "resnet/._gamma.npy",
            ".DS_Store",
            "resnet/.DS_Store",
        ):
            file.writestr(name, b"" if name.endswith("/") else APPLE_DOUBLE)
    assert read_all(tmp_path / "model.npz").keys() == tensors.keys()


def test_an_appledouble_file_itself_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "._model.npz").write_bytes(APPLE_DOUBLE)
    assert "give model.npz" in refuse(tmp_path / "._model.npz")


def test_a_folder_of_nothing_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "._model.npz").write_bytes(APPLE_DOUBLE)
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    assert "the folder holds nothing" in refuse(tmp_path)
