"""What is stored, piece by piece, against the layouts' whole arrays."""

import hashlib
import os

import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.mapping import tiles
from converters.mapping.layouts import LAYOUTS
from converters.mapping.names import GOOGLE, parameters
from converters.mapping.storage import Storage
from converters.sources import checksummed_read, open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.converters.sources.writers import to_big_vision

CLASSES = 201
HEAD = "resnet/head/conv2d/kernel"


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 2), 96, CLASSES, mids=(96, 160))


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch):
    """Kernels come in several tiles, and the file in several pieces."""
    monkeypatch.setattr(tiles, "ROWS", 20)
    monkeypatch.setattr(checksummed_read, "PIECE", 4096)


def stored(source, parameter, storage, most=70):
    """The pieces end to end: those of the same rows follow each other, and the next rows begin where they end."""
    groups: list[np.ndarray] = []
    start = end = 0
    for piece in storage.pieces(parameter, source, most):
        if piece.rows.start == end:
            start, end = end, piece.rows.stop
            groups.append(np.full((end - start, *storage.shape(parameter)[1:]), np.nan, np.float32))
        assert (piece.rows.start, piece.rows.stop) == (start, end)
        assert end - start <= most
        piece.put(groups[-1])
    return np.concatenate(groups)


SAVERS = {
    "stored": np.savez,
    "deflated": np.savez_compressed,
    "big_vision": lambda path, **tensors: np.savez(path, **to_big_vision(tensors)),
    "fortran": lambda path, **tensors: np.savez(path, **{n: np.asfortranarray(t) for n, t in tensors.items()}),
}


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("exact", ["bits", "logits"])
def test_pieces_end_to_end_are_what_the_layout_stores(tmp_path, tensors, saver, layout, exact):
    saver(tmp_path / "model.npz", **tensors)
    storage = Storage(layout.name, exact)
    with open_checkpoint(tmp_path / "model.npz") as source:
        with source.checking():
            for parameter in parameters(source.architecture):
                expected = layout.store(parameter, tensors[parameter.names[GOOGLE]], exact)
                np.testing.assert_array_equal(stored(source, parameter, storage), expected, strict=True)
        assert source.sha256 == hashlib.sha256((tmp_path / "model.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("exact", ["bits", "logits"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tensor_is_held_where_no_bit_of_it_is_another(tmp_path, tensors, layout, exact, dtype):
    np.savez(tmp_path / "model.npz", **tensors)
    storage, random = Storage(layout, exact, dtype), np.random.default_rng(0)
    with open_checkpoint(tmp_path / "model.npz") as source:
        for parameter in parameters(source.architecture):
            values = storage.values(parameter, source.read(parameter.names[GOOGLE]))
            assert storage.holds(parameter, source, values)
            other = values.copy()
            other.reshape(-1).view(f"u{other.itemsize}")[random.integers(other.size)] ^= 1
            assert not storage.holds(parameter, source, other)
            assert not storage.holds(parameter, source, values[..., None])
            assert not storage.holds(parameter, source, values.view(f"i{values.itemsize}"))


def test_zeros_of_another_sign_are_other_values(tmp_path, tensors):
    np.savez(tmp_path / "model.npz", **{name: np.zeros_like(values) for name, values in tensors.items()})
    storage = Storage()
    with open_checkpoint(tmp_path / "model.npz") as source:
        for parameter in parameters(source.architecture):
            zeros = np.zeros(storage.shape(parameter), np.float32)
            assert storage.holds(parameter, source, zeros)
            assert not storage.holds(parameter, source, -zeros)


@pytest.mark.parametrize("name", [HEAD, "resnet/block2/unit01/b/standardized_conv2d/kernel", "resnet/group_norm/beta"])
@pytest.mark.parametrize("fault", ["a bit", "not finite"])
def test_a_broken_tensor_is_refused_however_it_is_read(tmp_path, tensors, name, fault):
    path = tmp_path / "model.npz"
    tensors = {key: value.copy() for key, value in tensors.items()}
    if fault == "not finite":
        tensors[name][..., -1] = np.nan
    np.savez(path, **tensors)
    if fault == "a bit":
        content = bytearray(path.read_bytes())
        content[content.index(tensors[name].tobytes()) + tensors[name].nbytes - 1] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name), open_checkpoint(path) as source:
        source.read(name)
    with pytest.raises(CheckpointError, match=name), open_checkpoint(path) as source, source.checking():
        pass


def test_a_file_that_is_changed_while_it_is_read_is_refused(tmp_path, tensors):
    path = tmp_path / "model.npz"
    np.savez(path, **tensors)
    with open_checkpoint(path) as source, pytest.raises(CheckpointError, match="was changed while it was read"):  # noqa: SIM117
        with source.checking(), path.open("ab") as file:
            file.write(b"more")


@pytest.mark.parametrize("length", [0.3, 0.9, 0.999])
def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path, tensors, length):
    path = tmp_path / "model.npz"
    np.savez(path, **tensors)
    with open_checkpoint(path) as source, pytest.raises(CheckpointError):  # noqa: SIM117
        with source.checking():
            os.truncate(path, int(path.stat().st_size * length))


def test_an_error_inside_ends_the_reading(tmp_path, tensors):
    path = tmp_path / "model.npz"
    np.savez(path, **tensors)
    with open_checkpoint(path) as source:
        with pytest.raises(KeyboardInterrupt), source.checking():
            raise KeyboardInterrupt
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
