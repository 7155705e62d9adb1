"""The Keras reader on files that are odd, broken or hostile."""

from __future__ import annotations

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from converters import sources
from converters.errors import CheckpointError, Scope
from converters.sources import open_checkpoint
from converters.sources.keras import KerasReader, KerasSource
from tests.converters.sources import writers
from tests.converters.sources.costs import cost_of_refusal
from tests.converters.sources.refusals import read_all, refuse, refuse_cut_short

MB = 1 << 20
NO_LISTS_OF_NAMES = {
    "numbers": np.arange(3),
    "a table": np.array([["a"]], "S1"),
    "one word": "block1",
    "long names": np.array([b"x" * 5000]),
    "not text": np.array([b"\xff\xfe"]),
    "too many": np.array([b"x"] * 4097),
}


@pytest.fixture
def path(written, tmp_path: Path) -> Path:
    """A whole file with short names, to be changed."""
    return Path(shutil.copy(written("h5 with short names"), tmp_path / "model.h5"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in this process, where many cases are read: a process of its own takes longer than the reading."""
    readers = tuple(KerasReader if reader is KerasSource else reader for reader in sources.READERS)
    monkeypatch.setattr(sources, "READERS", readers)


def names_of(group: h5py.Group, attribute: str) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]


def replace(group: h5py.Group, name: str, **options) -> h5py.Dataset:
    value = group[name][()]
    del group[name]
    return group.create_dataset(name, **({"data": value} | options))


def test_packed_tensors_are_read(path: Path, tensors) -> None:
    with h5py.File(path, "a") as file:
        for layer in names_of(file, "layer_names"):
            for name in names_of(file[layer], "weight_names"):
                replace(file[layer], name, compression="gzip", shuffle=True, fletcher32=True)
    got = read_all(path)
    assert all(got[name].tobytes() == value.tobytes() for name, value in tensors.items())


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4"])
def test_any_width_is_read(path: Path, tensors, dtype: str) -> None:
    with h5py.File(path, "a") as file:
        value = file["block1/unit01/a/group_norm/gamma:0"][()].astype(dtype)
        replace(file, "block1/unit01/a/group_norm/gamma:0", data=value)
    got = read_all(path)["resnet/block1/unit01/a/group_norm/gamma"]
    np.testing.assert_array_equal(got, value.astype(np.float32))
    assert got.dtype == np.dtype("float32")


def test_names_in_several_attributes_are_read(path: Path, tensors) -> None:
    """Keras cuts a list that HDF5 finds too long."""
    with h5py.File(path, "a") as file:
        group = file["block1"]
        names = names_of(group, "weight_names")
        del group.attrs["weight_names"]
        group.attrs["weight_names0"], group.attrs["weight_names1"] = names[:7], names[7:]
    assert read_all(path).keys() == tensors.keys()


def test_whole_models_are_read_without_their_optimiser(tmp_path: Path, tensors) -> None:
    """``model.save`` of Keras itself: ``model_weights`` and ``optimizer_weights``."""
    import tensorflow as tf
    import tf_keras

    network = writers.keras_network(tensors)
    images = tf_keras.Input((32, 32, 3))
    x = network.root(images)
    for layer in (*network.blocks, *network.pre_head, network.head):
        x = layer(x)
    model = tf_keras.Model(images, x)
    optimizer = tf_keras.optimizers.legacy.SGD(0.0, momentum=0.9)
    model.compile(optimizer, "mse")
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in model.trainable_variables])
    for unit in (unit for block in network.blocks for unit in block.layers):
        unit.get_config = dict
    model.save(tmp_path / "model.h5", save_format="h5")
    with h5py.File(tmp_path / "model.h5") as file:
        assert {"model_weights", "optimizer_weights"} <= set(file)
    from converters.sources import open_checkpoint

    with open_checkpoint(tmp_path / "model.h5") as source:
        assert source.dropped.keys() == {"optimizer_weights"}
        assert all(source.read(name).tobytes() == value.tobytes() for name, value in tensors.items())


def test_another_order_is_refused_by_what_names_say(path: Path) -> None:
    with h5py.File(path, "a") as file:
        names = names_of(file["block1"], "weight_names")
        names[0], names[1] = names[1], names[0]  # gamma and beta have one shape: only the names tell
        file["block1"].attrs["weight_names"] = names
    message = refuse(path)
    assert "beta:0 stands where Google's network has resnet/block1/unit01/a/group_norm/gamma:0" in message


def test_another_order_of_layers_is_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = sorted(names_of(file, "layer_names"), reverse=True)
    refuse(path)


def test_units_in_another_order_are_refused(tmp_path: Path, written) -> None:
    """Two units of one shape: only ``unit02`` in the name tells them apart."""
    path = Path(shutil.copy(written("h5 with whole names", head=False), tmp_path / "model.h5"))
    with h5py.File(path, "a") as file:
        names = names_of(file["block2"], "weight_names")
        a, b = (
            names.index(next(n for n in names if "unit01/b" in n)),
            names.index(next(n for n in names if "unit02/b" in n)),
        )
        names[a : a + 3], names[b : b + 3] = names[b : b + 3], names[a : a + 3]
        file["block2"].attrs["weight_names"] = names
    assert "another order" in refuse(path)


def test_a_misshapen_tensor_is_named(path: Path) -> None:
    with h5py.File(path, "a") as file:
        replace(file, "block2/unit01/c/standardized_conv2d/kernel:0", data=np.ones((1, 1, 96, 32), "f4"))
    assert "1 misshapen: resnet/block2/unit01/c/standardized_conv2d/kernel:0 is 1×1×96×32" in refuse(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(path: Path, value: float) -> None:
    with h5py.File(path, "a") as file:
        file["block1/unit01/a/group_norm/gamma:0"][0] = value
    assert "resnet/block1/unit01/a/group_norm/gamma:0 holds NaN or Inf" in refuse(path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("data", [np.ones(32, "i4"), np.ones(32, "c8"), np.array([b"x"] * 32), np.ones(32, "f4,f4")])
def test_other_dtypes_are_refused(path: Path, data: np.ndarray) -> None:
    with h5py.File(path, "a") as file:
        replace(file, "block1/unit01/a/group_norm/gamma:0", data=data)
    assert "unit01/a/group_norm/gamma:0 holds" in refuse(path)


def test_objects_are_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["block1/unit01/a/group_norm/gamma:0"]
        file["block1"].create_dataset("unit01/a/group_norm/gamma:0", (32,), h5py.string_dtype())
    refuse(path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["block1/unit01/a/group_norm/gamma:0", "block1/unit01", "block1"])
@pytest.mark.parametrize("link", ["soft", "soft loop", "external", "missing", "another kind"])
def test_links_to_elsewhere_are_never_followed(path: Path, written, name: str, link: str) -> None:
    with h5py.File(path, "a") as file:
        file.move(name, "elsewhere")
        if link == "soft":
            file[name] = h5py.SoftLink("/elsewhere")
        elif link == "soft loop":
            file[name] = h5py.SoftLink("/" + name)
        elif link == "external":
            file[name] = h5py.ExternalLink(str(written("h5 with short names")), "/" + name)
        elif link == "another kind":
            file[name] = np.dtype("f4")
    assert "damaged" in refuse(path)


def test_a_loop_of_hard_links_ends(path: Path, tensors) -> None:
    """A group that contains itself does no harm where paths are followed as they are named."""
    with h5py.File(path, "a") as file:
        file["block1/loop"] = file["block1"]
        names = names_of(file["block1"], "weight_names")
        file["block1"].attrs["weight_names"] = ["loop/" * 50 + names[0], *names[1:]]
    assert read_all(path).keys() == tensors.keys()


def test_data_in_another_file_is_never_read(path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(32, "f4").tobytes())
    name = "block1/unit01/a/group_norm/gamma:0"
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, (32,), "f4", external=[(str(secret), 0, 128)])
    assert "another file" in refuse(path)
    with h5py.File(path, "a") as file:
        del file[name]
        layout = h5py.VirtualLayout((32,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", (32,))
        file.create_virtual_dataset(name, layout)
    assert "another file" in refuse(path)


def test_filters_that_are_plug_ins_are_refused(path: Path) -> None:
    name = "block1/unit01/a/group_norm/gamma:0"
    with h5py.File(path, "a") as file:
        replace(file, name, compression="lzf")
    assert "plug-in" in refuse(path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("attribute", ["layer_names", "weight_names"])
@pytest.mark.parametrize("value", NO_LISTS_OF_NAMES.values(), ids=NO_LISTS_OF_NAMES)
def test_lists_of_names_that_are_none_are_refused(path: Path, attribute: str, value) -> None:
    with h5py.File(path, "a") as file:
        (file if attribute == "layer_names" else file["block1"]).attrs[attribute] = value
    refuse(path)


def test_another_hdf5_file_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["images"] = np.ones(3)
    message = refuse(tmp_path / "model.h5")
    assert "without layer_names" in message
    assert "images" in message


def test_weights_of_keras_3_are_refused_as_such(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "model.weights.h5")
    assert "Keras 3" in refuse(tmp_path / "model.weights.h5")


def test_another_keras_network_is_refused(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,)), tf_keras.layers.Dense(2)])
    model.save_weights(tmp_path / "model.h5", save_format="h5")
    assert "not a BiT checkpoint: its 4 weights" in refuse(tmp_path / "model.h5")


@pytest.mark.usefixtures("here")
def test_a_file_cut_short_is_refused(path: Path) -> None:
    refuse_cut_short(path, path)


@pytest.mark.parametrize("claim", ["tensor", "chunk", "unwritten"])
def test_memory_follows_the_file_s_bytes_not_its_claims(path: Path, written, claim: str) -> None:
    name = "block1/unit01/a/group_norm/gamma:0"
    with h5py.File(path, "a") as file:
        del file[name]
        if claim == "unwritten":
            file.create_dataset(name, (1 << 30,), "f4")
        else:
            size = 1 << 28 if claim == "tensor" else 32
            made = file.create_dataset(name, (size,), "f4", maxshape=(None,), chunks=(1 << 28,), compression="gzip")
            made.id.write_direct_chunk((0,), b"x\x9c" + bytes(64))
    assert cost_of_refusal(path, written("h5 with short names")).memory < 200 * MB


def test_a_lying_length_of_a_name_reserves_nothing(path: Path, written) -> None:
    """HDF5 reserves the length that a name claims before it looks whether the file has as much."""
    with h5py.File(path) as file:
        first = names_of(file["block1"], "weight_names")[0].encode()
    content = bytearray(path.read_bytes())
    length = len(first).to_bytes(4, "little")
    heaps = [at.to_bytes(8, "little") for at in range(len(content)) if content[at : at + 4] == b"GCOL"]
    places = [at for heap in heaps for at in range(4, len(content)) if content[at : at + 8] == heap]
    lied = [at for at in places if content[at - 4 : at] == length]
    assert lied
    for at in lied:
        content[at - 4 : at] = (0xF0000000).to_bytes(4, "little")
    path.write_bytes(content)
    assert cost_of_refusal(path, written("h5 with short names")).memory < 200 * MB


@pytest.mark.parametrize(
    ("how", "said", "scope"),
    [(signal.SIGSEGV, "its library ends", Scope.MODEL), (signal.SIGKILL, r"was killed.*Run it again", Scope.PASSING)],
)
def test_a_library_that_dies_takes_nothing_with_it(path: Path, how: signal.Signals, said: str, scope: Scope) -> None:
    with open_checkpoint(path) as source:
        name, *_ = source.shapes
        source._source._process.send_signal(how)
        with pytest.raises(CheckpointError, match=rf"model\.h5: .* {said}") as caught:
            source.read(name)
    assert caught.value.scope is scope


def test_no_limit_is_set_for_this_process(path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with open_checkpoint(path) as source, ThreadPoolExecutor(2) as others:
        limits = list(others.map(lambda _: resource.getrlimit(resource.RLIMIT_AS), range(2)))
        assert all(source.read(name).size for name in source.shapes)
    assert limits == [before, before]
