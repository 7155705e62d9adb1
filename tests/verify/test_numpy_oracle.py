"""The NumPy oracle against Google's own logits, TensorFlow's operations, and the laws of its float32 runs."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController
from torch.utils._python_dispatch import TorchDispatchMode

from tests.checkpoints import LARGE, TINY, make_checkpoint, make_input
from tests.verify.support import MemorySource, TorchModel, target_of
from verify import AuditSettings, audit
from verify.oracles.numpy import Arithmetic, NumpyOracle, convolution
from verify.oracles.numpy.arrays import TorchArrays
from verify.oracles.numpy.convolution import Operand
from verify.oracles.numpy.threads import one_thread
from verify.protocols import OracleError

ON_PYTORCH = [
    "torch:cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")),
]


def shuffled(tensors: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The same function with the channels of each axis in another order that keeps the 32 groups together."""
    rng = np.random.default_rng(seed)
    orders: dict[str, np.ndarray] = {}

    def order(axis: str, channels: int) -> np.ndarray:
        if axis not in orders:
            groups = np.arange(channels).reshape(32, -1)[rng.permutation(32)]
            orders[axis] = rng.permuted(groups, axis=1).reshape(-1)
        return orders[axis]

    result, stream = {}, ""
    for name, tensor in tensors.items():
        into, out = stream, ""
        if name.startswith("resnet/root"):
            out = stream = "root"
        elif name.startswith("resnet/block"):
            _, block, unit, part, what, *_ = name.split("/")
            into = {"a": stream, "b": unit + block + "a", "c": unit + block + "b"}[part]
            out = block if part == "c" or what == "proj" else unit + block + part
            stream = block if part == "c" and tensor.ndim == 4 else stream
        if tensor.ndim == 4 and into:
            tensor = tensor[:, :, order(into, tensor.shape[2])]
        if tensor.ndim == 4 and out:
            tensor = tensor[..., order(out, tensor.shape[3])]
        if name.endswith(("gamma", "beta")):
            tensor = tensor[order(into, len(tensor))]
        result[name] = tensor
    return result


@pytest.mark.parametrize("golden", TINY, ids=str)
def test_equals_googles_logits(golden):
    outputs = NumpyOracle(MemorySource(golden.checkpoint())).forward(golden.images())
    assert outputs["logits"].dtype == np.float64
    assert np.abs(outputs["logits"] - golden.logits()).max() <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("golden", LARGE, ids=str)
def test_equals_googles_logits_of_released_sizes(golden):
    outputs = NumpyOracle(MemorySource(golden.checkpoint())).forward(golden.images())
    assert np.abs(outputs["logits"] - golden.logits()).max() <= 1e-10


def test_wide_epsilon_would_show():
    """The golden row of small kernels tells the epsilons apart, so that agreement with it means something."""
    golden = TINY[2]
    wrong = TorchModel(golden.checkpoint(), epsilon=1e-8).run(golden.images())["logits"]
    assert np.abs(wrong - golden.logits()).max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (31, 64), (65, 33), (7, 130)])
@pytest.mark.parametrize("padding", ["zeros", "-inf"])
def test_any_size_and_both_paddings(size, padding):
    tensors = make_checkpoint((1, 2), 32, 3, mids=(32, 64))
    images = make_input(1, *size)
    with np.errstate(all="ignore"):
        oracle = NumpyOracle(MemorySource(tensors), pool_padding=padding)
        ours = {layer.name: layer.truth for layer in oracle.layers([images])}
    theirs = TorchModel(tensors, pool_padding=-np.inf if padding == "-inf" else 0.0).run(images)
    assert list(ours) == ["root", "block1/unit01", "block2/unit01", "block2/unit02", "norm", "features"]
    assert oracle.layer_names == list(ours)
    for name, values in ours.items():
        # With one pixel a group is a pair of values, and rounding is all that some of its variances are.
        tolerance = 2e-5 if min(size) > 3 else 2e-2
        np.testing.assert_allclose(theirs[name][0].reshape(values.shape), values, atol=tolerance * np.abs(values).max())


