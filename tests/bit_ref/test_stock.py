"""One call gives a stock model the epsilon of its folder, and its logits are Google's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bit_ref import BitConfig, BitForImageClassification, use_config_epsilon
from converters.cli.commands import convert
from tests.bit_ref.support import SMALL, model_of
from tests.checkpoints import LARGE, TINY

R50 = [row for row in LARGE if str(row).startswith("R50x1")]
"""The shapes of released networks that are quick to run; timm knows no others than released ones."""
ROWS = TINY + [pytest.param(row, marks=pytest.mark.slow) for row in R50]


def folder_of(row, path: Path, *options: str) -> Path:
    np.savez(path / "checkpoint.npz", **row.checkpoint())
    arguments = ["--checkpoint", path / "checkpoint.npz", "--output", path / "m", "--no-verify", *options]
    result = CliRunner().invoke(convert, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return path / "m"


def error(model, row) -> float:
    with torch.inference_mode():
        output = model.eval()(torch.from_numpy(row.images()))
    return float(np.abs(getattr(output, "logits", output).double().numpy() - row.logits()).max())


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_stock_transformers_is_google(row, tmp_path):
    from transformers import AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(folder_of(row, tmp_path))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert use_config_epsilon(model) is model
    assert error(model, row) <= 4 * row.google_f32_error()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("row", R50, ids=str)
def test_stock_timm_is_google(row, tmp_path):
    import timm

    folder = folder_of(row, tmp_path, "--layout", "timm")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert error(use_config_epsilon(model, folder), row) <= 4 * row.google_f32_error()


def test_without_the_call_it_is_not(tmp_path):
    from transformers import AutoModelForImageClassification

    folder, row = folder_of(TINY[2], tmp_path), TINY[2]
    assert error(AutoModelForImageClassification.from_pretrained(folder), row) > 100 * row.google_f32_error()


def test_what_was_saved_computes_the_same_when_it_is_loaded(tmp_path):
    """transformers keeps the declaration in config.json, so one more call suffices."""
    from transformers import AutoModelForImageClassification

    row = TINY[1]
    model = use_config_epsilon(AutoModelForImageClassification.from_pretrained(folder_of(row, tmp_path)))
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    assert error(use_config_epsilon(loaded), row) <= 4 * row.google_f32_error()


def test_models_of_bit_ref_follow_their_config_already():
    model = model_of(TINY[0].checkpoint(), weight_standardization_eps=1e-10)
    assert use_config_epsilon(model) is model
    assert isinstance(model, BitForImageClassification)


class StockLike(torch.nn.Module):
    """As stock models are: an epsilon in each convolution."""

    def __init__(self, **config):
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)
        self.convolution.eps = 1e-8
        if config:
            self.config = BitConfigOfElsewhere(config)


class BitConfigOfElsewhere:
    def __init__(self, fields):
        self.fields = fields

    def to_dict(self):
        return self.fields


def test_the_folder_says_it_where_the_model_has_no_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"weight_standardization_eps": 1e-10}))
    assert use_config_epsilon(StockLike(), tmp_path).convolution.eps == 1e-10
    assert use_config_epsilon(StockLike(weight_standardization_eps=1e-9)).convolution.eps == 1e-9
    assert use_config_epsilon(StockLike(weight_standardization_eps=1e-9), tmp_path).convolution.eps == 1e-10


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (StockLike(), None, "The config of this StockLike declares no weight_standardization_eps; give its folder"),
        (StockLike(), {"model_type": "bit"}, "config.json of .* declares no weight_standardization_eps$"),
        (StockLike(), {"weight_standardization_eps": 1e-10, "pool_padding": "-inf"}, "-inf, which no stock library"),
        (StockLike(), {"weight_standardization_eps": "1e-10"}, "='1e-10' is negative, infinite, or no number"),
        (StockLike(), {"weight_standardization_eps": float("nan")}, "nan is negative, infinite, or no number"),
        (torch.nn.Conv2d(3, 8, 3), {"weight_standardization_eps": 1e-10}, "Conv2d has no weight-standardised"),
    ],
)
def test_what_cannot_be_made_exact_is_said(model, config, message, tmp_path):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        use_config_epsilon(model, None if config is None else tmp_path)


def test_a_folder_without_config_is_said(tmp_path):
    with pytest.raises(OSError, match=r"has no config\.json"):
        use_config_epsilon(StockLike(), tmp_path)


@pytest.fixture
def trained_by_transformers(tmp_path):
    """A folder that declares Google's epsilon, loaded, perhaps trained, and saved by stock transformers."""
    import transformers

    config = BitConfig(**SMALL, weight_standardization_eps=1e-10, exact="bits")
    BitForImageClassification(config).save_pretrained(tmp_path / "first")
    transformers.BitForImageClassification.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    return tmp_path


def test_folder_that_transformers_saved_is_doubted_once(trained_by_transformers, caplog):
    load = BitForImageClassification.from_pretrained
    folder = trained_by_transformers / "second"
    load(trained_by_transformers / "first")
    assert caplog.text == ""
    for _ in range(2):
        assert load(folder).config.weight_standardization_eps == 1e-10
    (record,) = caplog.records
    for epsilon in (1e-08, 1e-10):
        line = f"from_pretrained(…, weight_standardization_eps={epsilon})"
        assert line in record.getMessage()


@pytest.mark.parametrize("epsilon", [1e-8, 1e-10])
def test_given_epsilon_settles_the_doubt(epsilon, trained_by_transformers, caplog):
    load = BitForImageClassification.from_pretrained
    model = load(trained_by_transformers / "second", weight_standardization_eps=epsilon)
    assert model.bit.embedder.convolution.epsilon == epsilon
    model.save_pretrained(trained_by_transformers / "third")
    assert load(trained_by_transformers / "third").config.weight_standardization_eps == epsilon
    assert caplog.text == ""
