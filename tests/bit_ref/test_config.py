"""BitConfig against transformers' BitConfig: defaults, labels, stages, errors, and the JSON that both read."""

import json

import numpy as np
import pytest
import torch
import transformers

import bit_ref
from bit_ref import BitConfig

EXTRA = {"weight_standardization_eps", "pool_padding"}

ARGUMENTS = [
    {},
    {"num_labels": 7},
    {"num_labels": 0},
    {"id2label": {"0": "cat", "1": "dog", "2": "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}},
    {"id2label": {0: "cat", 1: "dog", 2: "owl"}},
    {"id2label": {0: "cat"}, "num_labels": 4},
    {"depths": (1, 2), "hidden_sizes": (64, 128), "out_features": ["stem", "stage2"]},
    {"out_indices": (1, -1)},
    {"global_padding": "same", "embedding_dynamic_padding": True, "layer_type": "bottleneck"},
    {"dtype": "float16", "output_hidden_states": True, "return_dict": False, "problem_type": "regression"},
    {"torch_dtype": "bfloat16"},
    {"architectures": ["BitModel"], "anything": {"else": [1, 2]}},
    {"width_factor": 3, "output_stride": 8, "drop_path_rate": 0.1, "num_groups": 16, "num_channels": 1},
]


def plain(content: dict) -> dict:
    """As JSON keeps it, without what only one library has."""
    content = json.loads(json.dumps(content))
    return {
        key: value for key, value in content.items() if key not in EXTRA | {"transformers_version", "_name_or_path"}
    }


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_every_key_is_transformers(arguments):
    ours, theirs = BitConfig(**arguments), transformers.BitConfig(**arguments)
    assert plain(ours.to_dict()) == plain(theirs.to_dict())
    assert plain(json.loads(ours.to_json_string())) == plain(json.loads(theirs.to_json_string()))
    for name in ("num_labels", "id2label", "label2id", "dtype", "out_features", "out_indices", "stage_names"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_arithmetic_is_the_stock_librarys_until_declared():
    assert (BitConfig().weight_standardization_eps, BitConfig().pool_padding) == (1e-8, "zeros")
    stated = json.loads(BitConfig(weight_standardization_eps=1e-10, pool_padding="-inf").to_json_string())
    assert (stated["weight_standardization_eps"], stated["pool_padding"]) == (1e-10, "-inf")


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_files_go_both_ways(arguments, tmp_path):
    ours = BitConfig(**arguments, weight_standardization_eps=1e-10)
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert type(theirs) is transformers.BitConfig
    assert theirs.weight_standardization_eps == 1e-10
    theirs.save_pretrained(tmp_path / "theirs")
    back = BitConfig.from_pretrained(tmp_path / "theirs")
    back.name_or_path = ""
    assert back == ours
    assert "transformers_version" not in (tmp_path / "ours/config.json").read_text()
    assert "transformers_version" not in back.to_json_string()


def test_saved_twice_is_the_same_file(tmp_path):
    BitConfig(num_labels=3, future_key=None).save_pretrained(tmp_path)
    first = (tmp_path / "config.json").read_bytes()
    BitConfig.from_pretrained(tmp_path / "config.json").save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == first
    assert json.loads(first)["future_key"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_labels": 4},
        {"num_labels": 3},
        {"id2label": {0: "x", 1: "y"}, "label2id": {"x": 0, "y": 1}},
        {"dtype": "float16"},
        {"out_features": ["stage1"]},
        {"out_indices": [0, 1]},
        {"drop_path_rate": 0.2, "note": "new"},
        {"nothing": 1, "drop_path_rate": 0.2},
    ],
    ids=str,
)
def test_arguments_replace_the_files_keys(changes, tmp_path):
    labels = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
    BitConfig(**labels, out_features=["stem", "stage4"], note="old").save_pretrained(tmp_path)
    ours, our_rest = BitConfig.from_pretrained(tmp_path, return_unused_kwargs=True, **changes)
    theirs, their_rest = transformers.BitConfig.from_pretrained(tmp_path, return_unused_kwargs=True, **changes)
    assert plain(ours.to_dict()) == plain(theirs.to_dict())
    assert our_rest == {key: value for key, value in their_rest.items() if key != "dtype"}


def test_labels_alone_bring_their_inverse(tmp_path):
    BitConfig(num_labels=3).save_pretrained(tmp_path)
    assert BitConfig.from_pretrained(tmp_path, id2label={"0": "x", "1": "y"}).label2id == {"x": 0, "y": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_type": "x"}, "layer_type=x is not one of preactivation,bottleneck"),
        ({"global_padding": "x"}, "Padding strategy X not supported"),
        ({"out_features": ["x"]}, "out_features must be a subset of stage_names"),
        ({"out_features": ("stem",)}, "out_features"),
        ({"out_features": ["stage1", "stem"]}, "in the same order as stage_names"),
        ({"out_features": ["stem", "stem"]}, "any duplicates"),
        ({"out_indices": [9]}, "out_indices must be valid indices"),
        ({"out_indices": [1, 1]}, "any duplicates"),
        ({"out_indices": [2, 1]}, "in the same order as stage_names"),
        ({"out_indices": 3}, "out_indices"),
        ({"out_indices": [1], "out_features": ["stage2"]}, "should correspond to the same stages"),
        ({"num_labels": 1, "problem_type": "single_label_classification"}, "single_label_classification"),
    ],
)
def test_errors_are_transformers(arguments, message):
    with pytest.raises(Exception, match=message):  # a ValueError, or one wrapped by huggingface_hub's validation
        transformers.BitConfig(**arguments)
    with pytest.raises(ValueError, match=message):
        BitConfig(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_padding": "ones"}, "neither zeros nor -inf"),
        ({"weight_standardization_eps": -1.0}, "negative"),
        ({"weight_standardization_eps": None}, "no number"),
        ({"num_labels": 10**12}, "num_labels"),
        ({"num_labels": -1}, "num_labels"),
        ({"depths": [10**9], "hidden_sizes": [256]}, "depths"),
        ({"depths": [600, 600], "hidden_sizes": [256, 512]}, "more units"),
        ({"depths": [True], "hidden_sizes": [256]}, "depths"),
        ({"hidden_sizes": [10**12] * 4}, "hidden_sizes"),
        ({"hidden_sizes": "256"}, "hidden_sizes"),
        ({"hidden_sizes": None}, "hidden_sizes"),
        ({"embedding_size": 10**12}, "embedding_size"),
        ({"width_factor": None}, "width_factor"),
        ({"id2label": {"0.0": "a"}}, "id2label"),
        ({"id2label": ["a"]}, "id2label"),
        ({"label2id": [1]}, "label2id"),
        ({"global_padding": 1}, "global_padding"),
        ({"out_features": [["stem"]]}, "name no stages"),
        ({"out_indices": [None]}, "name no stages"),
        ({"weight_standardization_eps": float("nan")}, "nan"),
        ({"weight_standardization_eps": float("inf")}, "inf is negative, infinite, or no number"),
        ({"weight_standardization_eps": True}, "True is negative, infinite, or no number"),
        ({"depths": [1, 2]}, "a value per stage"),
        ({"depths": [], "hidden_sizes": []}, "a value per stage"),
        ({"embedding_dynamic_padding": "false"}, "embedding_dynamic_padding='false'"),
        ({"output_hidden_states": "no"}, "output_hidden_states='no'"),
        ({"return_dict": 0}, "return_dict=0"),
        ({"to_dict": 1}, "to_dict cannot be a key"),
    ],
)
def test_what_no_network_can_have_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BitConfig(**arguments)


