"""Honest conversions are never refused: random networks the whole way, and what stock libraries save of ours."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.auditing.target import Folder, own_readers
from converters.cli.commands import convert, verify
from converters.folder.plan import Plan
from converters.mapping.storage import Storage
from converters.writers import model
from tests.checkpoints import make_checkpoint
from tests.verify.support import OpenedSource
from verify import AuditSettings, Report, audit, default_images
from verify.compare import FACTOR


@st.composite
def networks(draw):
    units = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    widths = [draw(st.sampled_from([32, 64, 96])) for _ in range(len(units) + 1)]
    return {
        "units": units,
        "width": widths[0],
        "mids": tuple(widths[1:]),
        "classes": draw(st.sampled_from([None, 1, 2, 7, 100, 1000])),
        "kernel_std": draw(st.sampled_from([1e-4, 1e-3, 1e-2, 1e-1])),
        "seed": draw(st.integers(0, 2**16)),
    }


def converted_report(network: dict, size: tuple[int, int], exact: str, padding: str, dtype: str, layout: str) -> Report:
    """A network written as a folder and audited, all with the code that conversions run."""
    source = OpenedSource(make_checkpoint(**network))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan.of(source, None, Storage(layout, exact, dtype), padding)
        model.write(folder, source, plan, lambda *_: None)
        with Folder(folder, source, lambda folder: own_readers(folder)[:1], pool_padding=padding) as target:
            assert (target.dtype, target.layout) == (dtype, layout)
            return audit(
                target,
                source,
                AuditSettings(
                    judged_by=target.judged_by,
                    images=default_images(*size, seed=network["seed"]),
                    pool_padding=padding,
                ),
            )


def honest_conversions(examples: int):
    def decorate(test):
        test = given(
            network=networks(),
            size=st.tuples(st.integers(33, 72), st.integers(33, 72)),
            exactness=st.sampled_from([("bits", "zeros"), ("logits", "zeros"), ("bits", "-inf")]),
            dtype=st.sampled_from(["float32", "float32", "float16", "bfloat16"]),
            layout=st.sampled_from(["transformers", "transformers", "original"]),
        )(test)
        return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(test)

    return decorate


@pytest.mark.slow
@honest_conversions(15)
def test_honest_conversions_pass(network, size, exactness, dtype, layout):
    report = converted_report(network, size, *exactness, dtype, layout)
    assert report, report.reason
    assert report.ratio < FACTOR
    assert report.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))  # for four processes; benchmarks/tolerance.py runs thousands
@honest_conversions(25)
def test_a_hundred_honest_conversions_pass(quarter, network, size, exactness, dtype, layout):
    report = converted_report(network, size, *exactness, dtype, layout)
    assert report, report.reason
    assert report.faults == ()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "tiny.npz"
    np.savez(path, **make_checkpoint((1, 1), 32, 3, seed=5, kernel_std=1e-3, mids=(32, 64)))
    return path


@pytest.mark.parametrize("exact", ["bits", "logits"])
@pytest.mark.parametrize("shard", [None, "40KB"])
def test_what_stock_transformers_saves_of_ours_passes(checkpoint, tmp_path, exact, shard):
    from transformers import AutoModelForImageClassification

    ours, saved = tmp_path / "ours", tmp_path / "saved"
    command = ["--checkpoint", str(checkpoint), "--output", str(ours), "--exact", exact]
    assert CliRunner().invoke(convert, command).exit_code == 0
    options = {"max_shard_size": shard} if shard else {}
    AutoModelForImageClassification.from_pretrained(ours).save_pretrained(saved, **options)
    shutil.copy(ours / "preprocessor_config.json", saved)
    result = CliRunner().invoke(
        verify, [str(saved), "--against", str(checkpoint), "--report", str(tmp_path / "parity"), "--json"]
    )
    assert result.exit_code == 0, result.output
    report = Report.from_json(result.stdout)
    assert report.passed
    assert ("model.safetensors.index.json" in report.files) == bool(shard)
    assert report.tensors.bit_exact == 25
    assert sum(name.endswith(".safetensors") for name in report.files) > (1 if shard else 0)


def test_a_shard_that_is_not_there_is_named(checkpoint, tmp_path):
    from transformers import AutoModelForImageClassification

    ours, saved = tmp_path / "ours", tmp_path / "saved"
    assert CliRunner().invoke(convert, ["--checkpoint", str(checkpoint), "--output", str(ours)]).exit_code == 0
    AutoModelForImageClassification.from_pretrained(ours).save_pretrained(saved, max_shard_size="40KB")
    shards = sorted(saved.glob("*.safetensors"))
    shards[0].unlink()
    result = CliRunner().invoke(verify, [str(saved), "--against", str(checkpoint), "--report", str(tmp_path / "p")])
    assert result.exit_code == 3
    assert shards[0].name in result.stderr
    index = saved / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(shards[1].name, "../" + shards[1].name))
    result = CliRunner().invoke(verify, [str(saved), "--against", str(checkpoint), "--report", str(tmp_path / "p")])
    assert result.exit_code == 3
    assert "no file beside it" in result.stderr
