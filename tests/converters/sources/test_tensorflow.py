"""The readers of TensorFlow checkpoints and SavedModels on files that are odd, broken or hostile."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from converters.sources import open_checkpoint, open_source
from tests.converters.sources import writers
from tests.converters.sources.costs import cost_of_refusal
from tests.converters.sources.refusals import (
    read_all,
    refuse,
    refuse_or_equal_flipped,
)

MB = 1 << 20
FORMATS = ["TF1 checkpoint", "TF2 checkpoint"]


@pytest.fixture
def copy(written, tmp_path: Path):
    """(format) → a copy of its folder, to be changed."""

    def make(name: str) -> Path:
        path = written(name)
        return Path(shutil.copytree(path if path.is_dir() else path.parent, tmp_path / "copy"))

    return make


def part(folder: Path, pattern: str) -> Path:
    return next(folder.rglob(pattern))


@pytest.mark.parametrize("optimizer", ["MomentumOptimizer", "AdamOptimizer", "RMSPropOptimizer", "AdadeltaOptimizer"])
def test_tf1_optimisers_are_dropped_by_rows_that_say_why(tmp_path: Path, tensors, optimizer: str) -> None:
    path = writers.tf1_checkpoint(tensors, tmp_path / "model.ckpt", optimizer)
    with open_checkpoint(path) as source:
        assert all(source.read(name).tobytes() == value.tobytes() for name, value in tensors.items())
        assert "counter" in source.dropped["global_step"]
        slots = {name for name, why in source.dropped.items() if "slot" in why}
        assert len(slots) >= len(tensors)
        assert all(any(slot.startswith(name + "/") for name in tensors) for slot in slots)


@pytest.mark.parametrize(
    "optimizer", ["SGD", "Adam", "RMSprop", "Adagrad", "legacy.SGD", "legacy.Adam", "legacy.RMSprop"]
)
def test_tf2_optimisers_are_dropped_by_rows_that_say_why(tmp_path: Path, tensors, optimizer: str) -> None:
    import tensorflow as tf

    path = writers.tf2_checkpoint(tensors, tmp_path, optimizer, step=tf.Variable(7, name="step", dtype=tf.int64))
    with open_checkpoint(path) as source:
        assert all(source.read(name).tobytes() == value.tobytes() for name, value in tensors.items())
        assert {"save_counter", "step"} <= source.dropped.keys()
        assert sum("slot" in why for why in source.dropped.values()) >= len(tensors)


def test_moving_averages_are_not_dropped_but_named(tmp_path: Path, tensors) -> None:
    """They are another network: which of the two is meant is not ours to guess."""
    name = "resnet/group_norm/gamma"
    more = {**tensors, name + "/ExponentialMovingAverage": tensors[name]}
    assert f"1 unexpected: {name}/ExponentialMovingAverage" in refuse(
        writers.tf1_checkpoint(more, tmp_path / "model.ckpt")
    )


def test_full_names_count_whatever_the_attributes_are(tmp_path: Path, tensors) -> None:
    import tensorflow as tf

    module = tf.Module()
    kept = {
        name.replace("head/conv2d", "head/dense"): np.squeeze(value) if "head" in name else value
        for name, value in tensors.items()
    }
    backwards = sorted(kept.items(), reverse=True)
    module.zoo = {f"animal{n}": [tf.Variable(value, name=name)] for n, (name, value) in enumerate(backwards)}
    path = tf.train.Checkpoint(anything=module).write(str(tmp_path / "ckpt"))
    for opened in (Path(path), tmp_path):
        got = read_all(opened)
        assert all(got[name].tobytes() == value.tobytes() for name, value in tensors.items())
    tf.saved_model.save(module, str(tmp_path / "saved"))
    assert read_all(tmp_path / "saved").keys() == tensors.keys()


def test_a_four_axis_head_is_read_from_tf2_too(tmp_path: Path, tensors) -> None:
    import tensorflow as tf

    variables = [tf.Variable(value, name=name) for name, value in tensors.items()]
    assert read_all(Path(tf.train.Checkpoint(all=variables).write(str(tmp_path / "ckpt")))).keys() == tensors.keys()


def test_two_variables_of_one_full_name_are_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    twice = [tf.Variable(tf.ones(3), name="group_norm/gamma") for _ in range(2)]
    path = tf.train.Checkpoint(all=twice).write(str(tmp_path / "ckpt"))
    assert "two variables of the full name group_norm/gamma" in refuse(Path(path))


def test_a_missing_and_a_misshapen_tensor_are_named(tmp_path: Path, tensors) -> None:
    changed = {name: value for name, value in tensors.items() if name != "resnet/group_norm/beta"}
    changed["resnet/block1/unit01/b/group_norm/gamma"] = np.ones(65, "f4")
    message = refuse(writers.tf1_checkpoint(changed, tmp_path / "model.ckpt"))
    assert "1 missing: resnet/group_norm/beta" in message
    assert "1 misshapen: resnet/block1/unit01/b/group_norm/gamma is 65, not 64" in message


@pytest.mark.parametrize(("value", "says"), [(np.nan, "NaN or Inf"), (np.inf, "NaN or Inf"), (1, "int32")])
def test_other_values_are_refused(tmp_path: Path, tensors, value: float, says: str) -> None:
    beta = np.full_like(tensors["resnet/group_norm/beta"], value).astype("i4" if value == 1 else "f4")
    path = writers.tf1_checkpoint({**tensors, "resnet/group_norm/beta": beta}, tmp_path / "model.ckpt")
    assert f"resnet/group_norm/beta holds {says}" in refuse(path)


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_any_width_is_read(tmp_path: Path, tensors, dtype: str) -> None:
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    cast = {name: value.astype(kind) for name, value in tensors.items()}
    path = writers.tf1_checkpoint(cast, tmp_path / "model.ckpt")
    for name, value in read_all(path).items():
        np.testing.assert_array_equal(value, cast[name].astype(np.float32), strict=True)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pattern", ["*.index", "*.data-*"])
def test_files_cut_short_are_refused(copy, name: str, pattern: str) -> None:
    folder = copy(name)
    file = part(folder, pattern)
    whole = file.read_bytes()
    lengths = range(0, len(whole), max(1, len(whole) // 80))
    for length in [*lengths, len(whole) - 1]:
        file.write_bytes(whole[:length])
        refuse(folder)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("pattern", ["*.index", "*.data-*"])
def test_one_flipped_bit_never_changes_what_is_read(copy, tensors, name: str, pattern: str) -> None:
    folder = copy(name)
    refuse_or_equal_flipped(part(folder, pattern), folder, tensors)


@pytest.mark.parametrize("name", ["TF1 checkpoint", "SavedModel"])
def test_missing_data_is_named(copy, name: str) -> None:
    folder = copy(name)
    part(folder, "*.data-*").unlink()
    assert "data-* is missing" in refuse(folder)


def test_a_saved_model_without_variables_is_refused(copy) -> None:
    folder = copy("SavedModel")
    shutil.rmtree(folder / "variables")
    assert "without its variables" in refuse(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"<html>not here</html>", b"\x0a\xff\xff\xff\xff\x0f", bytes(1000)]
)
def test_a_graph_of_junk_is_refused(copy, content: bytes) -> None:
    folder = copy("SavedModel")
    (folder / "saved_model.pb").write_bytes(content)
    assert "saved_model.pb" in refuse(folder)


def test_a_graph_cut_short_is_refused_or_makes_no_difference(copy, tensors) -> None:
    """Protobuf has no end mark: what is cut between two fields is a whole, shorter message."""
    folder = copy("SavedModel")
    whole = (folder / "saved_model.pb").read_bytes()
    for length in np.random.default_rng(0).integers(len(whole), size=20):
        (folder / "saved_model.pb").write_bytes(whole[:length])
        refuse(folder)


@pytest.mark.parametrize("content", [b"", b"\x08\x02", b"junk"])
def test_a_hub_mark_of_junk_is_refused(copy, content: bytes) -> None:
    folder = copy("TF1-Hub")
    (folder / "tfhub_module.pb").write_bytes(content)
    assert "tfhub_module.pb" in refuse(folder)


def test_an_object_graph_of_junk_is_refused(tmp_path: Path, tensors) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        junk = v1.get_variable("junk", initializer=b"\xff\xff\xff", use_resource=False)
        gamma = v1.get_variable("gamma", initializer=np.ones(3, "f4"), use_resource=False)
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver({"_CHECKPOINTABLE_OBJECT_GRAPH": junk, "gamma": gamma})
        saver.save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    assert "the object graph is damaged" in refuse(tmp_path)


def test_nothing_of_a_graph_is_executed(tmp_path: Path, tensors) -> None:
    """A module whose initialisation writes a file, as TensorFlow's own loader would let it."""
    import tensorflow as tf

    v1, mark = tf.compat.v1, tmp_path / "executed"
    folder = tmp_path / "module"
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in tensors.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        main_op = tf.io.write_file(str(mark), "x")
        builder.add_meta_graph_and_variables(session, ["serve"], main_op=main_op)
        builder.save()
    with open_checkpoint(folder) as source:
        for name in source.shapes:
            source.read(name)
    assert not mark.exists()
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, ["serve"], str(folder))
    assert mark.exists()


