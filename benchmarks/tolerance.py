"""How far honest readers are from the oracle, in floors of float32: the study behind FACTOR of verify/compare.py.

    python benchmarks/tolerance.py --networks 2000 [--results tolerance.jsonl]
    python benchmarks/tolerance.py --networks 0        (the tables alone, of what is in the file)
    python benchmarks/tolerance.py --faults 30         (faults of graded strength: what each factor finds)
    python benchmarks/tolerance.py --faults 8 --sizes 33 48 64 96 224    (the same, on images of each size)

Network i is drawn from seed i: shape, values, images. It is written as the folders that a user would have, run by every
reader of READERS, and held against the oracle by the rules of parity. Its figures are one line of the file, so that a
study that was stopped goes on where it stopped; a chunk of networks is a process of its own, in one of BUILDS, which
make NumPy's OpenBLAS and PyTorch's oneDNN and MKL compute with other instructions, in another order. One process at a
time, some 0.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table

Array = np.ndarray
Tensors = dict[str, Array]
Outputs = Sequence[Mapping[str, Array]]

CHUNK = 280
"""Networks of one process."""
REGISTERED = 200
"""One network in so many is R50x1, a shape that timm registers."""
KNOWN = (1.5, 2.0, 2.5, 3.0, 4.0)
"""Factors that the tables count alarms for."""

OPENBLAS = "OPENBLAS_CORETYPE"
TORCH = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
AVX2, SSE = ("avx2", "AVX2", "AVX2"), ("default", "SSE41", "SSE4_2")
BUILDS: dict[str, dict[str, str]] = {
    "both native": {},
    "both AVX2": {OPENBLAS: "Haswell", **dict(zip(TORCH, AVX2, strict=True))},
    "both SSE": {OPENBLAS: "Nehalem", **dict(zip(TORCH, SSE, strict=True))},
    "OpenBLAS native, PyTorch SSE": dict(zip(TORCH, SSE, strict=True)),
    "OpenBLAS SSE, PyTorch native": {OPENBLAS: "Nehalem"},
}
"""Environments of a process."""


# Networks


@dataclass(frozen=True)
class Network:
    """What one seed gives."""

    seed: int
    tensors: Tensors
    images: list[Array]
    padding: str
    registered: bool
    text: str

    @property
    def path(self) -> str:
        return f"network-{self.seed}"

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Array:
        return self.tensors[name].copy()


def draw(seed: int) -> Network:
    """Shapes and values wider than those that training leaves: kernels of any scale, off centre, with heavy tails; dead
    channels; noise of two amplitudes and a smooth image, whose channels have a mean."""
    from converters.mapping.architecture import Architecture

    random = np.random.default_rng(seed)
    registered = seed % REGISTERED == REGISTERED - 1
    classes = int(random.choice([0, 1, 2, 3, 7, 10, 100, 1000])) or None
    units = tuple(int(n) for n in random.choice([1, 1, 2, 3], random.integers(1, 4)))
    widths = tuple(int(w) for w in random.choice([32, 32, 32, 64], len(units)))
    if registered:
        architecture = Architecture.released("R50x1", classes)
    else:
        architecture = Architecture(units, int(random.choice([32, 64])), widths, classes)
    height, width = (int(n) for n in random.integers(33, 98 if random.random() < 0.1 else 49, 2))
    tensors, style = _values(architecture, random)
    noise = random.standard_normal((1, 3, height, width), dtype=np.float32)
    images = [noise, noise * np.float32(1e-3), _smooth(height, width, random)]
    padding = "zeros" if registered or random.random() < 0.7 else "-inf"
    return Network(seed, tensors, images, padding, registered, f"{architecture}; {height} × {width}; {style}")


def _values(architecture: Any, random: np.random.Generator) -> tuple[Tensors, str]:
    from converters.mapping.names import GOOGLE, TensorKind, parameters

    spread, each = 10 ** random.uniform(-5, np.log10(0.3)), bool(random.random() < 0.5)
    centre, tails, trained = random.random() < 0.3, random.random() < 0.3, random.random() < 0.5
    tensors = {}
    for parameter in parameters(architecture):
        noise = random.standard_normal(parameter.shape, dtype=np.float32)
        if parameter.kind is TensorKind.KERNEL:
            std = spread * (10 ** random.uniform(-0.5, 0.5) if each else 1)
            values = noise * std if not tails else random.standard_t(4, parameter.shape) * std
            values = values + (random.normal(0, std) if centre else 0)
        elif parameter.kind is TensorKind.SCALE:
            values = np.abs(noise) * random.uniform(0.2, 2) if trained else 1 + 0.2 * noise
            values = values * (random.random(parameter.shape) > 0.1) if trained else values
        elif parameter.kind is TensorKind.HEAD_KERNEL:
            values = noise * 0.02
        else:
            values = noise * (0.5 if trained else 0.1) - (0.3 if trained else 0)
        tensors[parameter.names[GOOGLE]] = values.astype(np.float32)
    style = f"kernels {spread:.1e}{' each' if each else ''}{' off centre' if centre else ''}{' tails' if tails else ''}"
    return tensors, style + (", norms as trained" if trained else "")


def _smooth(height: int, width: int, random: np.random.Generator) -> Array:
    """Few waves, between -1 and 1, as a photograph is: neighbours are alike, and colours have a mean."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = []
    for _ in range(3):
        waves = [
            random.normal()
            * np.cos(2 * np.pi * (random.uniform(0, 4) * y + random.uniform(0, 4) * x) + random.normal())
            for _ in range(6)
        ]
        plane = np.sum(waves, axis=0)
        planes.append(np.clip(plane / 3 + random.uniform(-0.5, 0.5), -1, 1))
    return np.asarray(planes, np.float32)[None]


