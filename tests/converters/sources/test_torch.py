"""What PyTorch trainings leave behind: checkpoints of many shapes, wrapped networks, and files that mean harm."""

from __future__ import annotations

import argparse
import collections
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.sources import open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, converted, run
from tests.converters.sources import writers
from tests.converters.sources.conftest import CLASSES, MIDS, UNITS, WIDTH
from tests.converters.sources.costs import cost_of_refusal
from tests.converters.sources.refusals import read_all, refuse, refuse_cut_short

torch = pytest.importorskip("torch")

MB = 1 << 20


def network(tensors, layout: str = "original", parameter: Callable = torch.nn.Parameter):
    """A torch.nn.Module whose parameters have the layout's names, so that PyTorch makes the state dicts."""
    root = torch.nn.Module()
    for name, value in writers.torch_names(tensors, layout).items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, parameter(torch.from_numpy(np.array(value))))
    return root


def trained(model, optimizer: str = "SGD", **settings):
    """The optimizer of a model, with the state that a step gives it, while the weights stay."""
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.0, **settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    return made


def same(path: Path, tensors) -> None:
    got = read_all(path)
    assert got.keys() == tensors.keys()
    assert all(got[name].tobytes() == value.tobytes() for name, value in tensors.items())


# -- checkpoints of trainings


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_what_google_s_training_writes_is_converted(tmp_path: Path, tensors, zipped: bool) -> None:
    """big_transfer bit_pytorch/train.py: step, the model in DataParallel, SGD with momentum."""
    model = torch.nn.DataParallel(network(tensors))
    optimizer = trained(model, momentum=0.9)
    torch.save(
        {"step": 500, "model": model.state_dict(), "optim": optimizer.state_dict()},
        tmp_path / "bit.pth.tar",
        _use_new_zipfile_serialization=zipped,
    )
    with open_checkpoint(tmp_path / "bit.pth.tar") as source:
        assert (source.format, source.scheme, source.removed) == ("torch-bin", "original", ("module.",))
        assert source.dropped.keys() == {"step", "optim"}
    np.savez(tmp_path / "bit.npz", **tensors)
    said = {
        file: converted(tmp_path / file, tmp_path / f"{file}.d", "--no-verify") for file in ("bit.pth.tar", "bit.npz")
    }
    assert said["bit.pth.tar"]["left_out"] == "step, optim (training state); module. (part of names)"
    one, other = (tmp_path / f"{file}.d" / "model.safetensors" for file in ("bit.pth.tar", "bit.npz"))
    assert one.read_bytes() == other.read_bytes()


def _lightning(tensors) -> dict:
    model = network(tensors, "timm")
    adam = trained(model, "AdamW")
    scheduler = torch.optim.lr_scheduler.MultiStepLR(adam, [3, 7])
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": collections.OrderedDict((f"model.{name}", value) for name, value in model.state_dict().items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.9), "best_k_models": {"a.ckpt": None}}},
        "optimizer_states": [adam.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "layers": [1, 2], "flags": (True, None), "size": torch.Size([3, 4])},
    }


def _averaged(tensors) -> dict:
    average = torch.optim.swa_utils.AveragedModel(network(tensors, "transformers"))
    return {"net": average.state_dict(), "best_acc": np.float64(0.93), "device": torch.device("cuda:1")}


