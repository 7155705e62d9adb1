"""What an audit costs: seconds and peak memory of the whole process, for an honest folder and for a faulty one.

    python benchmarks/audit.py [--network R50x1] [--classes 1000] [--rounds 3] [--clock processor] [--only honest]

Converts a checkpoint of random values in a temporary folder, audits it with ``bit-verify`` in a process of its own,
plants a fault (a 3×3 kernel flipped, then stock libraries' epsilon) and audits again, diagnosis included. The honest
audit is held against a yardstick in the same round, since machines differ: of R50x1, the import of PyTorch and of
transformers' BiT; of R152x4, 5 TFLOP of NumPy's float32 products. With R50x1 goes a verified conversion of 21,843
classes, in times of the import of PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import Goals, apart, machine, print_table
from safetensors.numpy import load_file, save_file

from converters.mapping.architecture import Architecture
from converters.mapping.names import GOOGLE, TensorKind, parameters

CONVERT = "from converters.cli import convert; convert()"
VERIFY = "from converters.cli.commands import verify; verify()"
PYTORCH = "import torch"
LIBRARIES = "import torch; from transformers import BitForImageClassification"
PRODUCTS = """
import numpy
a = numpy.ones((4096, 4096), numpy.float32)
for _ in range(4):
    a @ a
