"""Import and ``from_pretrained``, whole processes in turn, and the memory that a loaded network takes.

    .venv-peers/bin/python benchmarks/load.py [--rounds 7] [--network R152x4] [--only start]

Memory is the resident set and its maximum, in which pages mapped from the file count as soon as they are touched: after
loading, after every value was read, and after a forward pass, which keeps the standardised kernels beside the stored
ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import Goals, in_turn, machine, median, network, print_table, ratio

CLASSES = 21_843
LOAD = "from {0} import BitForImageClassification as Model; model = Model.from_pretrained({1!r})"
MEASURE = """
import json, torch
def memory():
    lines = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return [1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM")]
found = memory()
{}
found += memory()
sum(float(value.sum()) for value in model.state_dict().values())
found += memory()
with torch.inference_mode():
    model(torch.zeros(1, 3, 64, 64))
print(json.dumps(found + memory()))
"""


def run(program: str) -> str:
    """What a process prints; none of it is on the network."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def start(folder: Path, rounds: int, goals: Goals) -> None:
    programs = {
        "import torch": "import torch",
        "import bit_ref": "import bit_ref",
        "import bit_ref.model": "import bit_ref.model",
        "bit_ref: from_pretrained": LOAD.format("bit_ref", str(folder)),
        "transformers: from_pretrained": LOAD.format("transformers", str(folder)),
    }
    found = in_turn({name: partial(run, program) for name, program in programs.items()}, rounds)
    loaded, theirs = list(programs)[-2:]
    print(f"\nR50x1, {CLASSES} classes, whole process, {rounds} rounds\n")
    print_table(("process", "s", "x bit_ref"), ((n, median(found, n), ratio(found, n, loaded)) for n in programs))
    goals.at_most("import and from_pretrained: bit_ref / transformers", ratio(found, loaded, theirs), 0.4)
    goals.at_most("the same, beside import torch alone", ratio(found, loaded, "import torch"), 1.25)


def memory(folder: Path, name: str, goals: Goals) -> None:
    size = (folder / "model.safetensors").stat().st_size
    print(f"\n{name}, {CLASSES} classes: resident memory in GB; the file has {size / 1e9:.2f}\n")
    found = {
        library: json.loads(run(MEASURE.format(LOAD.format(library, str(folder)))))
        for library in ("bit_ref", "transformers")
    }
    after = ("import torch", "at most", "loaded", "at most", "all read", "at most", "after forward", "at most")
    print_table(("library", *after), ((library, *(n / 1e9 for n in found[library])) for library in found))
    goals.at_most(f"{name}, loaded: most memory / file", found["bit_ref"][3] / size, 1.15)
    goals.at_most(f"{name}, every value read: most memory / file", found["bit_ref"][5] / size, 1.15)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", default="R152x4", help="whose memory is measured")
    parser.add_argument("--only", choices=("start", "memory"))
    options = parser.parse_args()
    print(machine())
    goals = Goals()
    measures = {
        "start": ("R50x1", partial(start, rounds=options.rounds, goals=goals)),
        "memory": (options.network, partial(memory, name=options.network, goals=goals)),
    }
    for what, (name, measure) in measures.items():
        if options.only in (None, what):
            with tempfile.TemporaryDirectory(prefix="bit-load-") as folder:
                network(name, CLASSES).save_pretrained(folder)
                measure(Path(folder))
    return goals.status


if __name__ == "__main__":
    sys.exit(main())