SHAPES: dict[str, Callable[..., object]] = {
    "state_dict": lambda t: {"state_dict": network(t).state_dict(), "best_acc1": torch.tensor(71.3), "arch": "bit"},
    "model_state_dict": lambda t: {"model_state_dict": network(t, "timm").state_dict(), "loss": 0.25, "epoch": 3},
    "Lightning": _lightning,
    "averaged": _averaged,
    "ema alone": lambda t: {"model": None, "model_ema": network(t, "timm").state_dict(), "args": {"lr": 0.1}},
    "deep": lambda t: {"trainer": {"parts": [1, {"weights": network(t).state_dict()}]}, "rng": torch.get_rng_state()},
    "a list": lambda t: [network(t, "transformers").state_dict(), {"lr": 0.1}],
    "beside the tensors": lambda t: {**network(t).state_dict(), "epoch": 7, "optimizer": {"state": {}}},
    "optimiser by name": lambda t: {
        "model": network(t).state_dict(),
        "optim": {name: torch.zeros_like(value) for name, value in network(t).state_dict().items()},
    },
    "the same twice": lambda t: (lambda state: {"model": state, "best": state})(network(t).state_dict()),
    "parameters": lambda t: {"model": dict(network(t).named_parameters())},
    "DeepSpeed": lambda t: {
        "module": {f"module.{name}": value for name, value in network(t, "timm").state_dict().items()},
        "param_shapes": [collections.OrderedDict((n, p.shape) for n, p in network(t, "timm").named_parameters())],
        "dp_world_size": 1,
    },
    "attributes": lambda t: {"model": network(t, parameter=_marked).state_dict(keep_vars=True)},
    "sets and counts": lambda t: {
        "model": network(t).state_dict(),
        "seen": {1, 2},
        "by_class": collections.Counter("aab"),
        "found": collections.defaultdict(list, a=[1]),
        "raw": b"bytes",
        "dtype": torch.float32,
    },
}