# Readers

Around = Callable[[Any], Any]
"""A reader → the context that it runs in."""


@contextmanager
def usual(reader: Any) -> Iterator[None]:
    yield


def threads(count: int) -> Around:
    @contextmanager
    def around(reader: Any) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    return around


@contextmanager
def without_onednn(reader: Any) -> Iterator[None]:
    """Convolutions as PyTorch's own products of matrices, which are MKL's."""
    import torch

    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        yield


@contextmanager
def channels_last(reader: Any) -> Iterator[None]:
    """The model is given images in channels_last."""
    import torch

    def first(module: Any, inputs: tuple[Any]) -> tuple[Any]:
        return (inputs[0].contiguous(memory_format=torch.channels_last),)

    hook = reader.model.register_forward_pre_hook(first)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class Honest:
    """One way to run a network."""

    library: str
    how: str = ""
    around: Around = usual
    precision: str = "float32"
    exact: str = "bits"
    epsilon: float = 1e-10
    """Of the oracle that it is held against."""
    every: int = 1
    """One network in so many."""
    judged: bool = True
    """Whether it counts for the factor: what audits do."""

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.library, self.how)))

    @property
    def layout(self) -> str:
        return "timm" if self.library == "timm" else "transformers"

    def load(self, folder: Path) -> Any:
        """The reader of a folder, its model loaded at once."""
        from verify.precision import Computing
        from verify.readers import BitRefReader, TimmReader, TransformersReader

        kinds: dict[str, Any] = {"bit_ref": BitRefReader, "transformers": TransformersReader, "timm": TimmReader}
        reader = kinds[self.library](folder, computing=Computing(self.precision))
        reader.run(np.zeros((1, 3, 33, 33), np.float32))
        reader.model = reader._model
        return reader


READERS = (
    Honest("bit_ref", "one thread", threads(1)),
    Honest("bit_ref", "two threads", threads(2), every=4),
    Honest("bit_ref", "without oneDNN", without_onednn, every=2),
    Honest("bit_ref", "channels_last images", channels_last, every=4),
    Honest("bit_ref", "kernels ×10", exact="logits", every=4),
    Honest("transformers", "oracle of 1e-8", epsilon=1e-8, every=4),
    Honest("transformers", "oracle of 1e-8, without oneDNN", without_onednn, epsilon=1e-8, every=4),
    Honest("transformers", "kernels ×10", exact="logits", every=4),
    Honest("timm", "oracle of 1e-8", epsilon=1e-8),
    Honest("timm", "kernels ×10", exact="logits"),
    Honest("bit_ref", "in float16", precision="float16", every=10),
    Honest("bit_ref", "in bfloat16", precision="bfloat16", every=10),
    Honest("transformers", "channels_last images", channels_last, epsilon=1e-8, every=4, judged=False),
)


def run(reader: Any, around: Around, network: Network) -> Outputs:
    """What it gives for every image, without the batch axis."""
    with around(reader):
        outputs = [reader.run(image) for image in network.images]
    return [
        {name: values.reshape(-1) if name == "features" else values[0] for name, values in output.items()}
        for output in outputs
    ]


