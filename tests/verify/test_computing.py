"""Folders run in other precisions than float32, and on a GPU: each by limits of its own."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from converters.cli.commands import convert, verify
from tests.checkpoints import make_checkpoint
from tests.command_line import audited, refused, run
from tests.processes import python
from tests.verify.support import MemorySource, TorchModel, target_of
from verify import AuditSettings, audit, default_images
from verify.precision import UNITS, Computing
from verify.readers import BitRefReader
from verify.tf32 import products

HALVES = ["float16", "bfloat16"]
HAS_GPU = torch.cuda.is_available()
ON_GPU = pytest.mark.skipif(not HAS_GPU, reason="PyTorch finds no GPU here")
COMPUTED = [("float16", "cpu"), ("bfloat16", "cpu")] + [
    pytest.param(precision, "cuda", marks=ON_GPU) for precision in UNITS
]


def converted(place, layout, units=(2, 1), mids=(64, 128)):
    """A place with ``source.npz`` and ``model``."""
    np.savez(place / "source.npz", **make_checkpoint(units, 64, 100, seed=5, kernel_std=1e-2, mids=mids))
    arguments = ("--checkpoint", place / "source.npz", "--output", place / "model", "--layout", layout)
    assert run(*arguments, "--no-verify", "--quiet", command=convert).exit_code == 0
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("transformers"), "transformers")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("original"), "original")


@pytest.mark.parametrize("layout", ["folder", "original"])
@pytest.mark.parametrize(("precision", "device"), COMPUTED)
def test_honest_folders_pass_and_say_what_they_were_run_in(request, tmp_path, layout, precision, device):
    place = request.getfixturevalue(layout)
    options = ("--compute", precision, "--device", device, "--runner", "bit_ref")
    report = audited(place / "model", place / "source.npz", tmp_path / "report", *options)
    reader = report["readers"][0]
    assert (report["verdict"], reader["name"]) == ("passed", f"bit_ref{Computing(precision, device)}"), report["reason"]
    assert report["oracle"] == ("NumPy float64" if device == "cpu" else "PyTorch float64 on cuda")
    assert run("--check", tmp_path / "report/parity.json", command=verify).exit_code == 0


def test_threads_do_not_compute_by_each_others_settings():
    """They are the process's; each thread finds its own, and the process has its own again in the end."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32

    def found(allowed: bool) -> set[bool]:
        seen = set()
        for _ in range(100):
            with products(allowed):
                time.sleep(0)
                seen.add(matmul.allow_tf32)
        return seen

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(found, [True, False])) == [{True}, {False}]
    assert matmul.allow_tf32 == before


@pytest.mark.slow
@pytest.mark.parametrize("precision", HALVES)
def test_a_half_precision_is_not_taken_for_float32(tmp_path, precision):
    """What limits of its own are for: by float32's, an honest run in half precision fails. Of few layers, since for
    each that fails a fault is looked for."""
    folder = converted(tmp_path, "transformers", units=(1,), mids=(32,))

    class Claiming(BitRefReader):
        unit = UNITS["float32"]

    source = MemorySource(dict(np.load(folder / "source.npz")))
    target = target_of(source, None, Claiming(folder / "model", computing=Computing(precision)))
    report = audit(target, source, AuditSettings(images=default_images(33)))
    assert (report.verdict, report.readers[0].exceeds_limit_at) == ("failed", "root")


@pytest.mark.slow
@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("seed", range(5))
def test_honest_networks_are_within_the_limits_of_their_precision(tmp_path, precision, seed):
    random = np.random.default_rng(seed)
    units = tuple(int(n) for n in random.integers(1, 4, random.integers(1, 4)))
    mids = tuple(int(n) * 32 for n in random.integers(1, 4, len(units)))
    tensors = make_checkpoint(units, 32, int(random.integers(1, 300)), seed=seed, kernel_std=1e-2, mids=mids)
    np.savez(tmp_path / "source.npz", **tensors)
    arguments = ("--checkpoint", tmp_path / "source.npz", "--output", tmp_path / "model", "--no-verify", "--quiet")
    assert run(*arguments).exit_code == 0
    options = ("--compute", precision, "--runner", "bit_ref")
    report = audited(tmp_path / "model", tmp_path / "source.npz", tmp_path / "report", *options)
    assert report["verdict"] == "passed", report["reason"]


@pytest.mark.parametrize("unit", [UNITS[precision] for precision in HALVES])
@pytest.mark.parametrize("fault", [{"groups": 16}, {"stride_on": "a"}, {"relu_after_add": True}], ids=str)
def test_faults_of_the_arithmetic_are_beyond_the_limits_of_half_precisions(unit, fault):
    source = MemorySource(make_checkpoint((1, 2), 64, 10, seed=3, kernel_std=1e-2, mids=(64, 64)))
    report = audit(target_of(source, None, TorchModel(source.tensors, unit=unit, **fault)), source)
    assert report.verdict == "failed"


@pytest.mark.parametrize("options", [("--compute", "tf32"), ("--device", "cuda")], ids=str)
def test_what_this_machine_cannot_compute_is_wrong_usage(folder, tmp_path, options):
    if "cuda" in options and HAS_GPU:
        pytest.skip("PyTorch finds a GPU here")
    arguments = (folder / "model", "--against", folder / "source.npz", "--report", tmp_path / "report", *options)
    assert f"{options[0]} {options[1]}" in refused(2, *arguments, command=verify)
    assert not (tmp_path / "report").exists()


SETTINGS = """
import sys, torch
from verify.oracles.numpy.arrays import TorchArrays
from verify.precision import Computing

def precisions():
    return [part.fp32_precision for part in (torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn.conv)]

exec(f"torch.backends.{sys.argv[1]}")
before = precisions()
for precision in ("float32", "tf32", "bfloat16"):
    with Computing(precision, "cuda").applied():
        assert torch.backends.cudnn.enabled is (precision != "float32")
        assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is (precision == "tf32")
        if precision == "tf32":
            assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        with TorchArrays("cpu").exactly():
            assert torch.backends.cuda.matmul.fp32_precision != "tf32"
    assert (precisions()[::2], torch.backends.cudnn.enabled) == (before[::2], True)
    assert (precisions()[1] == "tf32") is (before[1] == "tf32")
"""


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="PyTorch has the older one alone")
@pytest.mark.parametrize(
    "setting",
    [
        "cuda.matmul.allow_tf32 = True",
        "cuda.matmul.fp32_precision = 'tf32'",
        "cudnn.conv.fp32_precision = 'ieee'",
        "fp32_precision = 'tf32'",
    ],
)
def test_either_of_pytorchs_settings_of_tf32_may_have_been_used_before(setting):
    ended = python(SETTINGS, setting)
    assert ended.returncode == 0, ended.stderr


def test_the_usual_is_said_in_no_name(folder, tmp_path):
    report = audited(folder / "model", folder / "source.npz", tmp_path / "report", "--runner", "bit_ref")
    assert (report["verdict"], report["readers"][0]["name"]) == ("passed", "bit_ref")
