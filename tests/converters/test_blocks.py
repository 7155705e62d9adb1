"""Blocks against the layouts' whole arrays, from checkpoints whose largest tensors do not fit in memory at once."""

import hashlib

import numpy as np
import pytest

from converters.blocks import stored_blocks
from converters.errors import CheckpointError
from converters.layouts import LAYOUTS
from converters.names import GOOGLE, parameters
from converters.sources import npz, open_checkpoint
from tests.checkpoints import make_checkpoint
from tests.converters.sources.writers import to_big_vision

CLASSES = 201
HEAD = "resnet/head/conv2d/kernel"


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 2), 96, CLASSES, mids=(96, 160))


@pytest.fixture(autouse=True)
def _small_memory(monkeypatch):
    """The head and the largest 3×3 kernel have to be read in several turns, others in one."""
    monkeypatch.setattr(npz, "STEP", 1000)
    monkeypatch.setattr(npz, "SLAB", 640 * 60)


SAVERS = {
    "stored": np.savez,
    "deflated": np.savez_compressed,
    "big_vision": lambda path, **tensors: np.savez(path, **to_big_vision(tensors)),
    "fortran": lambda path, **tensors: np.savez(path, **{n: np.asfortranarray(t) for n, t in tensors.items()}),
}


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("exact", ["bits", "logits"])
def test_blocks_end_to_end_are_what_the_layout_stores(tmp_path, tensors, saver, layout, exact):
    saver(tmp_path / "model.npz", **tensors)
    with open_checkpoint(tmp_path / "model.npz") as source:
        for parameter in parameters(source.architecture):
            blocks = [block.copy() for block in stored_blocks(source, parameter, layout, exact)]
            expected = layout.store(parameter, tensors[parameter.names[GOOGLE]], exact)
            np.testing.assert_array_equal(np.concatenate(blocks), expected, strict=True)
        assert source.sha256 == hashlib.sha256((tmp_path / "model.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", [HEAD, "resnet/block2/unit01/b/standardized_conv2d/kernel"])
@pytest.mark.parametrize("fault", ["a bit", "not finite"])
def test_a_broken_tensor_is_refused_however_it_is_read(tmp_path, tensors, name, fault):
    path = tmp_path / "model.npz"
    tensors = {key: value.copy() for key, value in tensors.items()}
    if fault == "not finite":
        tensors[name][0, 0, -1, -1] = np.nan
    np.savez(path, **tensors)
    if fault == "a bit":
        content = bytearray(path.read_bytes())
        content[content.index(tensors[name].tobytes()) + tensors[name].nbytes - 1] ^= 1
        path.write_bytes(content)
    with open_checkpoint(path) as source, pytest.raises(CheckpointError, match=name):
        list(source.columns(name))


def test_the_digest_is_the_files_in_whatever_order_and_however_much_is_read(tmp_path, tensors):
    path = tmp_path / "model.npz"
    np.savez(path, **tensors)
    names = list(tensors)
    for order in ([], names, names[::-1], names[:5], names[3:7] + names[:3], names + names):
        with open_checkpoint(path) as source:
            for name in order:
                source.read(name)
            assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            source.read(names[0])  # and what is read later does not change it
            assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
