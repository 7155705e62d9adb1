"""The time of ``--help`` and ``--list``, beside importing click and this package: medians of whole processes, in turn.

.venv/bin/python benchmarks/startup.py [--runs 21]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from common import Goals, in_turn, median, print_table, ratio

LIMIT = 1.2
"""Times the base that either may take."""
BASE = "import click, converters"
BIN = Path(sys.executable).parent
COMMANDS = {
    BASE: [sys.executable, "-c", BASE],
    "bit-convert --help": [BIN / "bit-convert", "--help"],
    "bit-convert --list": [BIN / "bit-convert", "--list"],
    "bit-verify --help": [BIN / "bit-verify", "--help"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    rounds = in_turn({name: partial(run, command) for name, command in COMMANDS.items()}, parser.parse_args().runs)
    print_table(
        ("process", "ms", f"x {BASE}"), ((n, 1000 * median(rounds, n), ratio(rounds, n, BASE)) for n in COMMANDS)
    )
    goals = Goals()
    for name in list(COMMANDS)[1:]:
        goals.at_most(f"{name} / {BASE}", ratio(rounds, name, BASE), LIMIT)
    return goals.status


if __name__ == "__main__":
    sys.exit(main())
