"""The tables of fields without effect, against the libraries: another value, the same logits, labels and pixels."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from converters.auditing.inspection import inspect_folder, model_fields, processor_fields, timm_fields
from converters.folder.plan import Plan
from converters.folder.stored_weights import open_weights
from converters.mapping.architecture import Architecture
from converters.mapping.storage import Storage
from tests.checkpoints import make_checkpoint
from tests.converters.inspection_cases import unknown
from tests.verify.folders import write_folder

JUNK = [10**13, None, [["x"]]]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    from transformers import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(50)
    logging.disable_progress_bar()
    yield
    logging.set_verbosity(verbosity)
    if bar:
        logging.enable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    tensors = make_checkpoint((1,), 32, 4, seed=3, mids=(32,))
    made = write_folder(tmp_path_factory.mktemp("tables") / "folder", tensors)
    recipe = {"image_processor_type": "BitImageProcessor", "size": {"height": 40, "width": 30}, "do_center_crop": False}
    (made / "preprocessor_config.json").write_text(json.dumps(recipe))
    return made


def read_by_transformers(folder: Path) -> tuple[torch.Tensor, dict, np.ndarray]:
    """Logits, labels and pixels as a user has them."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    pixels = AutoImageProcessor.from_pretrained(folder, local_files_only=True)(image, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**pixels).logits
    return logits, model.config.id2label, pixels["pixel_values"].numpy()


def same(found: tuple, wanted: tuple) -> bool:
    return torch.equal(found[0], wanted[0]) and found[1] == wanted[1] and np.array_equal(found[2], wanted[2])


def with_field(folder: Path, place: Path, file: str, name: str, value: object) -> Path:
    shutil.copytree(folder, place, dirs_exist_ok=True)
    content = json.loads((folder / file).read_text())
    (place / file).write_text(json.dumps({**content, name: value}))
    return place


def test_fields_of_config_json_change_nothing_in_transformers(folder, tmp_path):
    wanted = read_by_transformers(folder)
    different = []
    for name, row in model_fields.MODEL_FIELDS.items():
        for value in (row.sample, JUNK) if row.kind.takes(JUNK) else (row.sample,):
            found = read_by_transformers(with_field(folder, tmp_path, "config.json", name, value))
            different += [] if same(found, wanted) else [name]
    assert different == []
    assert len(model_fields.MODEL_FIELDS) > 60


def test_fields_of_the_preprocessor_change_nothing_in_transformers(folder, tmp_path):
    wanted = read_by_transformers(folder)
    for name, row in processor_fields.PROCESSOR_FIELDS.items():
        place = with_field(folder, tmp_path, "preprocessor_config.json", name, row.sample)
        assert same(read_by_transformers(place), wanted), name
    for name, idle in processor_fields.IDLE.items():
        for value in idle:
            place = with_field(folder, tmp_path, "preprocessor_config.json", name, value)
            assert same(read_by_transformers(place), wanted), (name, value)


def test_idle_values_of_what_transformers_follows_change_nothing(folder, tmp_path):
    wanted = read_by_transformers(folder)
    for name, idle in {**model_fields.REDIRECTS, **model_fields.FOLLOWED}.items():
        for value in idle:
            place = with_field(folder, tmp_path, "config.json", name, value)
            assert same(read_by_transformers(place), wanted), (name, value)


def test_attributes_are_those_of_transformers():
    from transformers import BitConfig, BitImageProcessor

    known = {
        *model_fields.ATTRIBUTES, *model_fields.MODEL_FIELDS, *model_fields.REDIRECTS, *model_fields.FOLLOWED,
        *model_fields.DEFAULTS, "model_type", "architectures", "hidden_sizes", "width_factor", "id2label", "label2id",
        "num_labels", "problem_type", "return_dict", "dtype", "torch_dtype", "out_features", "out_indices",
    }  # fmt: skip
    assert {name for name in dir(BitConfig) if not name.startswith("__")} <= known
    options = {*processor_fields.DEFAULTS, *processor_fields.IDLE, *processor_fields.PROCESSOR_FIELDS}
    names = {name for name in dir(BitImageProcessor()) if not name.startswith("__")}
    assert names - options <= processor_fields.ATTRIBUTES


