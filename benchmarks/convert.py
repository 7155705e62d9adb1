"""How long a conversion takes, and how much memory, beside ``cp`` + fsync of the same bytes and beside the peers.

    .venv/bin/python benchmarks/convert.py [--runs 5] [--peer-runs 1] [--folder DIR] [--network R50x1]

Whole processes, in turn; medians of seconds, of the ratio to the ``cp`` that ran next, and the largest resident set.
The peers read with timm, which has a loader for Google's files: one writes its state dict, the other goes on to
transformers' model, as transformers' own conversion script does. Exits with 1 where a goal is missed. The checkpoints
are random ones of the released shapes; R152x4 takes 4.4 GB, and as much again for each result. Their digest is known,
as it is of whatever was downloaded; ``--recheck`` takes it again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import apart

from converters.digests import known_sha256
from converters.mapping.architecture import Architecture
from converters.mapping.names import GOOGLE, parameters

CLASSES = 21843
NETWORKS = {name: Architecture.released(name, CLASSES) for name in ("R50x1", "R152x4")}
COPY = """
import os, shutil, subprocess, sys
subprocess.run(["cp", sys.argv[1], sys.argv[2]], check=True)
file = os.open(sys.argv[2], os.O_RDONLY)
os.fsync(file)
"""
OURS = "from converters.cli import convert; convert()"
TIMM = """
import sys, timm
from safetensors.torch import save_file
model = timm.create_model(f"resnetv2_{sys.argv[3][1:]}_bit", num_classes=21843)
model.load_pretrained(sys.argv[1])
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, sys.argv[2])
"""
TRANSFORMERS = """
import sys, timm
from transformers import BitConfig, BitForImageClassification
from converters.mapping.names import parameters
sys.path.insert(0, "benchmarks")
from convert import NETWORKS
network = NETWORKS[sys.argv[3]]
theirs = timm.create_model(f"resnetv2_{sys.argv[3][1:]}_bit", num_classes=21843)
theirs.load_pretrained(sys.argv[1])
state = theirs.state_dict()
config = BitConfig(
    embedding_size=network.root_width, hidden_sizes=[4 * w for w in network.widths], depths=list(network.units),
    layer_type="preactivation", num_labels=21843,
)
model = BitForImageClassification(config)
renamed = {p.names["transformers"]: state[p.names["timm"]] for p in parameters(network)}
model.load_state_dict({name: tensor.reshape(model.state_dict()[name].shape) for name, tensor in renamed.items()})
model.save_pretrained(sys.argv[2])
"""


@dataclass(frozen=True)
class Run:
    """One whole process."""

    seconds: float
    megabytes: float
    """Of its largest resident set."""


def run(*command: str | Path) -> Run:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(map(str, command))[:300]}: failed")
    return Run(seconds, used.ru_maxrss / 1000)


def make(path: Path, network: Architecture) -> None:
    """A checkpoint of random values, tensor by tensor; the same every time, and to the byte of the released form:
    sorted by name, without zip64 fields in local headers."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.checkpoints import npz_bytes

    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for parameter in sorted(parameters(network), key=lambda parameter: parameter.names[GOOGLE]):
            values = rng.standard_normal(parameter.shape, dtype=np.float32) * np.float32(0.02)
            info = zipfile.ZipInfo(f"{parameter.names[GOOGLE]}.npy")
            info.file_size = values.nbytes  # by which zipfile decides whether the local header needs a zip64 field
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, values)
    if path.stat().st_size != npz_bytes(network):
        raise SystemExit(f"{path}: {path.stat().st_size} bytes, the released form has {npz_bytes(network)}")


def ways(name: str, checkpoint: Path, result: Path) -> dict[str, Callable[[], Run]]:
    """What is measured: each writes ``result``, which is removed after it."""
    python = sys.executable
    ours = (python, "-c", OURS, "--checkpoint", checkpoint, "--output", result, "--quiet")
    return {
        "bit-convert --no-verify": lambda: run(*ours, "--no-verify"),
        "bit-convert --no-verify --recheck": lambda: run(*ours, "--no-verify", "--recheck"),
        "cp + fsync": lambda: run(python, "-c", COPY, checkpoint, result),
        "bit-convert": lambda: run(*ours),
        "timm": lambda: run(python, "-c", TIMM, checkpoint, result, name),
        "transformers": lambda: run(python, "-c", TRANSFORMERS, checkpoint, result, name),
    }


def measure(name: str, folder: Path, runs: int, peer_runs: int) -> dict[str, list[Run]]:
    checkpoint, result = folder / f"{name}.npz", folder / "result"
    if not checkpoint.exists():
        apart(make, checkpoint, NETWORKS[name])
    apart(known_sha256, checkpoint)
    every = ways(name, checkpoint, result)
    counts = dict.fromkeys(every, runs) | dict.fromkeys(("timm", "transformers"), peer_runs)
    if name != "R50x1":
        counts["bit-convert"] = 0
    measured: dict[str, list[Run]] = {way: [] for way in every}
    for turn in range(runs):
        for way, once in every.items():
            if turn < counts[way]:
                measured[way].append(once())
                shutil.rmtree(result) if result.is_dir() else result.unlink()
    return {way: taken for way, taken in measured.items() if taken}


def median(runs: list[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def report(name: str, measured: dict[str, list[Run]]) -> list[str]:
    """Prints the table; returns the goals that were missed."""
    copies, ours = measured["cp + fsync"], measured["bit-convert --no-verify"]
    print(f"\n| {name}, {CLASSES} classes | median s | range s | × cp + fsync | peak MB |\n|---|---|---|---|---|")
    for way, runs in measured.items():
        seconds = [run.seconds for run in runs]
        ratio = statistics.median(run.seconds / copy.seconds for run, copy in zip(runs, copies, strict=False))
        peak = max(run.megabytes for run in runs)
        print(f"| {way} | {median(runs):.2f} | {min(seconds):.2f}–{max(seconds):.2f} | {ratio:.2f} | {peak:.0f} |")
    ratios = [run.seconds / copy.seconds for run, copy in zip(ours, copies, strict=True)]
    more = statistics.median(run.seconds - copy.seconds for run, copy in zip(ours, copies, strict=True))
    goals = {
        "peak at most 300 MB": max(run.megabytes for run in ours) <= 300,
    }
    if name == "R50x1":
        goals["at most 0.8 s more than cp + fsync"] = more <= 0.8
        goals["with verification at most 10 s"] = median(measured["bit-convert"]) <= 10
    else:
        goals["at most 1.4 × cp + fsync"] = statistics.median(ratios) <= 1.4
    for peer in ("timm", "transformers"):
        if peer in measured:
            goals[f"{peer} at least 5 × slower"] = median(measured[peer]) >= 5 * median(ours)
    missed = [goal for goal, reached in goals.items() if not reached]
    print(f"\n{more:+.2f} s against cp + fsync, ratios {min(ratios):.2f}–{max(ratios):.2f}; missed: {missed or 'none'}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-runs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where checkpoints are kept and results written")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder or Path(temporary)
        missed = [
            goal
            for name in options.network or NETWORKS
            for goal in report(name, measure(name, folder, options.runs, options.peer_runs))
        ]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