@pytest.mark.parametrize(
    ("units", "width", "mids", "classes"),
    [((1,), 32, (32,), 1), ((2, 1, 1), 96, (32, 64, 96), None), ((1, 1, 1, 1, 1), 64, (32, 32, 64, 32, 32), 5)],
)
def test_order_of_channels_changes_the_rounding_only(units, width, mids, classes):
    tensors = make_checkpoint(units, width, classes, mids=mids)
    images = make_input(2, 49, 40)
    plain = NumpyOracle(MemorySource(tensors)).forward(images)
    other = NumpyOracle(MemorySource(shuffled(tensors, 1))).forward(images)
    if classes is None:
        assert set(plain) == {"features"}
        np.testing.assert_allclose(np.sort(other["features"]), np.sort(plain["features"]), atol=1e-12)
    else:
        np.testing.assert_allclose(other["logits"], plain["logits"], atol=1e-12)
        assert (other["logits"] != plain["logits"]).any()


def test_float32_runs_round_differently_and_agree():
    tensors = make_checkpoint((2, 1), 64, 7)
    oracle = NumpyOracle(MemorySource(tensors))
    images = [make_input(1, 64, 64, seed=seed) for seed in (1, 2)]
    for layer in oracle.layers(images):
        assert len(layer.runs) == 4
        assert all(run.dtype == np.float32 and run.shape == layer.truth.shape for run in layer.runs)
        distances = [np.linalg.norm(run - layer.truth) / np.linalg.norm(layer.truth) for run in layer.runs]
        assert min(distances) > 1e-8
        assert max(distances) < 1e-5
        different = {run.tobytes() for run in layer.runs}
        assert len(different) == 4, layer.name
    blocks = list(oracle.head_blocks())
    assert np.concatenate([block.truth for block in blocks], axis=1).shape == (2, 7)
    assert all(block.runs.shape == (4, 2, 7) for block in blocks)


