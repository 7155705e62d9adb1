"""The safetensors writer, read back by the safetensors library."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from converters.mapping.storage import rows_of
from converters.writers.safetensors import TensorToWrite, write_safetensors


def shapes_of(tensors):
    return {name: tensor.shape for name, tensor in tensors.items()}


def to_write(tensors, step=2):
    """Two rows at a time, or as many as are asked for."""

    def pieces(name):
        return lambda most: rows_of(tensors[name], min(step, most))

    return [TensorToWrite(name, tensor.shape, pieces(name)) for name, tensor in tensors.items()]


def written(path, tensors, **options):
    return write_safetensors(path, to_write(tensors), **options)


@settings(max_examples=50, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"),
        hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3)),
        max_size=5,
    )
)
def test_the_library_reads_what_was_written(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "model.safetensors"
    digest = written(path, tensors)
    read = load_file(path)
    assert {name: tensor.tobytes() for name, tensor in read.items()} == {n: t.tobytes() for n, t in tensors.items()}
    assert shapes_of(read) == shapes_of(tensors)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_are_the_librarys_own_for_tensors_in_its_order(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(1, np.float32)}
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    written(tmp_path / "ours", tensors)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_lie_in_the_given_order_behind_an_aligned_header(tmp_path):
    tensors = {"z": np.zeros(3, np.float32), "a": np.ones((1, 2), np.float32).T}
    path = tmp_path / "model.safetensors"
    written(path, tensors)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header["__metadata__"] == {"format": "pt"}
    assert [header[name]["data_offsets"] for name in ("z", "a")] == [[0, 12], [12, 20]]
    with safe_open(path, "np") as file:
        assert file.get_tensor("a").tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("rows", [0, 2, 4])
def test_tensor_that_does_not_fit_the_header_is_refused(tmp_path, rows):
    tensor = TensorToWrite("a", (3, 2), lambda most: rows_of(np.zeros((rows, 2), np.float32), 1))
    with pytest.raises(ValueError, match=f"a: {rows} rows for the 3 of its first axis"):
        write_safetensors(tmp_path / "model.safetensors", [tensor])


def test_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        written(path, {})
    assert path.read_bytes() == b"precious"
