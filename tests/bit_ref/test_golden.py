"""bit_ref gives what Google's own code gives, with either exactness, and only with the right arithmetic."""

import numpy as np
import pytest
import torch

from bit_ref import BitForImageClassification
from tests.bit_ref.support import model_of
from tests.checkpoints import LARGE, TINY
from tests.verify.folders import write_folder

R50 = [row for row in LARGE if str(row).startswith("R50x1")]
"""Larger networks are in tests/e2e/test_golden.py, with either exactness, too."""
BITS = {"weight_standardization_eps": 1e-10}
ANSWERS = [pytest.param(1, BITS, id="bits"), pytest.param(10, {}, id="logits")]


def error(model, row) -> float:
    with torch.inference_mode():
        logits = model(torch.from_numpy(row.images())).logits
    assert logits.dtype == torch.float32
    return float(np.abs(logits.double().numpy() - row.logits()).max())


@pytest.mark.parametrize(("factor", "options"), ANSWERS)
@pytest.mark.parametrize("row", TINY + [pytest.param(row, marks=pytest.mark.slow) for row in R50], ids=str)
def test_logits_are_googles(row, factor, options):
    assert error(model_of(row.checkpoint(), factor, **options), row) <= 4 * row.google_f32_error()


@pytest.mark.parametrize("factor", [1, 10])
@pytest.mark.parametrize("row", TINY, ids=str)
def test_logits_of_a_folder_are_googles(row, factor, tmp_path):
    model = BitForImageClassification.from_pretrained(write_folder(tmp_path, row.checkpoint(), factor))
    assert error(model, row) <= 4 * row.google_f32_error()


@pytest.mark.parametrize("options", [{}, {**BITS, "pool_padding": "-inf"}, {**BITS, "global_padding": "same"}])
def test_other_arithmetic_is_far_off(options):
    row = TINY[2]
    assert error(model_of(row.checkpoint(), **options), row) > 100 * row.google_f32_error()


def test_channels_last_is_no_less_exact():
    """PyTorch's own GroupNorm is wrong by 0.7 here (standard deviation 1)."""
    norm = model_of(TINY[0].checkpoint()).bit.norm
    values = 1000 + torch.randn(2, norm.num_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, last = norm(values), norm(values.to(memory_format=torch.channels_last))
        exact = norm.double()(values.double())
    assert torch.equal(plain, last)
    torch.testing.assert_close(plain.double(), exact, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_half_precision_standardizes_in_single():
    """Float16 holds neither epsilon nor the kernels' variance: logits would be NaN, not a few percent off."""
    row = TINY[2]
    with torch.inference_mode():
        logits = model_of(row.checkpoint(), **BITS).half()(torch.from_numpy(row.images()).half()).logits
    assert logits.dtype == torch.float16
    np.testing.assert_allclose(logits.double().numpy(), row.logits(), atol=0.05 * np.abs(row.logits()).max())
