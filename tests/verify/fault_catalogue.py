"""Faults that ports have had or could have, as data: what is done to an honest port, and what an audit must name.

Names and axes are Google's (kernels are HWIO); ``fault_places`` of the test turns a tensor's name into the parameter's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tensors = dict[str, np.ndarray]

ROOT = "resnet/root_block/standardized_conv2d/kernel"
UNIT, NEXT = "resnet/block2/unit01/", "resnet/block2/unit02/"
FIRST = "resnet/block1/unit01/"
A, B, C = (UNIT + part + "/standardized_conv2d/kernel" for part in "abc")
PROJ = UNIT + "a/proj/standardized_conv2d/kernel"
GAMMA, BETA = "resnet/group_norm/gamma", "resnet/group_norm/beta"
HEAD, BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"


@dataclass(frozen=True, eq=False)
class Planted:
    """One fault. ``kind`` may be several; ``place`` is a tensor, a layer or a field."""

    name: str
    kind: str
    place: str
    store: Callable[[Tensors], Tensors] | None = None
    """What is stored instead of the source's tensors, and computed with."""
    compute: dict[str, Any] = field(default_factory=dict)
    """Knobs of the model that reads the folder; the stored values are right."""
    reads: Callable[[Tensors], Tensors] | None = None
    """What that model computes with instead of the stored values."""
    said: str = ""
    """What the first fault's line must say beside kind and place."""
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)
    file: Callable[[Path], None] | None = None
    """What is done to the finished folder."""
    subtle: bool = False
    """Planted in R50x1 as well."""

    def __str__(self) -> str:
        return self.name


def one(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: np.ascontiguousarray(change(tensors[name]))}


def every(change: Callable[[np.ndarray], np.ndarray], what: str = "kernel") -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: np.ascontiguousarray(change(t)) if n.endswith(what) else t for n, t in tensors.items()}


def swap(a: str, b: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, a: tensors[b], b: tensors[a]}