def test_whatever_transformers_reads_of_a_config_is_in_a_table(folder, monkeypatch):
    """Attributes that are asked for while a model is loaded and run, and that the class has not."""
    from transformers import BitConfig

    asked = set()
    plain = BitConfig.__getattribute__

    def record(config, name):
        asked.add(name)
        return plain(config, name)

    monkeypatch.setattr(BitConfig, "__getattribute__", record)
    read_by_transformers(folder)
    monkeypatch.undo()
    known = {*model_fields.MODEL_FIELDS, *model_fields.REDIRECTS, *model_fields.FOLLOWED, *model_fields.ATTRIBUTES}
    assert {name for name in asked if not name.startswith("__")} - set(dir(BitConfig)) - known <= {"stage_names"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Mapping deprecated model name")
def test_fields_of_timm_change_nothing_in_timm(tmp_path):
    import timm
    from safetensors.torch import save_file

    plain = timm.create_model("resnetv2_50x1_bit", pretrained=False, num_classes=3).eval()
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    recipe = {"num_classes": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "classifier": "head.fc", "first_conv": "stem.conv"}
    noise = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))

    def read(config: dict) -> tuple:
        (tmp_path / "config.json").write_text(json.dumps(config))
        model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        data = timm.data.resolve_data_config(model=model)
        with torch.inference_mode():
            return model(noise), data

    config = {"architecture": "resnetv2_50x1_bit", "num_classes": 3, "pretrained_cfg": recipe}
    logits, data = read(config)
    with torch.inference_mode():
        assert torch.equal(logits, plain(noise))
    outer = {name: row.sample for name, row in timm_fields.TIMM_FIELDS.items()}
    inner = {name: row.sample for name, row in timm_fields.RECIPE_FIELDS.items()}
    others = {"model_args": {name: row.sample for name, row in timm_fields.ARGUMENT_FIELDS.items()}}
    defaults = {"model_args": dict(timm_fields.ARGUMENTS)}
    names = {"architecture": "resnetv2_50x1_bitm_in21k.any_tag"}
    for changed in (outer, {"pretrained_cfg": {**recipe, **inner}}, others, defaults, names):
        found, found_data = read({**config, **changed})
        assert torch.equal(found, logits), changed
        assert found_data == data, changed


def test_older_names_of_architectures_are_timms():
    from timm.models import _registry, is_model

    assert {name for name in _registry._deprecated_models if "_bit" in name} == set(timm_fields.RENAMED)
    for older, name in timm_fields.RENAMED.items():
        assert is_model(older)
        assert _registry._deprecated_models[older].partition(".")[0] == name


def test_fields_of_the_recipe_are_timms():
    from dataclasses import fields

    from timm.models import PretrainedCfg

    taken = {"label_offset", "fixed_input_size", "hf_hub_filename", "num_classes", "test_input_size", "test_crop_pct"}
    assert {field.name for field in fields(PretrainedCfg)} == {
        *timm_fields.RECIPE, *timm_fields.RECIPE_FIELDS, *timm_fields.PARTS, *taken,
    }  # fmt: skip
    assert {field.name: field.default for field in fields(PretrainedCfg) if field.name in timm_fields.RECIPE} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in timm_fields.RECIPE.items()
    }


def test_nothing_that_transformers_saves_is_unknown(folder, tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
    model.save_pretrained(tmp_path / "again", max_shard_size="20KB")
    AutoImageProcessor.from_pretrained(folder, local_files_only=True).save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_text(json.dumps(model.config.to_dict() | {"pool_padding": "zeros"}))
    plan = Plan("tiny", Architecture((1,), 32, (32,), 4), None, Storage())
    with closing(open_weights(tmp_path / "again")) as weights:
        inspection = inspect_folder(tmp_path / "again", plan, weights)
    assert unknown(inspection) == []
    wrong = {each.place for each in inspection.unmet}
    assert wrong <= {"preprocessor_config.json image_mean", "preprocessor_config.json image_std"}  # CLIP's, by default


@pytest.mark.slow
def test_nothing_that_timm_saves_is_unknown(tmp_path):
    import timm
    from timm.models import save_for_hf

    model = timm.create_model("resnetv2_50x1_bit.goog_in21k", pretrained=False, num_classes=3)
    save_for_hf(model, tmp_path / "saved", model_config={"label_names": ["a", "b", "c"]}, safe_serialization="both")
    plan = Plan("timm", Architecture.released("R50x1", 3), None, Storage("timm"))
    with closing(open_weights(tmp_path / "saved")) as weights:
        inspection = inspect_folder(tmp_path / "saved", plan, weights)
    assert [str(each) for each in inspection.unmet] == []
    assert unknown(inspection) == []