def test_config_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="type vit, not bit"):
        BitConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "config.json is not valid JSON"), ("[]", "no JSON object")])
def test_broken_file_is_named(text, message, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(OSError, match=message):
        BitConfig.from_pretrained(tmp_path)


def test_stages_can_be_chosen_later():
    for library in (bit_ref, transformers):
        config = library.BitConfig()
        config.out_indices = (0, 2)
        assert config.out_features == ["stem", "stage2"]
        config.out_features = ["stage4"]
        assert config.out_indices == [4]
        config.num_labels = 3
        assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


def test_names_of_methods_are_no_keys():
    config = BitConfig()
    with pytest.raises(ValueError, match="to_dict cannot be a key"):
        config.update({"to_dict": 1})
    assert "_name_or_path" not in config.to_dict()
    config.name_or_path = "somewhere"
    assert config == BitConfig()
    assert config._name_or_path == "somewhere"
    assert "depths" in set(config)


def test_both_names_of_the_dtype():
    config = BitConfig(dtype="float16", torch_dtype="float32")
    assert config.to_dict()["dtype"] == "float16"
    config.torch_dtype = "bfloat16"
    assert config.to_dict()["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("global_padding", "full", "Padding strategy FULL not supported"),
        ("pool_padding", "inf", "neither zeros nor -inf"),
        ("weight_standardization_eps", -1e-10, "negative"),
        ("depths", [1], "a value per stage"),
    ],
)
def test_what_is_set_later_is_looked_at_before_a_network_is_built(key, value, message):
    config = BitConfig()
    config.update({key: value})
    with pytest.raises(ValueError, match=message):
        bit_ref.BitModel(config)


def test_padding_that_is_set_later_may_be_in_small_letters():
    image = torch.randn(1, 3, 33, 50, generator=torch.Generator().manual_seed(0))
    shapes = []
    for library in (bit_ref, transformers):
        config = library.BitConfig(embedding_size=32, hidden_sizes=[128, 256], depths=[1, 2])
        config.global_padding = "same"
        shapes.append(library.BitModel(config)(image).last_hidden_state.shape)
    assert shapes[0] == shapes[1]
    with pytest.raises(ValueError, match="num_labels=-1"):
        BitConfig().num_labels = -1


def test_labels_are_counted_in_a_text_as_by_transformers():
    for library in (bit_ref, transformers):
        config = library.BitConfig()
        config.update_from_string("num_labels=7")
        assert len(config.id2label) == 7
        with pytest.raises(ValueError, match="key nothing isn't in the original config dict"):
            config.update_from_string("nothing=7")


def test_numbers_of_numpy_are_written(tmp_path):
    config = BitConfig(num_groups=np.int64(8), weight_standardization_eps=np.float32(0.5), note=np.arange(3))
    config.save_pretrained(tmp_path)
    assert BitConfig.from_pretrained(tmp_path).to_dict() == {**config.to_dict(), "note": [0, 1, 2]}
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        BitConfig(note={1, 2}).to_json_string()
