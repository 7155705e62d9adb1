"""Benchmarks of a GPU, as far as they can be run without one."""

import importlib
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def benchmark_named(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in ("audit", "common", "evaluate", "gpu"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("seconds_each", "left_out"),
    [(10, []), (25, ["tf32, batch 256"]), (40, ["bfloat16, batch 1", "tf32, batch 1", "tf32, batch 256"])],
)
def test_what_is_compiled_ends_before_the_deadline_and_the_rest_is_named(
    monkeypatch, benchmark_named, seconds_each, left_out
):
    gpu = benchmark_named("gpu")
    now = [0.0]

    def compiled(precision, batch, device):
        now[0] += seconds_each * (1 if batch == 1 else 2)
        return {(precision, batch, "compiled"): {}}

    monkeypatch.setattr(gpu, "compiled", compiled)
    monkeypatch.setattr(gpu, "find_spec", lambda name: name)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: now[0]))
    times, missing = gpu.in_time(100, "cuda")
    assert missing == left_out
    assert len(times) + len(missing) == len(gpu.COMPILED)
    assert now[0] <= 100


def test_an_audit_that_ends_with_an_error_costs_no_other_row(monkeypatch, benchmark_named, capsys):
    gpu = benchmark_named("gpu")

    def run(code, *arguments):
        if code is gpu.VERIFY:
            sys.exit("no memory is left on the GPU")

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(gpu, "apart", lambda *_: None)
    assert gpu.audit() == 1
    assert "no memory is left on the GPU" in capsys.readouterr().out


def test_an_evaluation_and_the_forward_passes_beside_it_are_of_one_device(monkeypatch, benchmark_named, tmp_path):
    evaluate = benchmark_named("evaluate")
    devices = []

    class Evaluation:
        listing = SimpleNamespace(images=[])

        def __init__(self, target, dataset, device="cpu"):
            devices.append(device)

        def run(self, progress):
            return SimpleNamespace(same=0)

        def _recipes(self, reader):
            return None, None

    def oracle(source, float32_runs, device="cpu"):
        devices.append(device)

    monkeypatch.setattr(evaluate, "open_checkpoint", lambda path: nullcontext())
    monkeypatch.setattr(evaluate, "opened", lambda *_: nullcontext(SimpleNamespace(readers=[None])))
    monkeypatch.setattr(evaluate, "Evaluation", Evaluation)
    monkeypatch.setattr(evaluate, "ImageWorkers", MagicMock())
    monkeypatch.setattr(evaluate, "NumpyOracle", oracle)
    evaluate.evaluate(tmp_path, "cuda")
    evaluate.forward_seconds(tmp_path, "cuda", with_oracle=True)
    assert devices == ["cuda"] * 3