def last_place(index: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        y.flat[index] = np.nextafter(y.flat[index], np.float32(np.inf))
        return y

    return change


def element(value: Callable[[np.float32], float], index: int = 5) -> Callable[[np.ndarray], np.ndarray]:
    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        y.flat[index] = value(y.flat[index])
        return y

    return change


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def bfloat16(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x.copy()).bfloat16().float().numpy()


def shuffled(axis: int, seed: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x.take(np.random.default_rng(seed).permutation(x.shape[axis]), axis=axis)


def hwio_as_oihw(x: np.ndarray) -> np.ndarray:
    """The values in Google's order, reshaped to PyTorch's shape, and back: what a forgotten transpose leaves."""
    high, wide, into, out = x.shape
    return x.reshape(out, into, high, wide).transpose(2, 3, 1, 0)


def standardized(x: np.ndarray) -> np.ndarray:
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return ((flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-10)).astype(np.float32).reshape(x.shape)


def consistent_permutation(tensors: Tensors) -> Tensors:
    """The channels between a unit's first and second convolution in another order, everywhere: the same function."""
    groups = np.arange(tensors[UNIT + "b/group_norm/gamma"].size).reshape(32, -1)
    order = np.random.default_rng(1).permutation(groups).reshape(-1)
    return {
        **tensors,
        A: np.ascontiguousarray(tensors[A][..., order]),
        UNIT + "b/group_norm/gamma": tensors[UNIT + "b/group_norm/gamma"][order],
        UNIT + "b/group_norm/beta": tensors[UNIT + "b/group_norm/beta"][order],
        B: np.ascontiguousarray(tensors[B][:, :, order]),
    }


def other_checkpoint(tensors: Tensors) -> Tensors:
    rng = np.random.default_rng(77)
    return {n: (t.mean() + t.std() * rng.standard_normal(t.shape)).astype(np.float32) for n, t in tensors.items()}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: t for n, t in tensors.items() if n != name}


def reread(written: str, read: str) -> Callable[[np.ndarray], np.ndarray]:
    """A kernel in Google's axes whose bytes, in the order ``written``, were taken for those of the order ``read``."""

    def change(x: np.ndarray) -> np.ndarray:
        sizes = dict(zip("HWIO", x.shape, strict=True))
        y = x.transpose(["HWIO".index(a) for a in written]).reshape([sizes[a] for a in read])
        return y.transpose([read.index(a) for a in "HWIO"])

    return change


def swaps(*pairs: tuple[str, str]) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        places = dict(pairs) | {b: a for a, b in pairs}
        return {name: tensors[places.get(name, name)] for name in tensors}

    return change


def affine(a: str, b: str) -> list[tuple[str, str]]:
    """The two affine parameters of two norms."""
    return [(f"{a}group_norm/{part}", f"{b}group_norm/{part}") for part in ("gamma", "beta")]


def standardize(axes=(1, 2, 3), correction: int = 0, epsilon: float = 1e-10) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(kernel: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(kernel, dim=axes, keepdim=True, correction=correction)
        return (kernel - mean) / torch.sqrt(variance + epsilon)

    return change


def unbiased_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    groups = x.reshape(x.shape[0], 32, -1)
    variance, mean = torch.var_mean(groups, dim=2, keepdim=True, correction=1)
    y = ((groups - mean) / torch.sqrt(variance + 1e-5)).reshape(x.shape)
    return y * scale[:, None, None] + bias[:, None, None]


def root_mean_square_norm(x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    groups = x.reshape(x.shape[0], 32, -1)
    y = (groups / torch.sqrt((groups**2).mean(dim=2, keepdim=True) + 1e-5)).reshape(x.shape)
    return y * scale[:, None, None] + bias[:, None, None]


def median(x: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(2)
    return flat.quantile(0.5, dim=2)[:, :, None, None]


def edit_json(file: str, change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return edit


def truncate(share: float) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return cut


def flip_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x10
    path.write_bytes(data)


def stale_report(folder: Path) -> None:
    files = {"model.safetensors": "00" * 32}
    (folder / "parity.json").write_text(json.dumps({"passed": True, "files": files}))


def swap_labels(config: dict) -> None:
    config["id2label"]["3"], config["id2label"]["5"] = config["id2label"]["5"], config["id2label"]["3"]
    config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}


def shift_labels(config: dict) -> None:
    names = [config["id2label"][str(i)] for i in range(10)]
    config["id2label"] = {str(i): names[i - 1] for i in range(10)}
    config["label2id"] = {names[i - 1]: i for i in range(10)}


def wrong_inverse(config: dict) -> None:
    a, b, *_ = config["label2id"]
    config["label2id"][a], config["label2id"][b] = config["label2id"][b], config["label2id"][a]


STORED = [
    Planted("one last place of the stem", "changed values", ROOT, one(ROOT, last_place(7)), subtle=True),
    Planted("one last place of a kernel", "changed values", C, one(C, last_place(100)), subtle=True),
    Planted("one last place of a gamma", "changed values", GAMMA, one(GAMMA, last_place(3))),
    Planted("one last place of the head", "changed values", HEAD, one(HEAD, last_place(40)), subtle=True),
    Planted("one last place of the bias", "changed values", BIAS, one(BIAS, last_place(9))),
    Planted("sign of one value", "changed values", B, one(B, element(lambda v: -v))),
    Planted("one value zeroed", "changed values", A, one(A, element(lambda v: 0.0))),
    Planted("one value doubled", "changed values", BETA, one(BETA, element(lambda v: 2 * v))),
    Planted("one NaN", "not a number", PROJ, one(PROJ, element(lambda v: np.nan))),
    Planted("one Inf", "not a number", HEAD, one(HEAD, element(lambda v: np.inf))),
    Planted("mirrored kernel", "mirrored kernel", B, one(B, lambda x: x[::-1, ::-1])),
    Planted("mirrored kernel, height", "mirrored kernel", B, one(B, lambda x: x[::-1])),
    Planted("mirrored kernel, width", "mirrored kernel", B, one(B, lambda x: x[:, ::-1])),
    Planted("mirrored stem", "mirrored kernel", ROOT, one(ROOT, lambda x: x[::-1, ::-1])),
    Planted("spatial transpose", "transposed kernel", B, one(B, lambda x: x.swapaxes(0, 1))),
    Planted("spatial transpose of the stem", "transposed kernel", ROOT, one(ROOT, lambda x: x.swapaxes(0, 1))),
    Planted("channels transposed", "transposed kernel", B, one(B, lambda x: x.swapaxes(2, 3))),
    Planted("all axes transposed", "transposed kernel", B, one(B, lambda x: x.transpose(1, 0, 3, 2))),
    Planted("all 3×3 mirrored", "mirrored kernel", FIRST + "b/standardized_conv2d/kernel",
            every(lambda x: x[::-1, ::-1], "b/standardized_conv2d/kernel")),
    Planted("reshaped, not transposed", "reshaped tensor", B, one(B, hwio_as_oihw)),
    Planted("stem reshaped, not transposed", "reshaped tensor", ROOT, one(ROOT, hwio_as_oihw)),
    Planted("head reshaped, not transposed", "reshaped tensor", HEAD,
            one(HEAD, lambda x: x.reshape(x.shape[3], x.shape[2]).T[None, None])),
    Planted("stem in BGR", "permuted channels", ROOT, one(ROOT, lambda x: x[:, :, ::-1])),
    Planted("inputs of a kernel permuted", "permuted channels", C, one(C, shuffled(2))),
    Planted("outputs of a kernel permuted", "permuted channels", C, one(C, shuffled(3))),
    Planted("inputs and outputs permuted", "permuted channels", B, one(B, lambda x: shuffled(3)(shuffled(2)(x)))),
    Planted("channels shifted", "permuted channels", A, one(A, lambda x: np.roll(x, 1, 3))),
    Planted("gammas permuted", "permuted channels", GAMMA, one(GAMMA, shuffled(0))),
    Planted("betas reversed", "permuted channels", BETA, one(BETA, lambda x: x[::-1])),
    Planted("channels permuted consistently", "permuted channels", A, consistent_permutation, subtle=True),
    Planted("betas of a unit swapped", "swapped tensors", UNIT + "b/group_norm/beta",
            swap(UNIT + "b/group_norm/beta", UNIT + "c/group_norm/beta"), subtle=True),
    Planted("gamma and beta swapped", "swapped tensors", UNIT + "a/group_norm/gamma",
            swap(UNIT + "a/group_norm/gamma", UNIT + "a/group_norm/beta")),
    Planted("kernels of two units swapped", "swapped tensors", B, swap(B, NEXT + "b/standardized_conv2d/kernel")),
    Planted("a unit twice", "swapped tensors", NEXT + "b/standardized_conv2d/kernel",
            lambda t: {**t, NEXT + "b/standardized_conv2d/kernel": t[B]}),
    Planted("final norm of another", "swapped tensors", GAMMA,
            lambda t: {**t, GAMMA: t[NEXT + "a/group_norm/gamma"]}),
    Planted("float16 of one kernel", "reduced precision", C, one(C, half), subtle=True),
    Planted("bfloat16 of one kernel", "reduced precision", C, one(C, bfloat16)),
    Planted("float16 of one beta", "reduced precision", BETA, one(BETA, half)),
    Planted("float16 of the head", "reduced precision", HEAD, one(HEAD, half)),
    Planted("bfloat16 of everything", "reduced precision", ROOT, every(bfloat16, "")),
    Planted("nine bits of a kernel", "reduced precision", B,
            one(B, lambda x: (x.view(np.uint32) & np.uint32(0xFFFFC000)).view(np.float32))),
    Planted("kernels ten times as large", "scaled values", ROOT, every(lambda x: x * np.float32(10))),
    Planted("one kernel a tenth", "scaled values", C, one(C, lambda x: x * np.float32(0.1))),
    Planted("one kernel negated", "scaled values", C, one(C, lambda x: -x)),
    Planted("stem by 255", "scaled values", ROOT, one(ROOT, lambda x: x / np.float32(255))),
    Planted("one gamma by 1.01", "scaled values", GAMMA, one(GAMMA, lambda x: x * np.float32(1.01))),
    Planted("bias dropped", "dropped values", BIAS, one(BIAS, np.zeros_like)),
    Planted("beta dropped", "dropped values", UNIT + "c/group_norm/beta",
            one(UNIT + "c/group_norm/beta", np.zeros_like)),
    Planted("gamma never loaded", "constant values", GAMMA, one(GAMMA, np.ones_like)),
    Planted("kernel stored standardised", "standardised kernel", B, one(B, standardized)),
    Planted("all kernels stored standardised", "standardised kernel", ROOT,
            every(standardized, "standardized_conv2d/kernel")),
    Planted("kernel of a fresh layer", "other values", B,
            one(B, lambda x: np.random.default_rng(5).normal(0, x.std(), x.shape).astype(np.float32))),
    Planted("another checkpoint", "other checkpoint", "every tensor", other_checkpoint),
    Planted("classes of the head permuted", "permuted labels", HEAD, one(HEAD, shuffled(3))),
    Planted("classes of the head shifted", "shifted labels", HEAD, one(HEAD, lambda x: np.roll(x, 1, 3))),
    Planted("bias shifted", "shifted labels", BIAS, one(BIAS, lambda x: np.roll(x, -1))),
    Planted("bias permuted", "permuted labels", BIAS, one(BIAS, shuffled(0))),
    Planted("bytes of a 1×1 kernel in another shape", "reshaped tensor", C, one(C, reread("HWIO", "OIHW")),
            said="the same bytes in another shape"),
    Planted("bytes of a 3×3 kernel in another shape", "reshaped tensor", B, one(B, reread("OHWI", "HWIO"))),
    Planted("affine parameters of two units swapped", "swapped tensors", UNIT + "b/group_norm/gamma",
            swaps(*affine(UNIT + "b/", NEXT + "b/")), said="affine parameters"),
    Planted("affine parameters swapped within a unit", "swapped tensors", UNIT + "b/group_norm/gamma",
            swaps(*affine(UNIT + "b/", UNIT + "c/")), said="affine parameters"),
    Planted("kernel stored with the unbiased variance 1", "standardised kernel", B,
            one(B, lambda x: standardized(x) * np.float32(np.sqrt(1 - 1 / x[..., 0].size))), said="unbiased"),
    Planted("kernel stored centred", "standardised kernel", B, one(B, lambda x: x - x.mean(axis=(0, 1, 2)))),
    Planted("a norm folded into its kernel", "scaled values", C,
            one(C, lambda x: x * np.linspace(0.5, 2, x.shape[2], dtype=np.float32)[:, None])),
    Planted("gammas less 1", "shifted values", GAMMA, one(GAMMA, lambda x: x - np.float32(1))),
    Planted("betas shifted", "shifted values", BETA, one(BETA, lambda x: x + np.float32(0.3))),
    Planted("absolute values", "other function", B, one(B, np.abs)),
    Planted("a kernel clipped", "other function", B, one(B, lambda x: x.clip(-0.002, 0.0015))),
    Planted("a kernel pruned", "dropped values", B, one(B, lambda x: np.where(np.abs(x) < x.std(), 0, x))),
    Planted("a kernel in 8 bits", "reduced precision", B,
            one(B, lambda x: np.round(x * (127 / np.abs(x).max())) * (np.abs(x).max() / np.float32(127)))),
    Planted("bytes of each value reversed", "byte order", HEAD, one(HEAD, lambda x: x.byteswap())),
    Planted("some channels of another kernel", "changed values", C,
            one(C, lambda x: np.concatenate([shuffled(2)(x[..., :9]) * np.float32(2), x[..., 9:]], axis=3))),
    Planted("head halved", "scaled values", HEAD, one(HEAD, lambda x: x / np.float32(2))),
    Planted("features of the head permuted", "permuted channels", HEAD, one(HEAD, shuffled(2))),
    Planted("bias missing", "missing tensor", BIAS, without(BIAS)),
    Planted("a tensor too many", "unexpected tensor", "extra", lambda t: {**t, "extra": np.zeros(3, np.float32)}),
]  # fmt: skip

COMPUTED = [
    Planted("standardisation epsilon 1e-8", "standardisation epsilon", "root", compute={"epsilon": 1e-8}, subtle=True),
    Planted("standardisation epsilon 1e-5", "standardisation epsilon", "root", compute={"epsilon": 1e-5}),
    Planted("norm epsilon 1e-6", "norm epsilon", "block1/unit01", compute={"norm_epsilon": 1e-6}, subtle=True),
    Planted("norm epsilon 1e-3", "norm epsilon", "block1/unit01", compute={"norm_epsilon": 1e-3}),
    Planted("16 groups", "group count", "block1/unit01", compute={"groups": 16}),
    Planted("8 groups", "group count", "block1/unit01", compute={"groups": 8}),
    Planted("max-pool in −inf", "max-pool padding", "root", compute={"pool_padding": -np.inf}),
    Planted("stride on the first convolution", "stride", "block2/unit01", compute={"stride_on": "a"}),
    *(
        Planted(name, "activation", "block1/unit01", compute={"activation": function}, said=said)
        for name, function, said in (
            ("leaky ReLU", lambda x: F.leaky_relu(x, 0.01), "leaky ReLU with the slope 0.01"),
            ("leaky ReLU of 0.03", lambda x: F.leaky_relu(x, 0.03), "leaky ReLU with the slope 0.03"),
            ("GELU", F.gelu, "GELU by the error function"),
            ("GELU by tanh", lambda x: F.gelu(x, approximate="tanh"), "GELU by tanh"),
            ("SiLU", F.silu, "SiLU"),
            ("ELU", F.elu, "ELU"),
            ("Mish", F.mish, "Mish"),
            ("hard swish", F.hardswish, "hard swish"),
            ("softplus", F.softplus, "softplus"),
            ("no activation", lambda x: x.clone(), "no ReLU"),
        )
    ),
    Planted(
        "leaky ReLU after one norm",
        "activation",
        UNIT + "b/group_norm",
        compute={"activation": lambda x: F.leaky_relu(x, 0.1), "only": UNIT + "b/"},
    ),
    Planted(
        "unbiased variance of kernels",
        "no standardisation",
        "root",
        compute={"standardize": standardize(correction=1)},
        said="unbiased variance",
    ),
    Planted(
        "unbiased variance of group norms",
        "group norm",
        "block1/unit01",
        compute={"normalize": unbiased_norm},
        said="unbiased variance",
        subtle=True,
    ),
    Planted(
        "unbiased variance of one group norm",
        "group norm",
        UNIT + "c/group_norm",
        compute={"normalize": unbiased_norm, "only": UNIT + "c/"},
        said="unbiased variance",
    ),
    Planted("root mean square norm", "group norm", "block1/unit01", compute={"normalize": root_mean_square_norm}),
    Planted("2 groups", "group count", "block1/unit01", compute={"groups": 2}),
    Planted("no kernel standardised", "no standardisation", "root", compute={"standardize": torch.clone}),
    Planted(
        "one kernel not standardised",
        "no standardisation",
        B,
        compute={"standardize": torch.clone, "only": UNIT + "b/"},
        said="as they are stored",
        subtle=True,
    ),
    Planted(
        "kernels standardised over their inputs",
        "no standardisation",
        "root",
        compute={"standardize": standardize(axes=(1,))},
        said="over the inputs alone",
    ),
    Planted(
        "standardisation epsilon 3e-7",
        "standardisation epsilon",
        "root",
        compute={"epsilon": 3e-7},
        said="3e-07 instead of 1e-10",
    ),
    Planted("norm epsilon 2e-5", "norm epsilon", "block1/unit01", compute={"norm_epsilon": 2e-5}, said="2e-05"),
    Planted(
        "max instead of mean pooling",
        "pooling",
        "features",
        compute={"pooling": lambda x: x.amax(dim=(2, 3), keepdim=True)},
        said="max instead of mean pooling",
    ),
    Planted("median instead of mean pooling", "pooling", "features", compute={"pooling": median}, said="median"),
    Planted(
        "stem averaged",
        "pooling",
        "root",
        compute={"stem_pooling": lambda x: F.avg_pool2d(x, 3, 2, padding=1)},
        said="averaged",
    ),
    Planted("stem pooled over 2 × 2", "pooling", "root", compute={"stem_pooling": lambda x: F.max_pool2d(x, 2)}),
    Planted("softmax in the head", "activation", "logits", compute={"finish": lambda z: z.softmax(1)}, said="softmax"),
    Planted("scaled logits", "scaled values", "logits", compute={"finish": lambda z: z / 1.7}, said="scaled logits"),
    Planted("shifted logits", "shifted values", "logits", compute={"finish": lambda z: z + 0.3}, said="shifted logits"),
    Planted("logits in float16", "reduced precision", "logits", compute={"finish": lambda z: z.half().float()}),
    Planted(
        "head computed in float16", "reduced precision", "logits", reads=one(HEAD, half), said="head rounded to float16"
    ),
    Planted(
        "head computed in bfloat16",
        "reduced precision",
        "logits",
        reads=lambda t: {**t, HEAD: bfloat16(t[HEAD]), BIAS: bfloat16(t[BIAS])},
        said="head rounded to bfloat16",
    ),
    Planted("head read in another shape", "reshaped tensor", "logits", reads=one(HEAD, reread("HWIO", "OIHW"))),
    Planted(
        "kernel read in another shape",
        "reshaped tensor",
        B,
        reads=one(B, reread("HWIO", "OIHW")),
        said="the same bytes in another shape",
    ),
    Planted(
        "every 3×3 kernel read mirrored",
        "mirrored kernel",
        "resnet/root_block",
        reads=every(lambda x: x[::-1, ::-1].copy()),
    ),
    Planted(
        "affine parameters read from another unit",
        "swapped tensors",
        UNIT + "b/group_norm",
        reads=swaps(*affine(UNIT + "b/", NEXT + "b/")),
        said="affine parameters swapped",
    ),
    Planted(
        "affine parameters read within a unit",
        "swapped tensors",
        UNIT + "b/group_norm",
        reads=swaps(*affine(UNIT + "b/", UNIT + "c/")),
        said="affine parameters swapped",
    ),
    Planted(
        "gamma read from another unit",
        "swapped tensors",
        UNIT + "b/group_norm/gamma",
        reads=swap(UNIT + "b/group_norm/gamma", NEXT + "b/group_norm/gamma"),
    ),
    Planted("ReLU after the addition", "activation", "block1/unit01", compute={"relu_after_add": True}),
]

CONFIGURED = [
    Planted("16 groups declared", "configuration", "config.json num_groups", config={"num_groups": 16}),
    Planted("epsilon 1e-5 declared", "configuration", "config.json weight_standardization_eps",
            config={"weight_standardization_eps": 1e-5}),
    Planted("epsilon 1e-8 declared", "configuration", "config.json weight_standardization_eps",
            config={"weight_standardization_eps": 1e-8}),
    Planted("−inf declared", "configuration", "config.json pool_padding", config={"pool_padding": "-inf"}),
    Planted("SAME padding", "configuration", "config.json global_padding", config={"global_padding": "same"}),
    Planted("another activation", "configuration", "config.json hidden_act", config={"hidden_act": "gelu"}),
    Planted("output stride 16", "configuration", "config.json output_stride", config={"output_stride": 4}),
    Planted("width factor 2", "configuration", "config.json hidden_sizes", config={"width_factor": 2}),
    Planted("another problem type", "configuration", "config.json problem_type",
            config={"problem_type": "multi_label_classification"}),
    Planted("two labels exchanged", "configuration", "config.json id2label",
            file=edit_json("config.json", swap_labels)),
    Planted("labels shifted by one", "configuration", "config.json id2label",
            file=edit_json("config.json", shift_labels)),
    Planted("label2id of other classes", "configuration", "config.json label2id",
            file=edit_json("config.json", wrong_inverse)),
    Planted("ImageNet's mean", "configuration", "preprocessor_config.json image_mean",
            preprocessor={"image_mean": [0.485, 0.456, 0.406]}),
    Planted("ImageNet's std", "configuration", "preprocessor_config.json image_std",
            preprocessor={"image_std": [0.229, 0.224, 0.225]}),
    Planted("bicubic", "configuration", "preprocessor_config.json resample", preprocessor={"resample": 3}),
    Planted("short side instead of a square", "configuration", "preprocessor_config.json size",
            preprocessor={"size": {"shortest_edge": 32}}),
    Planted("another size", "configuration", "preprocessor_config.json size",
            preprocessor={"size": {"height": 48, "width": 48}}),
    Planted("a crop", "configuration", "preprocessor_config.json do_center_crop",
            preprocessor={"do_center_crop": True, "crop_size": {"height": 28, "width": 28}}),
    Planted("not rescaled", "configuration", "preprocessor_config.json do_rescale",
            preprocessor={"do_rescale": False}),
    Planted("not normalised", "configuration", "preprocessor_config.json do_normalize",
            preprocessor={"do_normalize": False}),
]  # fmt: skip

FILES = [
    Planted("weights cut short", "unreadable", "model.safetensors", file=truncate(0.9)),
    Planted("weights cut to their header", "unreadable", "model.safetensors", file=truncate(0.001)),
    Planted("weights empty", "unreadable", "model.safetensors", file=truncate(0)),
    Planted("one bit flipped", "changed values", "", file=flip_bit),
    Planted("stale report", "stale report", "parity.json sha256 of", file=stale_report),
    Planted(
        "config is no JSON", "unreadable", "config.json", file=lambda folder: (folder / "config.json").write_text("{")
    ),
]

CATALOGUE = [*STORED, *COMPUTED, *CONFIGURED, *FILES]