"""
SHARE = 4 * 2 * 4096**3 / 5e12
"""The part of 5 TFLOP that these products are."""


class Yardstick(NamedTuple):
    """What an audit is held against."""

    name: str
    code: str
    share: float
    """The part of it that the code does."""
    times: float
    megabytes: float


YARDSTICKS = {
    "R50x1": Yardstick("importing PyTorch and transformers' BiT", LIBRARIES, 1, 1.4, 2000),
    "R152x4": Yardstick("5 TFLOP of NumPy's float32 products", PRODUCTS, SHARE, 1.6, 8000),
}
CONVERSION = 2.2
"""Times the import of PyTorch that a verified conversion of R50x1 with 21,843 classes may take."""
STD = {TensorKind.KERNEL: 1e-2, TensorKind.HEAD_KERNEL: 2e-2}


class Cost(NamedTuple):
    """What a process of its own took."""

    elapsed: float
    processor: float
    megabytes: float
    output: str = ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", default="R50x1")
    options.add_argument("--classes", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=3, help="of the honest audit and its yardstick")
    options.add_argument("--clock", choices=("elapsed", "processor"), default="elapsed")
    options.add_argument("--only", choices=("honest", "conversion"))
    chosen = options.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or threads that wait count as threads that compute
    print(f"{chosen.network}, {chosen.classes} classes; {machine()}\n")
    goals = Goals()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if chosen.only != "conversion":
            checkpoint, folder = place / "source.npz", place / "model"
            apart(write_checkpoint, checkpoint, Architecture.released(chosen.network, chosen.classes))
            run(CONVERT, "--checkpoint", checkpoint, "--output", folder, "--no-verify", "--quiet")
            audit = (folder, "--against", checkpoint, "--report", place / "report", "--quiet", "--json")
            honest(goals, chosen, audit)
            if chosen.only is None:
                others(folder, audit)
        if chosen.network == "R50x1" and chosen.only != "honest":
            conversion(goals, chosen, place)
    return goals.status


def honest(goals: Goals, chosen: argparse.Namespace, audit: Iterable[object]) -> None:
    """The default audit beside its yardstick."""
    if chosen.network not in YARDSTICKS:
        print_costs([("honest, bit_ref and stock", run(VERIFY, *audit))])
        return
    yardstick = YARDSTICKS[chosen.network]
    rounds = [(run(yardstick.code), run(VERIFY, *audit)) for _ in range(chosen.rounds)]
    rows = [row for base, cost in rounds for row in ((yardstick.name, base), ("honest, bit_ref and stock", cost))]
    print_costs(rows)
    times = statistics.median(
        getattr(cost, chosen.clock) * yardstick.share / getattr(base, chosen.clock) for base, cost in rounds
    )
    goals.at_most(f"default audit of {chosen.network} / {yardstick.name} ({chosen.clock})", times, yardstick.times)
    goals.at_most("its MB", max(cost.megabytes for _, cost in rounds), yardstick.megabytes)


def others(folder: Path, audit: Iterable[object]) -> None:
    """Other readers and oracles, and faulty folders."""
    rows = [("honest, bit_ref alone", run(VERIFY, *audit, "--runner", "bit_ref"))]
    if find_spec("tensorflow"):
        two = run(VERIFY, *audit, "--runner", "bit_ref", "--oracle", "tensorflow")
        rows.append(("honest, two oracles", two))
    plant_epsilon(folder)
    rows.append(("stock port (epsilon)", run(VERIFY, *audit)))
    plant_kernel(folder)
    rows.append(("a kernel flipped as well", run(VERIFY, *audit)))
    print_costs(rows)


def conversion(goals: Goals, chosen: argparse.Namespace, place: Path) -> None:
    """A verified conversion of the largest head."""
    checkpoint = place / "large.npz"
    apart(write_checkpoint, checkpoint, Architecture.released("R50x1", 21_843))
    command = ("--checkpoint", checkpoint, "--quiet", "--json", "--output")
    rounds = [(run(PYTORCH), run(CONVERT, *command, place / f"large{n}")) for n in range(chosen.rounds)]
    print_costs(row for base, cost in rounds for row in (("import torch", base), ("verified conversion", cost)))
    times = statistics.median(getattr(cost, chosen.clock) / getattr(base, chosen.clock) for base, cost in rounds)
    goals.at_most(f"verified conversion of R50x1, 21,843 classes / import torch ({chosen.clock})", times, CONVERSION)


def print_costs(rows: Iterable[tuple[str, Cost]]) -> None:
    heading = ("what", "seconds", "processor s", "peak MB", "verdict")
    print_table(heading, ((what, *cost[:3], verdict(cost.output)) for what, cost in rows))


def verdict(output: str) -> str:
    content = json.loads(output) if output else {}
    faults = "; ".join(f"{fault['place']}: {fault['kind']}" for fault in content.get("faults", [])[:3])
    return f"{content.get('verdict', '')} {faults}".strip()


def write_checkpoint(path: Path, architecture: Architecture) -> None:
    """Random values; norms near 1 and 0."""
    random = np.random.default_rng(0)
    tensors = {}
    for parameter in parameters(architecture):
        noise = random.standard_normal(parameter.shape, dtype=np.float32)
        values = noise * np.float32(STD.get(parameter.kind, 0.1))
        tensors[parameter.names[GOOGLE]] = values + np.float32(parameter.kind is TensorKind.SCALE)
    np.savez(path, **tensors)


def plant_epsilon(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key not in ("weight_standardization_eps", "exact")}
    (folder / "config.json").write_text(json.dumps(kept))


def plant_kernel(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    name = next(name for name, values in reversed(stored.items()) if values.shape[-1] == 3)
    stored[name] = np.ascontiguousarray(stored[name][:, :, ::-1, ::-1])
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def run(code: str, *arguments: object) -> Cost:
    """What this takes in a process of its own."""
    start, before = time.monotonic(), processor()
    command = [sys.executable, "-c", measured(code), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    seconds, busy = time.monotonic() - start, processor() - before
    if result.returncode not in (0, 1):
        sys.exit(result.stderr)
    peak = int(result.stderr.rsplit("peak kB ", 1)[1].split()[0])
    return Cost(seconds, busy, peak / 1024, result.stdout)


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(code: str) -> str:
    """The same, which says its peak resident memory at the end (kB on Linux, bytes on macOS)."""
    scale = 1024 if sys.platform == "darwin" else 1
    peak = f"resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // {scale}"
    return f"import atexit, resource, sys; atexit.register(lambda: print('peak kB', {peak}, file=sys.stderr)); {code}"


if __name__ == "__main__":
    sys.exit(main())
