"""What an audit costs: seconds and peak memory of the whole process, for an honest folder and for a faulty one.

    python benchmarks/audit.py [--network R50x1] [--classes 1000]

Converts a checkpoint of random values in a temporary folder, audits it with ``bit-verify`` in a process of its own,
plants a fault (a 3×3 kernel flipped, then stock libraries' epsilon) and audits again, diagnosis included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import Goals, apart, machine, print_table
from safetensors.numpy import load_file, save_file

from converters.mapping.architecture import Architecture
from converters.mapping.names import GOOGLE, Kind, parameters

CONVERT = "from converters.cli import convert; convert()"
VERIFY = "from converters.cli.commands import verify; verify()"
LIMITS = {"R50x1": (15.0, 2000.0), "R152x4": (240.0, 10_000.0)}
"""Network → seconds and megabytes of a default audit, on two cores."""
STD = {Kind.KERNEL: 1e-2, Kind.HEAD_KERNEL: 2e-2}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--network", default="R50x1")
    options.add_argument("--classes", type=int, default=1000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        checkpoint, folder = place / "source.npz", place / "model"
        apart(write_checkpoint, checkpoint, Architecture.released(chosen.network, chosen.classes))
        run(CONVERT, "--checkpoint", checkpoint, "--output", folder, "--no-verify", "--quiet")
        audit = (folder, "--against", checkpoint, "--report", place / "report", "--quiet", "--json")
        rows = [row("honest, bit_ref and stock", *run(VERIFY, *audit))]
        rows.append(row("honest, bit_ref alone", *run(VERIFY, *audit, "--runner", "bit_ref")))
        if find_spec("tensorflow"):
            two = run(VERIFY, *audit, "--runner", "bit_ref", "--oracle", "tensorflow")
            rows.append(row("honest, two oracles", *two))
        plant_epsilon(folder)
        rows.append(row("stock port (epsilon)", *run(VERIFY, *audit)))
        plant_kernel(folder)
        rows.append(row("a kernel flipped as well", *run(VERIFY, *audit)))
    print(f"{chosen.network}, {chosen.classes} classes; {machine()}\n")
    print_table(("audit", "seconds", "processor s", "peak MB", "verdict"), rows)
    goals = Goals()
    if chosen.network in LIMITS:
        seconds, megabytes = LIMITS[chosen.network]
        goals.at_most(f"default audit of {chosen.network}, s", float(rows[0][1]), seconds)
        goals.at_most(f"default audit of {chosen.network}, MB", float(rows[0][3]), megabytes)
    return goals.status


def write_checkpoint(path: Path, architecture: Architecture) -> None:
    """Random values; norms near 1 and 0."""
    random = np.random.default_rng(0)
    tensors = {}
    for parameter in parameters(architecture):
        noise = random.standard_normal(parameter.shape, dtype=np.float32)
        values = noise * np.float32(STD.get(parameter.kind, 0.1))
        tensors[parameter.names[GOOGLE]] = values + np.float32(parameter.kind is Kind.SCALE)
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


def run(code: str, *arguments: object) -> tuple[float, float, float, str]:
    """Seconds, seconds of processor, peak megabytes and standard output of a process of its own."""
    start, before = time.monotonic(), processor()
    command = [sys.executable, "-c", measured(code), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    seconds, busy = time.monotonic() - start, processor() - before
    if result.returncode not in (0, 1):
        sys.exit(result.stderr)
    peak = int(result.stderr.rsplit("peak kB ", 1)[1])
    return seconds, busy, peak / 1024, result.stdout


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(code: str) -> str:
    """The same, which says its peak resident memory at the end (kB on Linux, bytes on macOS)."""
    scale = 1024 if sys.platform == "darwin" else 1
    peak = f"resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // {scale}"
    return f"import atexit, resource, sys; atexit.register(lambda: print('peak kB', {peak}, file=sys.stderr)); {code}"


def row(what: str, seconds: float, busy: float, megabytes: float, output: str) -> tuple[str, float, float, float, str]:
    content = json.loads(output)
    faults = "; ".join(f"{fault['place']}: {fault['kind']}" for fault in content["faults"][:3])
    return what, seconds, busy, megabytes, f"{content['verdict']} {faults}".strip()


if __name__ == "__main__":
    sys.exit(main())