def test_memory_follows_the_bytes_not_the_claims(tmp_path: Path, tensors, written) -> None:
    """A true index of a tensor of 128 MB, beside the data of a small one."""
    import tensorflow as tf

    large = tf.train.Checkpoint(all=[tf.Variable(tf.zeros((1 << 25,)), name="resnet/group_norm/gamma")])
    path = Path(large.write(str(tmp_path / "large")))
    with path.with_name("large.data-00000-of-00001").open("r+b") as file:
        file.truncate(4096)
    assert "cut short" in refuse(path)
    assert cost_of_refusal(path, written("TF1 checkpoint")).memory < 64 * MB


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: [(key, b"\xff" * len(record)) for key, record in entries],
        lambda entries: [(key, record + b"\x12\x04\x12\x02\x08\xff") for key, record in entries],
        lambda entries: [(key, record + b"\x20" + b"\xff" * 9 + b"\x01") for key, record in entries],  # offset -1
        lambda entries: [*entries[:1], (b"a", b"\x08\x01\x12\x0d\x12\x0b\x08" + b"\xff" * 9 + b"\x01"), *entries[1:]],
        lambda entries: [(key, record + b"\x08\x7f") for key, record in entries],  # a type that there is not
        lambda entries: [(key, record + b"\x3a\x00") for key, record in entries],  # slices
        lambda entries: entries[1:],
        lambda entries: entries[::-1],
        lambda entries: [*entries, *((b"z%06d" % n, b"") for n in range(5000))],
    ],
)
def test_an_index_that_would_end_the_process_is_refused(written, tmp_path: Path, change) -> None:
    """TensorFlow checks its entries with assertions. The checksums of this index are right."""
    from tests.fuzz.mutations import table_entries, table_of

    prefix = written("TF1 checkpoint")
    shutil.copytree(prefix.parent, tmp_path / "copy")
    index = tmp_path / "copy" / (prefix.name + ".index")
    entries = table_entries(index.read_bytes())
    index.write_bytes(table_of(entries))
    assert read_all(index).keys()
    index.write_bytes(table_of(change(entries)))
    refuse(index, tmp_path)


def test_junk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.index").write_bytes(b"junk" * 100)
    (tmp_path / "model.data-00000-of-00001").write_bytes(b"junk" * 100)
    refuse(tmp_path)


def test_a_file_of_a_checkpoint_stands_for_it(written) -> None:
    prefix = written("TF1 checkpoint")
    for name in ("", ".index", ".data-00000-of-00001"):
        with open_source(prefix.with_name(prefix.name + name)) as source:
            assert source.format == "tf-checkpoint"
