"""Folders: what bit_ref writes transformers reads, and the other way round; what does not fit is said, all at once."""

import json
import logging
import os

import numpy as np
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bit_ref
from bit_ref import BitBackbone, BitConfig, BitForImageClassification, BitImageProcessor, BitModel
from tests.bit_ref.support import SMALL, images, randomize

HEAD = {"classifier.1.weight", "classifier.1.bias"}
LABELS = {"id2label": {i: f"class {i}" for i in range(5)}, "label2id": {f"class {i}": i for i in range(5)}}


def make(kind=BitForImageClassification, **options):
    model = kind(BitConfig(**{**SMALL, **LABELS, **options}))
    randomize(model)
    return model.eval()


def equal(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def edit(folder, change) -> None:
    """Applies ``change`` to the stored tensors."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def folder(tmp_path):
    make().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["BitModel", "BitForImageClassification", "BitBackbone"])
@pytest.mark.parametrize("shards", [{}, {"max_shard_size": 100_000}], ids=["whole", "shards"])
def test_round_trip_through_both_libraries(kind, shards, tmp_path):
    ours = make(getattr(bit_ref, kind), weight_standardization_eps=1e-10, note="kept")
    ours.save_pretrained(tmp_path / "ours", **shards)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) == (1 if not shards else 7)
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "ours")
    assert equal(ours, theirs)
    theirs.save_pretrained(tmp_path / "theirs", **shards)
    back, info = type(ours).from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert equal(ours, back)
    assert info == {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}
    assert not back.training
    assert all(parameter.requires_grad for parameter in back.parameters())
    assert (back.config.note, back.config.weight_standardization_eps) == ("kept", 1e-10)
    assert back.config.id2label == ours.config.id2label == theirs.config.id2label


def test_auto_classes_find_the_model(folder):
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder)
    assert type(theirs) is transformers.BitForImageClassification
    assert theirs.config.architectures == ["BitForImageClassification"]


def test_files_are_the_ones_of_the_layout(folder):
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "bit"
    assert config["architectures"] == ["BitForImageClassification"]
    assert config["dtype"] == "float32"
    assert config["id2label"] == {str(i): f"class {i}" for i in range(5)}


def test_later_save_leaves_nothing_of_the_earlier_one(tmp_path):
    make().save_pretrained(tmp_path)
    small = make(depths=[1, 1])
    small.save_pretrained(tmp_path, max_shard_size=100_000)
    assert equal(BitForImageClassification.from_pretrained(tmp_path), small)
    small.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_where_it_was_loaded_from(folder):
    """The values are mapped from the very file that is replaced."""
    model = BitForImageClassification.from_pretrained(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.half().save_pretrained(folder)
    again = BitForImageClassification.from_pretrained(folder)
    assert again.dtype == torch.float16
    assert all(torch.equal(value, before[name].half()) for name, value in again.state_dict().items())


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("asked", [None, "auto", "float32", torch.float16, "bfloat16", torch.float64])
def test_dtype_is_chosen_as_by_transformers(stored, asked, tmp_path):
    make().to(getattr(torch, stored)).save_pretrained(tmp_path)
    ours = BitForImageClassification.from_pretrained(tmp_path, dtype=asked)
    theirs = transformers.BitForImageClassification.from_pretrained(tmp_path, dtype=asked)
    assert ours.dtype == theirs.dtype == ours.config.dtype
    assert equal(ours, theirs)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = BitForImageClassification.from_pretrained(tmp_path, dtype=asked)
    assert ours.dtype == transformers.BitForImageClassification.from_pretrained(tmp_path, dtype=asked).dtype


def test_unknown_dtype_is_refused(folder):
    with pytest.raises(ValueError, match="dtype=float33"):
        BitForImageClassification.from_pretrained(folder, dtype="float33")


@pytest.mark.parametrize("dtype", ["int8", "complex64", torch.bool], ids=str)
def test_dtype_that_computes_no_network_is_refused_as_by_transformers(dtype, folder):
    for library in (transformers, bit_ref):
        with pytest.raises(ValueError, match=r"floating.point"):
            library.BitModel.from_pretrained(folder, dtype=dtype)
        with pytest.raises(ValueError, match=r"floating.point"):
            library.BitModel._from_config(library.BitConfig(**SMALL), dtype=dtype)


@pytest.mark.parametrize("kind", [BitModel, BitBackbone])
def test_models_without_a_head_leave_it_in_the_folder(kind, folder, caplog):
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert caplog.text == ""
    _, theirs = getattr(transformers, kind.__name__).from_pretrained(folder, output_loading_info=True)
    assert info == theirs
    assert info["unexpected_keys"] == HEAD
    whole = BitForImageClassification.from_pretrained(folder)
    base = model if kind is BitModel else model.bit
    assert equal(base, whole.bit)


def test_folder_without_a_head_gets_a_random_one_with_a_warning(tmp_path, caplog):
    base = make(BitModel)
    base.save_pretrained(tmp_path)
    model, info = BitForImageClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert info["missing_keys"] == HEAD
    assert equal(model.bit, base)
    assert 0 < model.classifier[1].weight.std() < 1 / 16
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert all(name in caplog.text for name in HEAD)


@pytest.mark.parametrize("changes", [{"num_labels": 3}, {"id2label": {0: "x"}, "label2id": {"x": 0}}], ids=str)
def test_other_classes_need_to_be_asked_for(changes, folder, caplog):
    for library in (transformers, bit_ref):
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            library.BitForImageClassification.from_pretrained(folder, **changes)
    with pytest.raises(
        RuntimeError, match=r"classifier\.1\.bias is 5, the model's .*classifier\.1\.weight is 5×256, the"
    ):
        BitForImageClassification.from_pretrained(folder, **changes)

    options = {**changes, "ignore_mismatched_sizes": True, "output_loading_info": True}
    model, info = BitForImageClassification.from_pretrained(folder, **options)
    theirs, their_info = transformers.BitForImageClassification.from_pretrained(folder, **options)
    assert info == their_info
    assert model.config.id2label == theirs.config.id2label
    assert equal(model.bit, theirs.bit)
    assert model.classifier[1].weight.shape == theirs.classifier[1].weight.shape
    assert model.classifier[1].weight.std() > 0
    assert "train the model before it is used" in caplog.text


def test_trunk_of_another_shape_can_be_made_anew(folder):
    model = BitForImageClassification.from_pretrained(folder, embedding_size=64, ignore_mismatched_sizes=True)
    assert model.bit.embedder.convolution.weight.shape == (64, 3, 7, 7)
    assert model.bit.embedder.convolution.weight.std().item() == pytest.approx(np.sqrt(2 / (64 * 49)), rel=0.05)
    assert torch.equal(model.bit.encoder.stages[0].layers[0].norm1.weight, torch.ones(64))
    assert torch.isfinite(model(images().float()).logits).all()


def test_every_tensor_that_does_not_fit_is_named_at_once(folder):
    def spoil(tensors):
        del tensors["bit.norm.weight"], tensors["classifier.1.bias"]
        tensors["bit.norm.extra"] = torch.zeros(3)
        tensors["bit.norm.bias"] = torch.zeros(2, 3)
        tensors["bit.embedder.convolution.weight"] = torch.zeros(32, 3, 7, 7, dtype=torch.int64)

    edit(folder, spoil)
    with pytest.raises(RuntimeError) as raised:
        BitForImageClassification.from_pretrained(folder)
    assert str(raised.value) == (
        f"the tensors of {folder} do not fit BitForImageClassification: "
        "missing: bit.norm.weight, classifier.1.bias; unexpected: bit.norm.extra; "
        "not of floating point: bit.embedder.convolution.weight; "
        "of another shape (ignore_mismatched_sizes=True initialises them): bit.norm.bias is 2×3, the model's 256"
    )


@pytest.mark.parametrize("kind", [BitModel, BitForImageClassification])
def test_two_tensors_with_one_name_are_refused(kind, folder):
    with pytest.raises(RuntimeError, match=r"more than one tensor of .*model is named bit\.norm\.bias"):
        kind.from_pretrained(folder, key_mapping={r"norm\.weight": "norm.bias"})
    edit(folder, lambda tensors: tensors.update({"norm.weight": tensors["bit.norm.weight"] + 1}))
    with pytest.raises(RuntimeError, match=r"model.* norm\.weight"):
        kind.from_pretrained(folder)


def test_tensor_in_two_shards_is_refused(tmp_path):
    make().save_pretrained(tmp_path, max_shard_size=100_000)
    first, second = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    save_file({**load_file(first), **load_file(second)}, second)
    with pytest.raises(OSError, match=rf"{second.name} of .* has bit\..*, which another file of weights has, too"):
        BitForImageClassification.from_pretrained(tmp_path)


def test_half_a_head_is_no_headless_folder(folder):
    edit(folder, lambda tensors: tensors.pop("classifier.1.bias"))
    with pytest.raises(RuntimeError, match=r"missing: classifier\.1\.bias$"):
        BitForImageClassification.from_pretrained(folder)


def test_config_can_be_given(folder):
    config = BitConfig.from_pretrained(folder)
    config.weight_standardization_eps = 1e-3
    model = BitForImageClassification.from_pretrained(folder, config=config)
    assert model.bit.embedder.convolution.epsilon == 1e-3
    assert config.dtype == torch.float32
    assert model.config is not config
    assert equal(BitForImageClassification.from_pretrained(folder, config=folder), model)


def test_keys_of_the_config_are_arguments_and_others_are_errors(folder):
    assert BitForImageClassification.from_pretrained(folder, output_hidden_states=True).config.output_hidden_states
    for library in (transformers, bit_ref):
        with pytest.raises(TypeError, match="outputs"):
            library.BitForImageClassification.from_pretrained(folder, outputs=True)


def test_pickles_are_never_read(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no model\.safetensors .*pytorch_model\.bin, a pickle, which is never read"):
        BitModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="safetensors only"):
        BitModel.from_pretrained(folder, use_safetensors=False)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_file_cut_short_is_named(size, folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:size])
    with pytest.raises(OSError, match=r"model\.safetensors of .* is not readable, fetch it again"):
        BitModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "names no file of weights"),
        ({"weight_map": {"a": "../model.safetensors"}}, "no safetensors file beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "no safetensors file beside it"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "no safetensors file beside it"),
        ({"weight_map": {"a": 3}}, "no safetensors file beside it"),
        ({"weight_map": {"a": "model-00001-of-00001.safetensors"}}, "has no model-00001-of-00001"),
    ],
)
def test_index_leads_nowhere_else(index, message, folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(OSError, match=message):
        BitModel.from_pretrained(folder)


def test_folder_that_is_not_there_is_named(tmp_path):
    for load in (BitModel.from_pretrained, BitConfig.from_pretrained, BitImageProcessor.from_pretrained):
        with pytest.raises(OSError, match="nowhere is neither a folder nor the name of a repository"):
            load(tmp_path / "nowhere")
        with pytest.raises(OSError, match=r"has no (preprocessor_)?config\.json"):
            load(tmp_path)


def test_arguments_that_mean_nothing_here_are_taken(folder):
    options = {"low_cpu_mem_usage": True, "trust_remote_code": False, "use_safetensors": True}
    model = BitModel.from_pretrained(folder, torch_dtype=torch.float64, device_map="meta", **options)
    assert (model.dtype, model.device) == (torch.float64, torch.device("meta"))
    assert BitModel.from_pretrained(folder, device_map="auto").device.type in ("cpu", "cuda")
    device_map = {"embedder": "cpu", "encoder": torch.device("cpu")}
    assert BitModel.from_pretrained(folder, device_map=device_map).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from_tf": True}, "from_tf=True: bit_ref reads safetensors only"),
        ({"gguf_file": "model.gguf"}, "safetensors only"),
        ({"quantization_config": {}}, "quantise the loaded model"),
        ({"load_in_8bit": True}, "quantise the loaded model"),
        ({"tp_plan": "auto"}, "one device"),
        ({"attn_implementation": "sdpa"}, "attn_implementation=sdpa: BiT has no attention"),
        ({"adapter_kwargs": {"revision": "x"}}, "PeftModel"),
        ({"use_kernels": True}, "PyTorch's own kernels"),
        ({"device_map": {"bit": "cpu", "classifier": "meta"}}, "one device"),
        ({"device_map": {"": "disk"}}, "one device"),
        ({"device_map": "cpuu"}, "neither a device nor one of auto"),
        ({"device_map": "auto", "max_memory": {"cpu": "1KB"}}, r"leaves no device for the \d+ bytes"),
        ({"device_map": "auto", "max_memory": {"cpu": "some"}}, "no number of bytes"),
        ({"device_map": "auto", "max_memory": {"cpu": "1.2.3GB"}}, "no number of bytes"),
        ({"id2label": ["a"]}, r"id2label=\['a'\] is not what"),
        ({"id2label": {"x": "a"}}, "id2label=.* is not what"),
        ({"state_dict": {}}, "wants a name or path, or else None"),
        ({"variant": "../x"}, "no part of a file's name"),
    ],
    ids=str,
)
def test_argument_that_cannot_be_honoured_is_refused(options, message, folder):
    with pytest.raises(ValueError, match=message) as raised:
        BitForImageClassification.from_pretrained(folder, **options)
    assert "\n" not in str(raised.value)


def test_tensors_without_a_place_need_a_config_and_stay_the_callers():
    model = make()
    with pytest.raises(ValueError, match="wants config="):
        BitModel.from_pretrained(None, state_dict=model.state_dict())
    with pytest.raises(ValueError, match="None, config= and state_dict="):
        BitModel.from_pretrained(None, config=model.config)
    other = BitForImageClassification.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    before = model.classifier[1].bias.clone()
    other.classifier[1].bias.data.zero_()
    assert torch.equal(model.classifier[1].bias, before)


def test_proxies_are_refused_where_they_would_be_needed(folder):
    proxies = {"https": "http://127.0.0.1:1"}
    assert equal(BitModel.from_pretrained(folder, proxies=proxies), BitModel.from_pretrained(folder))
    for load in (BitModel.from_pretrained, BitConfig.from_pretrained, BitImageProcessor.from_pretrained):
        with pytest.raises(ValueError, match="set HTTPS_PROXY"):
            load("nobody/nothing", proxies=proxies)


def test_device_of_the_context_is_the_models(folder):
    for library in (transformers, bit_ref):
        with torch.device("meta"), pytest.raises(RuntimeError, match="meta"):
            library.BitModel.from_pretrained(folder)
    with torch.device("cpu"):
        assert BitModel.from_pretrained(folder).device == torch.device("cpu")


class Segmenter(BitModel):
    """A network with more on top than BiT has, as users write them."""

    def __init__(self, config):
        super(BitModel, self).__init__(config)
        self.bit = BitModel(config)
        self.decoder = torch.nn.Conv2d(256, 2, 1)
        self.post_init()


def test_what_a_subclass_adds_starts_at_random(folder, tmp_path, caplog):
    model, info = Segmenter.from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == {"decoder.weight", "decoder.bias"}
    assert info["unexpected_keys"] == HEAD
    assert "decoder.bias, decoder.weight of Segmenter start at random" in caplog.text
    assert 0 < model.decoder.weight.std() < 1 / 8
    model.save_pretrained(tmp_path / "again")
    assert equal(Segmenter.from_pretrained(tmp_path / "again"), model)


def test_new_model_has_the_configs_dtype():
    for library in (transformers, bit_ref):
        config = library.BitConfig(**SMALL, dtype="float16")
        assert library.BitModel._from_config(config).dtype == torch.float16
        assert library.BitModel(config).dtype == torch.float32
    with pytest.raises(TypeError, match="nothing"):
        BitModel._from_config(BitConfig(**SMALL), nothing=1)


def test_saving_refuses_what_it_does_not_write(tmp_path):
    make().save_pretrained(tmp_path, save_function=torch.save, safe_serialization=True, token="x", private=True)
    with pytest.raises(ValueError, match="safe_serialization=False: bit_ref writes safetensors only"):
        make().save_pretrained(tmp_path, safe_serialization=False)


def test_only_the_main_process_saves(tmp_path):
    make().save_pretrained(tmp_path, is_main_process=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("publish", [False, True])
@pytest.mark.parametrize("kind", ["BitConfig", "BitImageProcessor", "BitForImageClassification"])
def test_unknown_argument_of_saving_leaves_nothing(kind, publish, tmp_path):
    saved = make() if kind == "BitForImageClassification" else getattr(bit_ref, kind)()
    with pytest.raises(TypeError, match="unexpected arguments: tokn"):
        saved.save_pretrained(tmp_path, push_to_hub=publish, tokn="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_leaves(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        make().save_pretrained(tmp_path / "one")
        make().save_pretrained(tmp_path / "shards", max_shard_size=100_000)
        BitImageProcessor().save_pretrained(tmp_path / "one")
    finally:
        os.umask(before)
    files = [file for folder in ("one", "shards") for file in (tmp_path / folder).iterdir()]
    assert len(files) > 6
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {f.name: oct(mode) for f in files}


def test_subfolder(folder):
    assert equal(BitModel.from_pretrained(folder.parent, subfolder="model"), BitModel.from_pretrained(folder))
    BitImageProcessor().save_pretrained(folder)
    for kind in (BitModel, BitConfig, BitImageProcessor):
        kind.from_pretrained(folder, subfolder=None, force_download=None, local_files_only=None)


def test_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for thing in (make(), BitConfig(), BitImageProcessor()):
        with pytest.raises(NotADirectoryError, match="wants a folder"):
            thing.save_pretrained(tmp_path / "file")


def test_other_librarys_config_is_refused():
    with pytest.raises(ValueError, match="wants a BitConfig of bit_ref"):
        BitModel(transformers.BitConfig())