def _marked(value):
    parameter = torch.nn.Parameter(value)
    parameter.lr_scale = 0.5
    return parameter


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_network_is_found_in_a_training_s_checkpoint(tmp_path: Path, tensors, shape: str, protocol: int) -> None:
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pt"
        torch.save(SHAPES[shape](tensors), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        same(path, tensors)


def test_what_is_left_out_of_a_training_is_named(tmp_path: Path, tensors) -> None:
    for shape, left_out in (
        ("Lightning", {key for key in _lightning(tensors) if key != "state_dict"}),
        ("averaged", {"best_acc", "device", "n_averaged"}),
        ("deep", {"rng", "trainer.parts.0"}),
        ("beside the tensors", {"epoch", "optimizer"}),
    ):
        torch.save(SHAPES[shape](tensors), tmp_path / "a.pt")
        with open_checkpoint(tmp_path / "a.pt") as source:
            assert source.dropped.keys() == left_out


def test_two_networks_in_one_file_are_refused_by_their_keys(tmp_path: Path, tensors) -> None:
    other = make_checkpoint(UNITS, WIDTH, CLASSES, seed=5, mids=MIDS)
    torch.save(
        {"epoch": 1, "state_dict": network(tensors).state_dict(), "state_dict_ema": network(other).state_dict()},
        tmp_path / "a.pt",
    )
    message = refuse(tmp_path / "a.pt")
    assert "2 whole networks, ['state_dict'] and ['state_dict_ema']" in message
    assert "torch.save(checkpoint['state_dict'], FILE)" in message


def test_another_network_s_checkpoint_is_refused_by_its_tensors(tmp_path: Path, tensors) -> None:
    state = network(tensors).state_dict()
    torch.save({"model": {**state, "fc2.weight": torch.zeros(3)}, "optim": {}}, tmp_path / "a.pt")
    assert "1 unexpected: fc2.weight" in refuse(tmp_path / "a.pt")
    torch.save({"model": {**state, "bn.num_batches_tracked": torch.tensor(3)}}, tmp_path / "a.pt")
    assert "1 unexpected: bn.num_batches_tracked" in refuse(tmp_path / "a.pt")
    torch.save({"model": {"conv.weight": torch.zeros(3)}, "step": 1}, tmp_path / "a.pt")
    assert "state_dict() alone" in refuse(tmp_path / "a.pt")
    torch.save({"step": 1}, tmp_path / "a.pt")
    assert "state_dict() alone" in refuse(tmp_path / "a.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (argparse.Namespace(lr=0.1), "argparse Namespace"),
        (np.zeros(3), "numpy"),
        (Path("runs"), "pathlib"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear Linear"),
        (torch.ones(2, 2).to_sparse(), "_rebuild_sparse_tensor"),
        (torch.zeros(3, device="meta"), "_rebuild_meta_tensor_no_storage"),
        (1j, "complex"),
    ],
)
def test_objects_are_never_unpickled(tmp_path: Path, tensors, beside: object, named: str, zipped: bool) -> None:
    state = {"epoch": 3, "state_dict": network(tensors).state_dict(), "args": beside}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    message = refuse(tmp_path / "a.pt")
    assert named in message
    assert "state_dict() alone" in message


# -- tensors of every make


def test_views_strides_and_devices_are_read(tmp_path: Path, tensors) -> None:
    state = network(tensors).state_dict()
    flat = torch.cat([value.reshape(-1) for value in state.values()])
    pieces = flat.split([value.numel() for value in state.values()])
    views = {name: piece.view(value.shape) for piece, (name, value) in zip(pieces, state.items(), strict=True)}
    strided = {
        name: value.to(memory_format=torch.channels_last) if value.ndim == 4 else torch.stack([value] * 3, 1)[:, 1]
        for name, value in state.items()
    }
    for zipped in (True, False):
        for changed in (views, strided):
            torch.save(changed, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
            same(tmp_path / "a.pt", tensors)


def test_tensors_saved_on_a_gpu_are_read(tmp_path: Path, tensors) -> None:
    """The device is a word in the pickle, which is no longer than "cuda:0" in either file."""
    torch.save(network(tensors).state_dict(), tmp_path / "cpu.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "cpu.pt").read_bytes()
    short, long = (b"X" + len(word).to_bytes(4, "little") + word for word in (b"cpu", b"cuda:0"))
    assert content.count(short) == 1
    (tmp_path / "gpu.pt").write_bytes(content.replace(short, long))
    same(tmp_path / "gpu.pt", tensors)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_any_width_is_read_from_the_older_format(tmp_path: Path, tensors, dtype: str) -> None:
    state = {name: value.to(getattr(torch, dtype)) for name, value in network(tensors).state_dict().items()}
    torch.save({"model": state}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    got = read_all(tmp_path / "a.pt")["resnet/block1/unit01/b/standardized_conv2d/kernel"]
    expected = state["body.block1.unit01.conv2.weight"].float().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(got, expected, strict=True)


def test_a_big_endian_machine_s_file_is_read(tmp_path: Path, tensors) -> None:
    state = network(tensors).state_dict()
    swapped = {name: torch.from_numpy(value.numpy().byteswap()) for name, value in state.items()}
    torch.save(swapped, tmp_path / "little.pt")
    with zipfile.ZipFile(tmp_path / "little.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    same(tmp_path / "big.pt", tensors)


@pytest.mark.slow
def test_compiled_and_parallel_networks_are_read(tmp_path: Path, tensors) -> None:
    from safetensors.torch import save_file

    model = network(tensors, "timm")
    wrapped = torch.nn.DataParallel(torch.compile(model))
    model.stages = torch.compile(model.stages)
    for state in (wrapped.state_dict(), model.state_dict()):
        assert any("_orig_mod" in name for name in state)
        torch.save(state, tmp_path / "a.pt")
        save_file(state, tmp_path / "a.safetensors")
        np.savez(tmp_path / "a.npz", **{name: value.numpy() for name, value in state.items()})
        for file in ("a.pt", "a.safetensors", "a.npz"):
            same(tmp_path / file, tensors)
            with open_checkpoint(tmp_path / file) as source:
                assert "_orig_mod." in source.removed


# -- files that mean harm, or are damaged


def test_pytorch_is_not_needed(tmp_path: Path, tensors) -> None:
    torch.save({"model": network(tensors).state_dict(), "step": 1}, tmp_path / "a.pt")
    program = (
        "import sys; from pathlib import Path; sys.modules['torch'] = None\n"
        "from converters.sources import open_checkpoint\n"
        "with open_checkpoint(Path(sys.argv[1])) as source: print(sum(source.read(n).size for n in source.shapes))"
    )
    out = subprocess.run([sys.executable, "-c", program, tmp_path / "a.pt"], capture_output=True, text=True, check=True)
    assert int(out.stdout) == sum(value.size for value in tensors.values())


def older(path: Path, value: bytes, rest: bytes = b"") -> Path:
    """A file in the older format around a pickle."""
    head = [pickle.dumps(n, 2) for n in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*head, value, rest]))
    return path


HUGE = 0x7FFFFFFF
STORAGE = b"(X\x07\x00\x00\x00storagectorch\n%s\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ%sNtQ"


def tensor_of(kind: bytes, count: int, shape: int) -> bytes:
    numbers = count.to_bytes(4, "little"), shape.to_bytes(4, "little")
    storage = STORAGE % (kind, numbers[0])
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00J%s\x85K\x01\x85\x89NtR" % numbers[1]


@pytest.mark.parametrize(
    "value",
    [
        b"\x80\x02}" + b"r\xff\xff\xff\x7f" * 3 + b".",
        b"\x80\x02" + b"}" * 600_000 + b".",
        b"\x80\x02" + b"(" * 600_000 + b".",
        b"\x80\x02]q\x00" + b"]q\x00h\x00a" * 100_000 + b".",
        b"\x80\x02}" + b"(K\x01t" + b"K\x02s.",
        b"\x80\x02}\x8a\x09" + bytes(8) + b"\x01K\x01s.",
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02}X\x01\x00\x00\x00w" + tensor_of(b"FloatStorage", 4, HUGE) + b"s.",
        b"\x80\x02}X\x01\x00\x00\x00w" + tensor_of(b"FloatStorage", HUGE, HUGE) + b"s.",
        b"\x80\x02}X\x01\x00\x00\x00w" + tensor_of(b"OtherStorage", 4, 4) + b"s.",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02}b.",
        b"\x80\x02a.",
        b"\x80\x02t.",
        b"\x80\x02R.",
        b"\x80\x02Q.",
        b"\x80\x02\x87.",
        b"",
    ],
)
def test_files_of_the_older_format_that_lie_are_refused(tmp_path: Path, tensors, value: bytes) -> None:
    refuse(older(tmp_path / "a.pt", value, pickle.dumps([], 2)))
    refuse(older(tmp_path / "a.pt", value, pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + bytes(16)))


def test_a_pickle_of_many_values_takes_little_memory(tmp_path: Path, tensors) -> None:
    torch.save(network(tensors).state_dict(), tmp_path / "fine.pt")
    older(tmp_path / "a.pt", b"\x80\x02" + b"}" * 600_000 + b".")
    assert cost_of_refusal(tmp_path / "a.pt", tmp_path / "fine.pt").memory < 64 * MB


def test_files_of_the_older_format_cut_short_are_refused(tmp_path: Path, tensors) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": network(tensors).state_dict(), "step": 1}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    refuse_cut_short(path, path, places=30)
    path.write_bytes(whole + b"\0")
    assert "its values end at" in refuse(path)


# -- audits: a stock library cannot load such names


def test_a_folder_of_wrapped_names_fails_its_audit(tmp_path: Path, tensors) -> None:
    from safetensors.numpy import load_file, save_file

    np.savez(tmp_path / "bit.npz", **tensors)
    converted(tmp_path / "bit.npz", tmp_path / "folder", "--no-verify")
    weights = tmp_path / "folder" / "model.safetensors"
    save_file({f"module.{name}": value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    report = audited(tmp_path / "folder", tmp_path / "bit.npz", tmp_path / "report")
    assert report["verdict"] == "failed"
    assert "module." in json.dumps(report["faults"])
    assert run("--checkpoint", tmp_path / "folder", "--output", tmp_path / "again", "--no-verify").exit_code == 0