def wanted(network: Network) -> list[Honest]:
    """Stock libraries pad the max-pool with zeros alone; timm knows registered shapes."""
    chosen = [reader for reader in READERS if network.seed // len(BUILDS) % reader.every == 0]
    if network.padding != "zeros":
        chosen = [reader for reader in chosen if reader.library != "transformers"]
    return [reader for reader in chosen if reader.layout != "timm" or network.registered]


# Figures

Figures = dict[str, float]
"""Kind of tensor → largest error in floors; of ``head``, its share of the bound."""


def figures(network: Network, epsilon: float, runs: Mapping[str, tuple[Outputs, float]]) -> dict[str, Figures]:
    """Reader → how far it is from the oracle of an epsilon at most; empty where float32 is too coarse to judge by.

    ``runs`` are each reader's outputs and the rounding of what it computes in.
    """
    from verify import compare
    from verify.oracles.numpy import Arithmetic, NumpyOracle

    arithmetic = Arithmetic(standardization_epsilon=epsilon, pool_padding=network.padding)
    oracle = NumpyOracle(network, arithmetic=arithmetic)
    found: dict[str, Figures] = {name: defaultdict(float) for name in runs}
    truths, roundings, useless = [], [], set()
    for layer in oracle.layers(network.images):
        floors = compare.rounding(layer.truth, layer.runs)
        if layer.name == "features":
            truths.append(layer.truth)
            roundings.append(np.mean([(run - layer.truth) ** 2 for run in layer.runs], axis=0))
            if compare.useless_floor(layer.truth, floors[0]):
                useless.add(layer.image)
        for name, (outputs, unit) in runs.items():
            given = outputs[layer.image][layer.name]
            _note(found[name], layer.name, compare.trunk(layer.name, 0, given, layer.truth, floors, unit).ratio)
    if useless:
        return {}
    if oracle.classes is not None:
        head = _head(network)
        for image, logits in enumerate(_logits(oracle, truths, roundings)):
            for name, (outputs, unit) in runs.items():
                own = _own(head, outputs[image]["features"])
                given = outputs[image]["logits"]
                bound = compare.head(0, given, logits, own, unit)
                _note(found[name], "head", bound.error / bound.limit if bound.limit else 0.0)
                _note(found[name], "logits alone", compare.logits_alone(0, given, logits, unit).ratio)
    return found


def _note(known: Figures, layer: str, ratio: float) -> None:
    kind = "units" if layer.startswith("block") else layer
    known[kind] = max(known[kind], ratio)


def _logits(oracle: Any, truths: Sequence[Array], roundings: Sequence[Array]) -> Iterator[Any]:
    """What rules 2 and 3 need, image after image."""
    from verify.compare import Logits

    blocks = list(oracle.head_blocks())
    kernel = np.concatenate([block.kernel for block in blocks], axis=1)
    bias = np.concatenate([block.bias for block in blocks])
    truth = np.concatenate([block.truth for block in blocks], axis=-1)
    runs = np.concatenate([block.runs for block in blocks], axis=-1)
    for image, (features, rounding) in enumerate(zip(truths, roundings, strict=True)):
        scale = np.abs(features) @ np.abs(kernel) + np.abs(bias)
        yield Logits(truth[image], runs[:, image], scale, rounding @ kernel**2)


def _own(head: tuple[Array, Array], features: Array) -> Any:
    from verify.compare import OwnLogits

    (kernel, bias), wide = head, features.astype(np.float64)
    return OwnLogits(wide @ kernel + bias, np.abs(wide) @ np.abs(kernel) + np.abs(bias), len(wide))


def _head(network: Network) -> tuple[Array, Array]:
    """The source's kernel, (features, classes), and bias in float64."""
    from converters.mapping.names import GOOGLE, TensorKind, infer, parameters

    names = {p.kind: p.names[GOOGLE] for p in parameters(infer(network.shapes, GOOGLE, network.path))}
    kernel, bias = (
        network.tensors[names[kind]].astype(np.float64) for kind in (TensorKind.HEAD_KERNEL, TensorKind.HEAD_BIAS)
    )
    return kernel.reshape(kernel.shape[-2:]), bias


def study(seed: int) -> dict[str, Any]:
    """The figures of one network."""
    network = draw(seed)
    line: dict[str, Any] = {"seed": seed, "network": network.text, "padding": network.padding, "figures": {}}
    by_epsilon: dict[float, dict[str, tuple[Outputs, float]]] = defaultdict(dict)
    loaded: dict[tuple[str, str, str], Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        np.savez(place / "source.npz", **network.tensors)
        for honest in wanted(network):
            folder = place / f"{honest.exact}-{honest.layout}"
            if not folder.exists():
                write(folder, place / "source.npz", honest, network.padding)
            key = (honest.library, honest.precision, honest.exact)
            if key not in loaded:
                loaded[key] = honest.load(folder)
            reader = loaded[key]
            by_epsilon[honest.epsilon][honest.name] = (run(reader, honest.around, network), reader.unit)
    for epsilon, runs in by_epsilon.items():
        line["figures"] |= figures(network, epsilon, runs)
    return line


def write(folder: Path, checkpoint: Path, reader: Honest, padding: Any) -> None:
    """The folder that a conversion writes for this reader."""
    from converters.folder.plan import Plan
    from converters.mapping.storage import Storage
    from converters.sources import open_checkpoint
    from converters.writers import model as repository

    folder.mkdir()
    with open_checkpoint(checkpoint) as source:
        plan = Plan.of(source, None, Storage(reader.layout, reader.exact), padding)
        repository.write(folder, source, plan, lambda *_: None)


# Faults of graded strength


def graded(network: Network, name: str, strength: float) -> Any:
    """An oracle with a fault, one of whose runs is the float32 model under test."""
    from verify.diagnosis.arithmetic import FAMILIES
    from verify.diagnosis.candidates import Changed
    from verify.diagnosis.changes import rounded
    from verify.oracles.numpy import Arithmetic, NumpyOracle

    number = {"norm epsilon": 1e-5 * (1 + strength), "standardisation epsilon": 1e-10 * (1 + strength)}.get(name)
    families = {family.deviation(0.5).kind: family.deviation for family in FAMILIES}
    families["branch"] = families["scaled values"]
    right = Arithmetic(pool_padding=network.padding)
    if number is not None or name in ("activation", "branch"):
        values = {"activation": strength, "branch": 1 + strength}
        deviation = families[name](values[name] if number is None else number)
        oracle = deviation.oracle(network, right)
        oracle.float32_runs = 1
        return oracle
    ends = "gamma" if name == "one gamma" else "b/standardized_conv2d/kernel"
    names = [n for n in network.shapes if n.endswith(ends)]
    tensor = names[network.seed % len(names)]
    values = network.read(tensor)
    if name == "precision of one kernel":
        values = rounded(values, round(-np.log2(strength)))
    else:
        index = network.seed % values.size
        values.flat[index] += np.float32(strength * np.abs(values).max())
    return NumpyOracle(Changed(network, {tensor: values}), float32_runs=1, arithmetic=right)


FAULTS = {
    "norm epsilon": range(-18, -6),
    "standardisation epsilon": range(-6, 6),
    "activation": range(-22, -10),
    "branch": range(-22, -10),
    "one value of a 3×3 kernel": range(-14, -2),
    "one gamma": range(-22, -10),
    "precision of one kernel": range(-20, -8),
}
"""Fault → powers of 2 of its strength: an epsilon's change over itself, a leaky ReLU's slope, a branch's factor less 1,
a value's change over the largest, the last bit that a kernel keeps."""


def departure(network: Network, oracle: Any, truths: Mapping[tuple[str, int], tuple[Array, Any]]) -> float:
    """The largest error in floors of the layers that a faulty oracle computes in float32."""
    from verify import compare

    found = [0.0]
    for layer in oracle.layers(network.images[:2]):
        truth, floors = truths[layer.name, layer.image]
        found.append(compare.trunk(layer.name, 0, layer.runs[0], truth, floors).ratio)
    return max(found)


def planted(name: str, networks: int, size: int | None = None) -> dict[int, list[float]]:
    """Power of 2 of a fault's strength → its departure in each network, on its own images or on those of one size."""
    from verify import compare, default_images
    from verify.oracles.numpy import NumpyOracle

    ratios: dict[int, list[float]] = defaultdict(list)
    for seed in range(networks):
        network = draw(seed)
        if network.registered or (name == "precision of one kernel" and sum("/b/" in n for n in network.shapes) < 6):
            continue
        if size is not None:
            network.images[:] = default_images(size, seed=seed)
        right = NumpyOracle(network, pool_padding=network.padding)
        truths = {
            (layer.name, layer.image): (layer.truth, compare.rounding(layer.truth, layer.runs))
            for layer in right.layers(network.images[:2])
        }
        for power in FAULTS[name]:
            ratios[power].append(departure(network, graded(network, name, 2.0**power), truths))
    return ratios


def by_size(networks: int, sizes: Sequence[int]) -> None:
    """The strength from which half of the networks show a fault, by the size of the images."""
    from verify.compare import FACTOR

    rows = []
    for name in FAULTS:
        rows.append((name, *(_half(planted(name, networks, size), FACTOR) for size in sizes)))
        print(rows[-1], file=sys.stderr, flush=True)
    print_table(("fault, strength", *(f"{size} pixels" for size in sizes)), rows)


def faults(networks: int) -> None:
    """The share of networks in which a fault of each strength is beyond each factor; seeds as in the study."""
    shown = [factor for factor in KNOWN if factor >= 2]
    rows = []
    for name in FAULTS:
        ratios = planted(name, networks)
        for power, found in ratios.items():
            shares = [f"{100 * np.mean(np.array(found) > factor):.0f} %" for factor in shown]
            rows.append((name, f"2^{power}", len(found), *shares))
        smallest = [_half(ratios, factor) for factor in shown]
        rows.append((name, "found in half", len(next(iter(ratios.values()))), *smallest))
        print(rows[-1], file=sys.stderr, flush=True)
    print_table(("fault", "strength", "networks", *(f"beyond {factor:g}" for factor in shown)), rows)


def _half(ratios: Mapping[int, Sequence[float]], factor: float) -> str:
    """The strength at which half of the networks show a fault, between the two powers around it."""
    medians = {power: float(np.median(found)) for power, found in ratios.items()}
    for power in sorted(medians):
        before = medians.get(power - 1)
        if medians[power] > factor and before is not None and before <= factor:
            share = (np.log(factor) - np.log(before)) / (np.log(medians[power]) - np.log(before))
            return f"{2.0 ** (power - 1 + share):.2g}"
    return "–"


# Processes


def work(build: str, seeds: Sequence[int]) -> None:
    """One chunk: a line of JSON for each network."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with np.errstate(all="ignore"):
        for seed in seeds:
            print(json.dumps(study(seed) | {"build": build}), flush=True)


def go_on(networks: int, results: Path) -> None:
    """Studies the networks that the file has not: seeds follow each other through the builds, a chunk a process."""
    known = {line["seed"] for line in lines(results)}
    most = CHUNK * len(BUILDS)
    for start in range(0, networks, most):
        for index, build in enumerate(BUILDS):
            chunk = range(start + index, min(start + most, networks), len(BUILDS))
            seeds = [str(seed) for seed in chunk if seed not in known]
            if seeds:
                command = [sys.executable, __file__, "--build", build, "--seeds", *seeds]
                with open(results, "a", encoding="utf-8") as file:
                    subprocess.run(command, env=os.environ | BUILDS[build], stdout=file, check=True)
                print(f"{build}: up to seed {seeds[-1]}", file=sys.stderr, flush=True)


def lines(results: Path) -> list[dict[str, Any]]:
    """What the file holds; a last line that was cut is left out."""
    if not results.exists():
        return []
    texts = results.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(text) for text in texts if text.endswith("}\n")]


# Tables


def tables(found: Sequence[Mapping[str, Any]]) -> None:
    conclusive = [line for line in found if line["figures"]]
    print(f"{len(found)} networks, {len(found) - len(conclusive)} of them inconclusive\n")
    judged = {reader.name for reader in READERS if reader.judged}
    rows = defaultdict(list)
    for line in conclusive:
        for name, kinds in line["figures"].items():
            for kind, ratio in kinds.items():
                if kind != "head" and name in judged:
                    rows[kind].append(ratio)
                    rows["build: " + line["build"]].append(ratio)
                if kind != "head":
                    rows["reader: " + name].append(ratio)
                elif name in judged:
                    rows["head, share of its bound"].append(ratio)
    heads = ("tensor, build or reader", "figures", "50 %", "99 %", "99.9 %", "largest")
    print_table(
        (*heads, *(f"> {factor:g}" for factor in KNOWN)),
        [_row(name, np.array(ratios)) for name, ratios in sorted(rows.items(), key=lambda row: ":" in row[0])],
    )


def _row(name: str, ratios: Array) -> tuple[object, ...]:
    quantiles = [float(np.quantile(ratios, q)) for q in (0.5, 0.99, 0.999, 1)]
    return (name, len(ratios), *quantiles, *(int((ratios > factor).sum()) for factor in KNOWN))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--networks", type=int, default=2000)
    options.add_argument("--results", type=Path, default=Path("tolerance.jsonl"))
    options.add_argument("--faults", type=int, default=0, help="networks to plant graded faults in")
    options.add_argument("--sizes", type=int, nargs="+", help="pixels on a side of the images of --faults")
    options.add_argument("--build", help=argparse.SUPPRESS)
    options.add_argument("--seeds", type=int, nargs="+", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.build:
        work(chosen.build, chosen.seeds)
        return 0
    if chosen.faults:
        with np.errstate(all="ignore"):
            by_size(chosen.faults, chosen.sizes) if chosen.sizes else faults(chosen.faults)
        return 0
    go_on(chosen.networks, chosen.results)
    tables(lines(chosen.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
