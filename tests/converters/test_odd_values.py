"""Names and values that are no text, no number or no label, by the command line: errors and faults, no tracebacks."""

import json
import struct

import numpy as np
import pytest

from converters.cli.commands import verify
from converters.errors import CheckpointError
from tests.command_line import audited, converted, refused, run
from tests.converters.sources.writers import torch_names

HALF = "\ud800"
"""Half of a character, which JSON and pickles can hold and UTF-8 cannot."""


@pytest.fixture(scope="module")
def source(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "tiny.npz"
    np.savez(path, **tensors)
    return path


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "model"
    converted(source, path, "--no-verify")
    return path


def with_config(folder, place, **changes):
    """A copy of the folder, with other values in config.json."""
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text()) | changes
    (place / "config.json").unlink()
    (place / "config.json").write_text(json.dumps(config))
    return place


def as_safetensors(state, place):
    header, data = {}, b""
    for name, values in state.items():
        raw = values.tobytes()
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def as_pickle(state, place):
    import torch

    torch.save({name: torch.from_numpy(values) for name, values in state.items()}, place / "pytorch_model.bin")


@pytest.mark.parametrize("write", [as_safetensors, as_pickle])
@pytest.mark.parametrize("is_extra", [False, True])
def test_half_a_character_in_a_tensors_name(tensors, source, tmp_path, write, is_extra):
    state = torch_names(tensors, "transformers")
    name = next(name for name in state if "norm1" in name)
    state[HALF + name] = state[name] if is_extra else state.pop(name)
    target = tmp_path / "model"
    target.mkdir()
    write(state, target)
    status = CheckpointError.exit_status
    for arguments in (("--checkpoint", target, "--output", tmp_path / "out"), (target, "--against", source)):
        command = {"command": verify} if "--against" in arguments else {}
        said = refused(status, *arguments, **command)
        assert str(target) in said
        result = run(*arguments, "--json", "--quiet", **command)
        assert result.exit_code == json.loads(result.stdout)["exit_status"] == status
    assert not (tmp_path / "out").exists()


ODD = [
    ("label2id", {"a": [0], "b": None, "c": "0.0"}),
    ("label2id", [0, 1, 2]),
    ("label2id", {"LABEL_0": "0.0", "LABEL_1": "1.0", "LABEL_2": "2.0"}),
    ("id2label", {"0": [1], "1": None, "0.0": "x"}),
    ("width_factor", None),
]


@pytest.mark.parametrize(("field", "value"), ODD, ids=lambda value: str(value)[:30])
def test_odd_values_of_a_config_are_faults_that_name_the_field(folder, source, tmp_path, field, value):
    target = with_config(folder, tmp_path / "model", **{field: value})
    report = audited(target, source, tmp_path / "report", "--runner", "bit_ref")
    assert report["verdict"] == "failed"
    assert [fault for fault in report["faults"] if fault["kind"] == "configuration" and field in fault["place"]]