def test_a_kernel_in_tiles_and_threads_gives_the_same(monkeypatch):
    tensors = make_checkpoint((1, 1), 64, None, mids=(64, 96))
    images = [make_input(1, 64, 64), make_input(1, 33, 40)]
    whole = list(NumpyOracle(MemorySource(tensors)).layers(images))
    monkeypatch.setattr(convolution, "TILE_VALUES", 1 << 10)
    monkeypatch.setattr(convolution, "PARALLEL_VALUES", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    source = MemorySource(tensors)
    for one, other in zip(whole, NumpyOracle(source, reads_ahead=True).layers(images), strict=True):
        size = np.abs(one.truth).max()
        np.testing.assert_allclose(other.truth, one.truth, rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(other.runs, one.runs, rtol=0, atol=1e-5 * size)
    assert sorted(source.reads) == sorted(tensors)


def test_audits_that_overlap_leave_blas_its_threads():
    libraries = ThreadpoolController()

    def numbers() -> set[int]:
        return {library["num_threads"] for library in libraries.info() if library["user_api"] == "blas"}

    with libraries.limit(limits=2, user_api="blas"):
        assert numbers() == {2}
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert numbers() == {1}
        second.__exit__(None, None, None)
        assert numbers() == {2}


def test_large_windows_are_made_in_pieces(monkeypatch):
    tensors = make_checkpoint((1,), 64, 3)
    images = make_input(2, 64, 64)
    whole = NumpyOracle(MemorySource(tensors)).forward(images)["logits"]
    monkeypatch.setattr(convolution, "BLOCK_BYTES", 1 << 16)
    pieces = NumpyOracle(MemorySource(tensors)).forward(images)["logits"]
    np.testing.assert_allclose(pieces, whole, rtol=1e-12)


def test_constants_beside_give_what_they_give_alone():
    tensors = make_checkpoint((1, 1), 32, 3, mids=(32, 64), kernel_std=1e-3)
    images = [make_input(1, 40, 40)]
    other = Arithmetic(standardization_epsilon=1e-8, norm_epsilon=1e-3, pool_padding="-inf")
    alone = NumpyOracle(MemorySource(tensors), arithmetic=other, float32_runs=1).layers(images)
    for (_, beside), layer in zip(NumpyOracle(MemorySource(tensors), beside=[other]).walk(images), alone, strict=True):
        np.testing.assert_array_equal(beside.truth, layer.truth)
        np.testing.assert_array_equal(beside.runs, layer.runs)


def test_what_is_read_ahead_and_fails_is_said_of_its_tensor():
    class Broken(MemorySource):
        def read(self, name):
            if name == "resnet/block1/unit01/c/standardized_conv2d/kernel":
                raise OSError(f"{name} is cut short")
            return super().read(name)

    oracle = NumpyOracle(Broken(make_checkpoint((1,), 32, 3)), reads_ahead=True)
    layers = oracle.layers([make_input(1, 32, 32)])
    assert next(layers).name == "root"
    with pytest.raises(OSError, match="unit01/c/standardized_conv2d/kernel is cut short"):
        next(layers)


@pytest.mark.parametrize("device", ON_PYTORCH)
def test_pytorch_computes_the_same(device):
    tensors = make_checkpoint((2, 1), 64, 7, mids=(64, 96))
    images = [make_input(1, 64, 64), make_input(1, 33, 40), make_input(1, 64, 64, seed=2)]
    ours, theirs = NumpyOracle(MemorySource(tensors)), NumpyOracle(MemorySource(tensors), device=device)
    assert theirs.name == f"PyTorch float64 on {device.removeprefix('torch:')}"
    for one, other in zip(ours.layers(images), theirs.layers(images), strict=True):
        size = np.abs(one.truth).max()
        np.testing.assert_allclose(other.truth, one.truth, rtol=0, atol=1e-12 * size)
        assert {run.dtype for run in other.runs} == {np.dtype(np.float32)}
        np.testing.assert_allclose(other.runs, one.runs, rtol=0, atol=1e-5 * size)
        assert len({run.tobytes() for run in other.runs}) == 4
    for block, same in zip(ours.head_blocks(), theirs.head_blocks(), strict=True):
        np.testing.assert_allclose(same.truth, block.truth, rtol=1e-11)
        np.testing.assert_allclose(same.runs, block.runs, rtol=1e-3)


class Copies(TorchDispatchMode):
    """Counts copies of values into a tensor, each of which a GPU is asked for by itself."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten.copy_.default
        return function(*arguments, **options or {})


@pytest.mark.slow
def test_windows_of_many_images_are_asked_for_at_once():
    """Of 32 images at 480, as an evaluation on a GPU runs them; nothing is computed."""

    class OnMeta(TorchArrays):
        def put(self, values, precision):
            return torch.empty(values.shape, dtype=getattr(torch, precision), device="meta")

    images = [torch.empty(64, 120, 120, device="meta") for _ in range(32)]
    operand = Operand(images, None, "float32", 1e-10)
    with Copies() as copies:
        (outputs,) = convolution.convolve(OnMeta("meta"), np.empty((3, 3, 64, 64), np.float32), [operand], 3, 1)
    assert {tuple(each.shape) for each in outputs} == {(64, 120, 120)}
    assert copies.count <= 2 * (9 + 32)  # windows, and outputs, in two pieces


@pytest.mark.parametrize("device", ON_PYTORCH)
@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ({}, "passed"),
        ({"epsilon": 1e-8}, "failed"),
        ({"norm_epsilon": 1.1e-5}, "failed"),
        ({"groups": 16}, "failed"),
        ({"pool_padding": -np.inf}, "failed"),
        ({"stride_on": "a"}, "failed"),
        ({"relu_after_add": True}, "failed"),
    ],
    ids=str,
)
def test_pytorch_judges_the_same(device, fault, verdict):
    source = MemorySource(make_checkpoint((1, 2), 32, 5, seed=3, kernel_std=1e-2, mids=(32, 64)))
    report = audit(target_of(source, None, TorchModel(source.tensors, **fault)), source, AuditSettings(device=device))
    assert report.verdict == verdict, report.reason
    assert report.oracle == f"PyTorch float64 on {device.removeprefix('torch:')}"


def test_head_is_made_in_blocks():
    tensors = make_checkpoint((1,), 64, 21843)
    oracle = NumpyOracle(MemorySource(tensors), float32_runs=1)
    images = make_input(1, 32, 32)
    features = next(layer for layer in oracle.layers([images]) if layer.name == "features").truth
    blocks = list(oracle.head_blocks())
    assert len(blocks) > 1
    kernel = tensors["resnet/head/conv2d/kernel"][0, 0].astype(np.float64)
    logits = np.concatenate([block.truth for block in blocks], axis=1)[0]
    np.testing.assert_allclose(logits, features @ kernel + tensors["resnet/head/conv2d/bias"], atol=1e-12)


def test_each_tensor_is_read_once_and_dropped():
    """Six times as many units take no more memory."""
    peaks = []
    for units in (2, 12):
        tensors = make_checkpoint((units,), 64, 10)
        source = MemorySource(tensors)
        oracle = NumpyOracle(source)
        tracemalloc.start()
        for _ in oracle.layers([make_input(1, 32, 32)]):
            pass
        list(oracle.head_blocks())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sorted(source.reads) == sorted(tensors)
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("resnet/root_block/standardized_conv2d/kernel", None, "the source has no tensor resnet/root_block"),
        ("resnet/block1/unit01/a/standardized_conv2d/kernel", None, "no tensor resnet/block1/unit01/a"),
        ("resnet/group_norm/gamma", np.ones(3), r"group_norm/gamma has shape \(3,\), not \(128\)"),
        ("resnet/block1/unit01/b/standardized_conv2d/kernel", np.ones((3, 3, 32, 40)), "40 output channels"),
        ("resnet/block1/unit01/c/standardized_conv2d/kernel", np.ones((1, 1, 32, 64)), "does not fit the shortcut"),
        ("resnet/head/conv2d/bias", np.ones(4), r"bias has shape \(4,\), not \(3\)"),
    ],
)
def test_tensors_that_make_no_bit_are_named(name, tensor, message):
    tensors = make_checkpoint((1,), 32, 3)
    tensors[name] = tensor
    if tensor is None:
        del tensors[name]
    with pytest.raises(OracleError, match=message):
        NumpyOracle(MemorySource(tensors)).forward(make_input(1, 32, 32))


def test_stands_on_numpy_alone():
    code = (
        "import sys, verify; assert not {'numpy', 'torch'} & set(sys.modules)\n"
        "import verify.oracles.numpy, verify.auditing\n"
        "roots = {name.split('.')[0] for name in sys.modules}\n"
        "assert 'verify.diagnosis.computed' not in sys.modules\n"
        "print(sorted(roots & {'torch', 'tensorflow', 'transformers', 'bit_ref', 'converters', 'safetensors'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_equals_tensorflow_operations():
    """The same network from TensorFlow's own convolution, moments and pooling, in float64, NHWC."""
    import tensorflow as tf

    golden = TINY[1]
    tensors = {name: tf.constant(tensor, tf.float64) for name, tensor in golden.checkpoint().items()}

    def conv(at, x, stride=1):
        kernel = tensors[at + "standardized_conv2d/kernel"]
        mean, variance = tf.nn.moments(kernel, [0, 1, 2])
        kernel = (kernel - mean) / tf.sqrt(variance + 1e-10)
        pad = kernel.shape[0] // 2
        return tf.nn.conv2d(x, kernel, stride, [[0, 0], [pad, pad], [pad, pad], [0, 0]])

    def norm(at, x):
        shape = tf.shape(x)
        grouped = tf.reshape(x, [shape[0], shape[1], shape[2], 32, -1])
        mean, variance = tf.nn.moments(grouped, [1, 2, 4], keepdims=True)
        normed = tf.reshape((grouped - mean) / tf.sqrt(variance + 1e-5), shape)
        return tf.nn.relu(normed * tensors[at + "group_norm/gamma"] + tensors[at + "group_norm/beta"])

    x = conv("resnet/root_block/", tf.constant(golden.images().transpose(0, 2, 3, 1), tf.float64), 2)
    x = tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")
    for block in range(1, 5):
        at, stride = f"resnet/block{block}/unit01/", 1 if block == 1 else 2
        y = norm(at + "a/", x)
        shortcut = conv(at + "a/proj/", y, stride)
        y = conv(at + "b/", norm(at + "b/", conv(at + "a/", y)), stride)
        x = conv(at + "c/", norm(at + "c/", y)) + shortcut
    features = tf.reduce_mean(norm("resnet/", x), [1, 2])
    logits = features @ tensors["resnet/head/conv2d/kernel"][0, 0] + tensors["resnet/head/conv2d/bias"]
    ours = NumpyOracle(MemorySource(golden.checkpoint())).forward(golden.images())
    assert np.abs(ours["features"] - features.numpy()).max() <= 1e-10
    assert np.abs(ours["logits"] - logits.numpy()).max() <= 1e-10
