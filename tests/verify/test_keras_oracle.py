"""The Keras oracle: it agrees in every layer, and takes the weights of an .h5 file by their order alone."""

import os

import h5py
import numpy as np
import pytest

from tests.checkpoints import TINY, make_checkpoint
from tests.converters.sources import writers
from tests.verify.support import MemorySource, TorchModel, target_of
from verify import AuditSettings, audit, default_images
from verify.oracles.agreement import MAKERS, OracleRequest
from verify.oracles.keras import KerasOracle
from verify.oracles.keras import file as keras_file
from verify.oracles.numpy import NumpyOracle
from verify.protocols import OracleError

KERAS = OracleRequest("keras", MAKERS["keras"])


@pytest.fixture(scope="module")
def tensors():
    return make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=1e-3, mids=(64, 32))


@pytest.fixture(scope="module")
def h5(tensors, tmp_path_factory):
    """Names that say nothing: three of each unit are the same."""
    return writers.keras_h5(tensors, tmp_path_factory.mktemp("h5") / "model.h5", "numbered")


def source_of(tensors, path):
    return MemorySource(tensors, path="model.h5", location=str(path), format="keras-h5")


def audited(source, **options):
    return audit(
        target_of(source), source, AuditSettings(images=default_images(48, 41), other_oracles=[KERAS], **options)
    )


@pytest.mark.parametrize("golden", TINY, ids=str)
def test_keras_oracle_equals_googles_logits(golden):
    layers = KerasOracle(MemorySource(golden.checkpoint())).layers([image[None] for image in golden.images()])
    logits = np.stack([layer.truth for layer in layers if layer.name == "logits"])
    assert np.abs(logits - golden.logits()).max() <= 1e-10


@pytest.mark.parametrize(("classes", "padding"), [(5, "zeros"), (1, "-inf"), (None, "zeros"), (5, "-inf")])
def test_keras_agrees_in_every_layer(classes, padding):
    source = MemorySource(make_checkpoint((1, 2), 32, classes, seed=3, kernel_std=1e-3, mids=(64, 32)))
    images = default_images(48, 41)
    theirs = {(layer.name, layer.image): layer.truth for layer in KerasOracle(source, padding).layers(images)}
    ours = list(NumpyOracle(source, pool_padding=padding, float32_runs=0).layers(images))
    for layer in ours:
        np.testing.assert_allclose(theirs[layer.name, layer.image], layer.truth, rtol=0, atol=1e-11)
    assert len(theirs) == len(ours) + (0 if classes is None else len(images)) == (12 if classes is None else 14)
    model = TorchModel(source.tensors, pool_padding=-np.inf if padding == "-inf" else 0.0)
    report = audit(
        target_of(source, None, model),
        source,
        AuditSettings(images=images, pool_padding=padding, other_oracles=[KERAS]),
    )
    assert report, report.reason
    assert report.oracle == "NumPy float64 and Keras float64"
    assert report.other_oracles[0].compared == len(theirs)


def test_weights_of_a_file_are_taken_by_order(tensors, h5):
    report = audited(source_of(tensors, h5))
    assert (report.verdict, report.other_oracles[0].reason) == ("passed", "weights in the file's own order")


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "naming", "inside"), [(None, "short", None), (5, "whole", "model_weights")])
def test_other_files_are_taken_by_order(classes, naming, inside, tmp_path):
    tensors = make_checkpoint((2, 1), 32, classes, seed=4, kernel_std=1e-3, mids=(64, 32))
    path = writers.keras_h5(tensors, tmp_path / "model.h5", naming, inside)
    assert audited(source_of(tensors, path)).verdict == "passed"


SWAPS = [
    ("resnet/block2/unit01/b/group_norm/beta", "resnet/block2/unit02/b/group_norm/beta"),
    ("resnet/block1/unit01/b/group_norm/gamma", "resnet/block1/unit01/c/group_norm/gamma"),
    ("resnet/block2/unit01/c/standardized_conv2d/kernel", "resnet/block2/unit02/c/standardized_conv2d/kernel"),
]


@pytest.mark.parametrize("swap", SWAPS, ids=lambda swap: swap[0])
def test_names_that_were_mistaken_are_no_pass(swap, tensors, h5):
    """A reader that takes two tensors of the file for each other is contradicted by Keras's order."""
    one, other = swap
    report = audited(source_of(tensors | {one: tensors[other], other: tensors[one]}, h5))
    assert (report.verdict, report.other_oracles[0].verdict) == ("inconclusive", "disagrees")
    assert report.reason.startswith(f"the oracles disagree: Keras float64 differs at {'/'.join(one.split('/')[1:3])}")


def test_files_with_too_few_and_too_many_weights(tensors, h5, tmp_path):
    headless = {name: value for name, value in tensors.items() if "/head/" not in name}
    with pytest.raises(OracleError, match="more weights than Keras's layers"):
        list(KerasOracle(source_of(headless, h5)).layers(default_images(33)))
    short = tmp_path / "short.h5"
    short.write_bytes(h5.read_bytes())
    with h5py.File(short, "a") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][:-1]
    with pytest.raises(OracleError, match="fewer weights than Keras's layers"):
        list(KerasOracle(source_of(tensors, short)).layers(default_images(33)))
    other = make_checkpoint((1, 2), 32, 6, seed=3, mids=(64, 32))
    with pytest.raises(OracleError, match="and is given"):
        list(KerasOracle(source_of(other, h5)).layers(default_images(33)))


DEADLY = {
    "dies": "import os\ndef File(*arguments, **options): os.abort()",
    "loops": "def File(*arguments, **options):\n    while True: pass",
    "reserves": "def File(*arguments, **options): bytearray(1 << 33)",
}
"""What HDF5's library does of some damaged files, in the place of h5py."""


@pytest.mark.parametrize("library", DEADLY)
def test_a_file_that_hdf5_dies_of_ends_no_audit(tensors, h5, tmp_path, monkeypatch, library):
    (tmp_path / "h5py.py").write_text(DEADLY[library])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(keras_file, "SECONDS", 1)
    report = audited(source_of(tensors, h5))
    assert (report.verdict, report.other_oracles[0].verdict) == ("inconclusive", "failed")
    assert ("MemoryError" if library == "reserves" else "HDF5's library ended") in report.reason


def test_a_file_that_claims_more_than_the_network_has_is_no_allocation(tensors, h5, tmp_path):
    path = tmp_path / "claims.h5"
    path.write_bytes(h5.read_bytes())
    with h5py.File(path, "a") as file:
        layer = file[file.attrs["layer_names"][0]]
        name = layer.attrs["weight_names"][0]
        del layer[name]
        layer.create_dataset(name, (1 << 20, 1 << 20, 1, 1), "float32", chunks=(1 << 10, 1 << 10, 1, 1))
    with pytest.raises(OracleError, match="claims to have the shape"):
        list(KerasOracle(source_of(tensors, path)).layers(default_images(33)))


def test_the_environment_stays_as_it_was(tensors, monkeypatch):
    for variable in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(variable, raising=False)
    KerasOracle(MemorySource(tensors))
    assert not {"KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL"} & {*os.environ}
