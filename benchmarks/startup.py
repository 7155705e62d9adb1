"""How long ``--help`` and ``--list`` take, beside ``python -c "import click"``: medians of whole processes, in turn.

.venv/bin/python benchmarks/startup.py [--runs 21]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 2.5
"""Times the import of click that either may take."""
BIN = Path(sys.executable).parent
COMMANDS = {
    "import click": [sys.executable, "-c", "import click"],
    "bit-convert --help": [BIN / "bit-convert", "--help"],
    "bit-convert --list": [BIN / "bit-convert", "--list"],
    "bit-verify --help": [BIN / "bit-verify", "--help"],
}


def seconds(command: list[str | Path]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(runs + 1)][1:]
    slow = []
    for name in COMMANDS:
        median = statistics.median(times[name] for times in rounds)
        ratio = statistics.median(times[name] / times["import click"] for times in rounds)
        print(f"{name:20} {1000 * median:6.1f} ms  {ratio:5.2f} x import click")
        if ratio > LIMIT:
            slow.append(name)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
