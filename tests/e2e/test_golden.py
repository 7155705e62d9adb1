"""Google's own logits: an npz in the released layout, the command line, each library's from_pretrained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForImageClassification

from bit_ref import BitForImageClassification
from converters.cli.commands import convert
from tests.checkpoints import LARGE, TINY, Golden

ROWS = [*TINY, *(pytest.param(golden, marks=pytest.mark.slow) for golden in LARGE)]
FACTOR = 4
"""Times Google's own float32 error."""


def error(library, folder, golden: Golden) -> float:
    model = library.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(golden.images())).logits
    return float(np.abs(logits.double().numpy() - golden.logits()).max())


@pytest.mark.parametrize("golden", ROWS, ids=str)
def test_logits_are_googles(golden: Golden, tmp_path) -> None:
    """bit_ref with either exactness, stock transformers with ``logits``; the large rows without the verification."""
    np.savez(tmp_path / "checkpoint.npz", **golden.checkpoint())
    limit = FACTOR * golden.google_f32_error()
    for exact, libraries in (
        ("bits", [BitForImageClassification]),
        ("logits", [BitForImageClassification, AutoModelForImageClassification]),
    ):
        arguments = ["--checkpoint", tmp_path / "checkpoint.npz", "--output", tmp_path / exact, "--exact", exact]
        verification = [] if golden in TINY else ["--no-verify"]
        result = CliRunner().invoke(convert, [*map(str, arguments), *verification])
        assert result.exit_code == 0, result.output
        for library in libraries:
            assert error(library, tmp_path / exact, golden) <= limit, (exact, library.__module__)
        (tmp_path / exact / "model.safetensors").unlink()


@pytest.mark.slow
def test_stock_transformers_is_not_google_on_the_sources_kernels(tmp_path) -> None:
    """What ``bits`` warns of, so that the row above means something: off by far more than the limit."""
    golden = TINY[2]
    np.savez(tmp_path / "checkpoint.npz", **golden.checkpoint())
    result = CliRunner().invoke(
        convert, ["--checkpoint", str(tmp_path / "checkpoint.npz"), "--output", str(tmp_path / "m")]
    )
    assert result.exit_code == 0, result.output
    assert error(AutoModelForImageClassification, tmp_path / "m", golden) > 100 * FACTOR * golden.google_f32_error()


@pytest.mark.slow
def test_released_size_is_verified_whole(tmp_path) -> None:
    """R50x1 as a user converts it: verified in the declared reader of either exactness."""
    golden = LARGE[0]
    np.savez(tmp_path / "checkpoint.npz", **golden.checkpoint())
    for exact in ("bits", "logits"):
        result = CliRunner().invoke(
            convert,
            ["--checkpoint", str(tmp_path / "checkpoint.npz"), "--output", str(tmp_path / exact), "--exact", exact],
        )
        assert result.exit_code == 0, result.output
        assert "153 of 153 used, 153 of 153 filled" in result.stdout
