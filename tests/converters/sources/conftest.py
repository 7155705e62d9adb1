"""One small network, its dimensions all different and its values all distinct, in every format: written once."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint
from tests.converters.sources import writers
from tests.shared import made_once

UNITS, WIDTH, MIDS, CLASSES = (2, 1), 32, (64, 96), 5


def network() -> dict[str, np.ndarray]:
    """{npz name: array}, as Google's npz holds them."""
    return make_checkpoint(UNITS, WIDTH, CLASSES, seed=11, mids=MIDS)


tensors = pytest.fixture(scope="session", name="tensors")(network)


@pytest.fixture(scope="session")
def headless() -> dict[str, np.ndarray]:
    return make_checkpoint((1, 2), WIDTH, None, seed=12, mids=MIDS)


def _npz(tensors, folder: Path, **options) -> Path:
    np.savez(folder / "model.npz", **tensors)
    return folder / "model.npz"


def _deflated(tensors, folder: Path) -> Path:
    np.savez_compressed(folder / "model.npz", **tensors)
    return folder / "model.npz"


def _flat_head(tensors, folder: Path) -> Path:
    head = "resnet/head/conv2d/kernel"
    return _npz({**tensors, **({head: tensors[head][0, 0]} if head in tensors else {})}, folder)


def _numbered(tensors, folder: Path) -> Path:
    """``standardized_conv2d_7``, as TensorFlow makes names unique."""
    numbers = iter(range(1, 10_000))

    def number(name: str) -> str:
        return name.replace("standardized_conv2d", f"standardized_conv2d_{next(numbers)}", 1)

    return _npz({number(name) if "conv2d/kernel" in name else name: value for name, value in tensors.items()}, folder)


def _big_vision(prefix: str) -> Callable[..., Path]:
    return lambda tensors, folder: _npz(writers.to_big_vision(tensors, prefix), folder)


def _digest(tensors) -> str:
    return hashlib.sha256(b"".join(value.tobytes() for value in tensors.values())).hexdigest()[:16]


def _copied(name: str, file: str, write: Callable[..., Path]) -> Callable[..., Path]:
    """Copies of what takes a second to write, once for all tests of these tensors; ``file`` is to be opened."""

    def copy(tensors, folder: Path) -> Path:
        def make(place: Path) -> None:
            place.mkdir()
            write(tensors, place)

        made = made_once(f"{name}-{_digest(tensors)}", make)
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return folder / file

    return copy


def _h5(naming: str, inside: str | None = None) -> Callable[..., Path]:
    def write(tensors, folder: Path) -> Path:
        return writers.keras_h5(tensors, folder / "model.h5", naming, inside)

    return _copied(f"h5-{naming}-{inside}", "model.h5", write)


def _torch(layout: str) -> Callable[..., Path]:
    def write(tensors, folder: Path) -> Path:
        from safetensors.numpy import save_file

        save_file(writers.torch_names(tensors, layout), folder / "model.safetensors", {"format": "pt"})
        return folder

    return write


def _half(tensors) -> int:
    """Bytes that make at least two shards of any network."""
    return sum(tensor.nbytes for tensor in tensors.values()) // 2


def _shards(tensors, folder: Path) -> Path:
    """Written by huggingface_hub."""
    import torch
    from huggingface_hub import save_torch_state_dict

    state = {name: torch.from_numpy(value) for name, value in writers.torch_names(tensors, "transformers").items()}
    save_torch_state_dict(state, folder, max_shard_size=_half(tensors))
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def _bin(tensors, folder: Path) -> Path:
    import torch

    state = {name: torch.from_numpy(value) for name, value in writers.torch_names(tensors, "original").items()}
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def _bin_shards(tensors, folder: Path) -> Path:
    import torch
    from huggingface_hub import save_torch_state_dict

    state = {name: torch.from_numpy(value) for name, value in writers.torch_names(tensors, "timm").items()}
    save_torch_state_dict(state, folder, max_shard_size=_half(tensors), safe_serialization=False)
    assert len(list(folder.glob("*.bin"))) > 1
    return folder


def tar_of(folder: Path, path: Path, top: str = ".") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, top)
    return path


def _saved_model(tensors, folder: Path) -> Path:
    """Not in ``folder``: it takes seconds to write, once for all tests of these tensors. Do not change it. That of
    ``network()`` has all that Keras adds, which takes most of them."""
    digest = _digest(tensors)
    traced = digest == _digest(network())
    return made_once(f"saved-model-{digest}", lambda folder: writers.saved_model(tensors, folder, traced))


def _archive(tensors, folder: Path) -> Path:
    return tar_of(_saved_model(tensors, folder), folder / "module.tar.gz")


def _archive_with_top(tensors, folder: Path) -> Path:
    return tar_of(writers.tf1_hub_module(tensors, folder / "module"), folder / "module.tar.gz", "content/bit_m-r50x1_1")


FORMATS: dict[str, Callable[..., Path]] = {
    "npz": _npz,
    "npz deflated": _deflated,
    "npz with a 2-D head": _flat_head,
    "npz with numbered names": _numbered,
    "npz with outputs": lambda tensors, folder: _npz(
        {f"bit/{name}:0": value for name, value in tensors.items()}, folder
    ),
    "big_vision": _big_vision(""),
    "big_vision params/": _big_vision("params/"),
    "big_vision opt/target/": _big_vision("opt/target/"),
    "h5 with whole names": _h5("whole"),
    "h5 with short names": _h5("short"),
    "h5 with numbered names": _h5("numbered"),
    "h5 model_weights": _h5("whole", "model_weights"),
    "TF2 checkpoint": _copied("tf2", "model.ckpt-1", writers.tf2_checkpoint),
    "SavedModel": _saved_model,
    "TF1 checkpoint": lambda tensors, folder: writers.tf1_checkpoint(tensors, folder / "model.ckpt-7"),
    "TF1-Hub": lambda tensors, folder: writers.tf1_hub_module(tensors, folder / "module"),
    "TF1-Hub with its graph": lambda tensors, folder: writers.tf1_hub_module(tensors, folder / "module", True),
    "transformers": _torch("transformers"),
    "timm": _torch("timm"),
    "original": _torch("original"),
    "transformers in shards": _shards,
    "original .bin": _bin,
    "timm .bin in shards": _bin_shards,
    "SavedModel .tar.gz": _archive,
    "TF1-Hub .tar.gz of a folder": _archive_with_top,
}
"""What a network can be kept in → how its own library writes it: (tensors, empty folder) → path to open."""


@pytest.fixture(scope="session")
def written(tensors, headless, tmp_path_factory) -> Callable[[str, bool], Path]:
    """(format, with a head?) → the path of that file or folder, written at the first call. Do not change it."""
    made: dict[tuple[str, bool], Path] = {}

    def write(name: str, head: bool = True) -> Path:
        if (name, head) not in made:
            made[name, head] = FORMATS[name](tensors if head else headless, tmp_path_factory.mktemp("written"))
        return made[name, head]

    return write


def bytes_of(function: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    function(buffer)
    return buffer.getvalue()
