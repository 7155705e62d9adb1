"""What refusing a file costs, measured in a process that does nothing else: libraries loaded, tables of names built.

A test's own process has other libraries' threads and a heap whose garbage is collected at any time. Here a server that
has imported ``converters`` alone forks once a file, so that each finds the same process.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

from converters.catalogue.variants import EMBEDDED_FILE
from converters.errors import CheckpointError
from converters.mapping.names import nearest
from converters.sources import open_checkpoint

ROOT, PROC = Path(__file__).parents[3], Path("/proc/self")


class Cost(NamedTuple):
    """Seconds of processor time, bytes above what the process had (Linux alone tells them), and the error's text."""

    seconds: float
    memory: int
    message: str


def cost_of_refusal(path: Path, warm_up: Path | None = None) -> Cost:
    """The cost of refusing ``path`` once ``warm_up`` has been read, with whatever library that takes."""
    server = _server()
    print(json.dumps([str(path), str(warm_up or "")]), file=server.stdin, flush=True)
    cost = Cost(*json.loads(server.stdout.readline()))
    assert str(path) in cost.message
    assert len(cost.message.splitlines()) <= 2
    return cost


@cache
def _server() -> subprocess.Popen[str]:
    """Ends with this process, which holds the other end of its stdin."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", __name__], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def _serve() -> None:
    nearest(["a name of no scheme"])
    _read(EMBEDDED_FILE)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        if os.fork() == 0:
            print(json.dumps(_measured(*json.loads(line))), flush=True)
            os._exit(0)
        os.wait()


def _measured(path: str, warm_up: str) -> Cost:
    if warm_up:
        _read(Path(warm_up))
    before, start = forget_peak(), time.process_time()
    try:
        _read(Path(path))
    except CheckpointError as error:
        return Cost(time.process_time() - start, peak() - before, str(error))
    raise AssertionError(f"{path} was read")


def _read(path: Path) -> None:
    with open_checkpoint(path) as source:
        for name in source.shapes:
            source.read(name)


def forget_peak() -> int:
    """From now on ``peak`` counts. Returns the bytes that this process has in memory; 0 where that cannot be told."""
    if (PROC / "clear_refs").exists():
        (PROC / "clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most bytes that this process has had in memory since ``forget_peak``."""
    if not (PROC / "clear_refs").exists():
        return 0
    text = (PROC / "status").read_text()
    return int(text[text.index("VmHWM:") + 6 :].split(maxsplit=1)[0]) << 10


if __name__ == "__main__":
    _serve()
