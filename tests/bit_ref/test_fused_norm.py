"""GroupNorm and ReLU in Triton: its kernels in Triton's interpreter, compiled for GPUs that need not be there, and run
on one where there is one."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from bit_ref import BitConfig, BitForImageClassification, fused_norm
from tests.bit_ref.support import SMALL, images, randomize
from tests.processes import ROOT, python

HAS_TRITON = importlib.util.find_spec("triton") is not None
WITH_TRITON = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")

UNITS = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-7}
"""Half a unit in the last place; the interpreter cuts bfloat16 off, so that it is a whole one."""
SHAPES = [(2, 64, 7, 5), (1, 96, 9, 16), (3, 64, 1, 1), (1, 2048, 2, 1)]
CASES = [
    (shape, dtype, mean, whole)
    for shape in SHAPES
    for dtype in UNITS
    for mean in (0.0, 1000.0)
    for whole in (True, False)
    if dtype == "float32" or shape == SHAPES[0]
]

INTERPRETED = """
import sys
import numpy as np, torch
from torch import nn
from bit_ref import fused_norm_kernels as kernels
with np.load(sys.argv[1]) as stored:
    given = dict(stored)
results = {}
for key in sorted({name.split("/")[0] for name in given}):
    _, dtype, whole = key.split()
    x, scale, offset = (torch.from_numpy(given[f"{key}/{part}"]).to(getattr(torch, dtype)) for part in "xso")
    norm = nn.GroupNorm(32, x.shape[1]).to(x.dtype)
    norm.weight.data, norm.bias.data = scale, offset
    kernels.WHOLE = 8192 if whole == "whole" else 0
    with torch.no_grad():
        y = kernels.group_norm_relu(x, norm)
    assert y.dtype == x.dtype and y.shape == x.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    results[key] = y.double().numpy()
np.savez(sys.argv[2], **results)
"""


def key_of(number, dtype, whole):
    return f"{number} {dtype} {'whole' if whole else 'parts'}"


def drawn(number):
    """x, scale and offset of a case, in values that its data type holds."""
    shape, dtype, mean, _ = CASES[number]
    random = np.random.default_rng(number // 2)  # the same for both kernels
    x = mean + random.standard_normal(shape)
    scale, offset = random.standard_normal((2, shape[1]))
    if number == 0:
        x[1, 3, 2, 2] = np.nan
    return [torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy() for values in (x, scale, offset)]


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What the kernels give for every case, in one process that imports Triton with its interpreter."""
    place = tmp_path_factory.mktemp("interpreted")
    given = {
        f"{key_of(number, case[1], case[3])}/{part}": values
        for number, case in enumerate(CASES)
        for part, values in zip("xso", drawn(number), strict=True)
    }
    np.savez(place / "given.npz", **given)
    command = [sys.executable, "-c", INTERPRETED, place / "given.npz", place / "found.npz"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    return dict(np.load(place / "found.npz"))


def truth(x, scale, offset, groups=32):
    """In float64: the result, and what one rounding of a value before the scale amounts to."""
    x, scale, offset = (np.asarray(values, np.float64) for values in (x, scale, offset))
    grouped = x.reshape(len(x), groups, -1)
    mean, deviation = grouped.mean(2, keepdims=True), np.sqrt(grouped.var(2, keepdims=True) + 1e-5)
    normal = ((grouped - mean) / deviation).reshape(x.shape)
    reach = ((np.abs(grouped) + np.abs(mean)) / deviation).reshape(x.shape) * np.abs(scale[:, None, None])
    return normal * scale[:, None, None] + offset[:, None, None], reach


@WITH_TRITON
@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: " ".join(map(str, CASES[number])))
def test_kernels_are_float64_within_rounding(interpreted, number):
    _, dtype, _, whole = CASES[number]
    x, scale, offset = drawn(number)
    expected, reach = truth(x, scale, offset)
    found = interpreted[key_of(number, dtype, whole)]
    broken = np.isnan(expected)
    assert (np.isnan(found) == broken).all()
    expected = np.maximum(expected[~broken], 0)
    limit = UNITS[dtype] * expected + 4 * UNITS["float32"] * (reach[~broken] + expected + np.abs(offset).max())
    assert (np.abs(found[~broken] - expected) <= limit).all()


COMPILED = """
import sys
from triton import compile as compiled
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bit_ref import fused_norm_kernels as kernels

POINTERS = ("x", "y", "scale", "offset", "found", "statistics")
def check(kernel, constants, dtype, capability, values=2048):
    names = list(kernel.arg_names)
    types = {name: dtype for name in POINTERS} | {"found": "*fp32", "statistics": "*fp32", "epsilon": "fp32"}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    even = (*POINTERS, "channels")
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in even}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": kernels._warps(values)}
    made = compiled(source, target=GPUTarget("cuda", capability, 32), options=options).asm
    assert made["cubin"]
    return "ld.global.v4" in made["ptx"]

for dtype, capability in (("*bf16", 90), ("*fp32", 80)):
    assert check(kernels._part, {}, dtype, capability)
    assert check(kernels._normalised, {}, dtype, capability)
    assert check(kernels._whole, {"GROUP": 32, "PIXELS": 64}, dtype, capability, 32 * 64)
    check(kernels._combined, {"PARTS": 4, "LANES": 8}, dtype, capability, 4 * 8)
    check(kernels._combined, {"PARTS": 64, "LANES": 64}, dtype, capability, 64 * 64)
"""


@WITH_TRITON
@pytest.mark.slow
def test_kernels_compile_for_gpus_and_load_sixteen_bytes_at_once(tmp_path):
    ended = python(COMPILED, environment={**os.environ, "TRITON_CACHE_DIR": str(tmp_path)})
    assert ended.returncode == 0, ended.stderr


def test_without_a_gpu_it_is_pytorchs():
    with torch.no_grad():
        assert fused_norm.group_norm_relu(nn.GroupNorm(32, 64).eval(), torch.randn(1, 64, 2, 2)) is None


def test_weights_that_are_not_values_in_a_row_are_pytorchs(monkeypatch):
    monkeypatch.setattr(fused_norm, "_is_recent", lambda device: True)
    norm, x = nn.GroupNorm(32, 64).eval().requires_grad_(False), torch.randn(1, 64, 2, 2)
    assert fused_norm._fits(norm, x)
    for name in ("weight", "bias"):
        values = getattr(norm, name)
        setattr(norm, name, nn.Parameter(torch.randn(64, 2)[:, 0], requires_grad=False))
        assert not fused_norm._fits(norm, x)
        setattr(norm, name, values)


BENCHMARK = (
    "import runpy, sys; sys.path.insert(0, 'benchmarks'); runpy.run_path('benchmarks/gpu.py', run_name='__main__')"
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="takes three minutes of a GPU")
def test_the_benchmark_says_that_it_needs_a_gpu():
    ended = python(BENCHMARK)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "no GPU here" in ended.stderr


# -- on a GPU


@pytest.fixture
def kernels():
    """Triton's, where it can be used in this process."""
    if fused_norm._kernels() is None:
        pytest.skip("Triton is not installed, or TensorFlow was imported before it, which would end this process")
    return fused_norm._kernels()


@pytest.fixture
def model(monkeypatch, kernels):
    """Computed without TF32, which PyTorch has convolutions use by itself, and whose rounding is what tests allow."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = BitForImageClassification(BitConfig(**SMALL)).eval()
    randomize(model)
    return model.cuda()


@pytest.fixture
def launched(monkeypatch, kernels):
    """The maps that Triton was given."""
    shapes = []
    original = kernels.group_norm_relu
    monkeypatch.setattr(kernels, "group_norm_relu", lambda x, norm: shapes.append(x.shape) or original(x, norm))
    return shapes


@ON_GPU
@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize(
    "shape", [(2, 64, 56, 56), (1, 256, 56, 56), (64, 256, 14, 14), (3, 2048, 7, 7), (2, 96, 9, 9)]
)
def test_on_a_gpu_it_is_float64_within_rounding(launched, dtype, shape):
    generator = torch.Generator().manual_seed(0)
    x = (5 + torch.randn(shape, generator=generator)).to(getattr(torch, dtype))
    norm = nn.GroupNorm(32, shape[1]).to(x.dtype).eval()
    nn.init.normal_(norm.weight, generator=generator)
    expected, reach = truth(*(tensor.detach().double().numpy() for tensor in (x, norm.weight, norm.bias)))
    with torch.no_grad():
        found = fused_norm.group_norm_relu(norm.cuda(), x.cuda())
    assert len(launched) == 1
    limit = UNITS[dtype] * np.abs(expected) + 4 * UNITS["float32"] * (reach + 1)
    assert (np.abs(found.double().cpu().numpy() - np.maximum(expected, 0)) <= limit).all()


@ON_GPU
def test_a_gpus_logits_are_the_cpus(model, launched):
    pixels = images().float()
    with torch.inference_mode():
        expected = model.cpu().double()(images()).logits
        found = model.float().cuda()(pixels.cuda()).logits
        again = model(pixels.cuda()).logits
    assert len(launched) == 2 * 10
    assert torch.equal(found, again)
    torch.testing.assert_close(found.cpu().double(), expected, rtol=1e-3, atol=1e-3)


@ON_GPU
def test_gradients_never_pass_through_it(model, launched):
    pixels = images().float().cuda().requires_grad_()
    model(pixels).logits.sum().backward()
    model.requires_grad_(False)
    model(pixels).logits.sum().backward()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        model(pixels)
    torch.func.jvp(lambda x: model(x).logits, (pixels.detach(),), (pixels.detach(),))
    torch.compile(model, backend="eager")(pixels.detach())
    torch.compiler.reset()
    assert not launched


@ON_GPU
@pytest.mark.slow
def test_a_cuda_graph_follows_the_weights(model):
    compiled = torch.compile(model, mode="reduce-overhead")
    pixels = images().float().cuda()
    with torch.no_grad():
        for seed in (1, 2, 2):
            randomize(model, seed)
            for _ in range(3):
                found = compiled(pixels).logits.clone()
            torch.testing.assert_close(found, model(pixels).logits, rtol=1e-3, atol=1e-3)
    torch.compiler.reset()
