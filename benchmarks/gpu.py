"""Everything that is measured on a GPU, in one command of at most three minutes.

    .venv-peers/bin/python benchmarks/gpu.py [--seconds 170] [--no-audit]

R50x1 at 224 in bit_ref and, where it is installed, in stock timm, in turn on the same tensors: batches of 1 and 256 in
float32, TF32 and bfloat16; then what ``torch.compile`` makes of both; then an audit with ``--device cuda``. Rows that
no time is left for are named. Without a GPU it says so, and that is all.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from audit import CONVERT, VERIFY, run, write_checkpoint
from common import Goals, apart, in_timm, in_turn, logits, machine, median, network, print_table

NAME, SIDE = "R50x1", 224
BATCHES = (1, 256)
ROUNDS = {1: 30, 256: 10}
PRECISIONS = ("float32", "tf32", "bfloat16")
ONE_LINE = "one line"
"""bit_ref at batch 1, after ``torch.compile(model, mode="reduce-overhead")``, which docs/speed.md gives."""
COMPILED = (("bfloat16", 256), ("bfloat16", 1), ("tf32", 1), ("tf32", 256))
"""The most telling first."""
COMPILING = 22.0
"""About how many seconds a library takes to compile, before the first has shown it."""
GOALS = {
    ("bfloat16", 256, "eager"): ("eager", 1.9),
    ("tf32", 256, "eager"): ("eager", 1.6),
    ("bfloat16", 1, ONE_LINE): ("eager", 5.0),
    ("tf32", 1, ONE_LINE): ("eager", 5.0),
    ("bfloat16", 256, "compiled"): ("compiled", 1.0),
    ("tf32", 256, "compiled"): ("compiled", 1.0),
}
"""bit_ref's row → the row of timm's that it is held against, and how many times its time timm is to take."""

Key = tuple[str, int, str]
"""Precision, batch, and how it is run."""
Models = Mapping[str, torch.nn.Module]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=170, help="after which nothing more is compiled")
    parser.add_argument("--no-audit", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("SKIPPED: PyTorch finds no GPU here, and every row of this benchmark is of one.", file=sys.stderr)
        return 0
    deadline = time.monotonic() + options.seconds
    print(f"{torch.cuda.get_device_name()}; {NAME} at {SIDE}; {machine()}\n", flush=True)
    torch.backends.cudnn.benchmark = True
    times = dict(eager("cuda"))
    print_table(*table(times))
    status = 0 if options.no_audit else audit()
    found, left_out = in_time(deadline, "cuda")
    times |= found
    print_table(*table(times))
    for row in left_out:
        print(f"LEFT OUT  compiled, {row}: no time was left for it (--seconds)", flush=True)
    return status | judged(times)


def models_in(precision: str, device: str) -> Models:
    ours = network(NAME)
    models = {"bit_ref": ours} | ({"timm": in_timm(ours, NAME)} if find_spec("timm") else {})
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return {library: copy.deepcopy(model).to(device, dtype) for library, model in models.items()}


def images_of(batch: int, models: Models, side: int = SIDE) -> torch.Tensor:
    parameter = next(models["bit_ref"].parameters())
    random = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, side, side, generator=random).to(parameter.device, parameter.dtype)


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Inference in a precision, with TF32 as it says."""
    allowed = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    with torch.inference_mode():
        yield


def clock() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def eager(device: str) -> Iterator[tuple[Key, dict[str, float]]]:
    """Milliseconds of each library in each precision and batch, after a look that they compute the same."""
    for precision in PRECISIONS:
        models = models_in(precision, device)
        with computing(precision):
            same_function(models, precision)
            for batch in BATCHES:
                yield (precision, batch, "eager"), milliseconds(models, batch)


def same_function(models: Models, precision: str) -> None:
    """Raises AssertionError where what is timed does not give the same logits."""
    images = images_of(2, models)
    expected = logits(models["bit_ref"], images)
    limit = {"float32": 1e-3, "tf32": 5e-2, "bfloat16": 0.25}[precision] * float(expected.abs().max())
    for library, model in models.items():
        torch.testing.assert_close(
            logits(model, images), expected, rtol=0, atol=limit, msg=f"{library} differs in {precision}"
        )


def milliseconds(models: Models, batch: int) -> dict[str, float]:
    images = images_of(batch, models)
    works: dict[str, Callable[[], Any]] = {name: partial(logits, model, images) for name, model in models.items()}
    rounds = in_turn(works, ROUNDS[batch], 5, clock)
    return {name: 1000 * median(rounds, name) for name in works}


def in_time(deadline: float, device: str) -> tuple[dict[Key, dict[str, float]], list[str]]:
    """What is compiled and timed before the deadline, and the rows that are left out."""
    times: dict[Key, dict[str, float]] = {}
    left_out = []
    each = COMPILING
    for precision, batch in COMPILED:
        libraries = 1 if batch == 1 or not find_spec("timm") else 2
        start = time.monotonic()
        if start + libraries * each > deadline:
            left_out.append(f"{precision}, batch {batch}")
            continue
        times |= compiled(precision, batch, device)
        each = (time.monotonic() - start) / libraries
    return times, left_out


def compiled(precision: str, batch: int, device: str) -> dict[Key, dict[str, float]]:
    """Milliseconds of each library compiled; at batch 1 of bit_ref alone, with its one line."""
    models = models_in(precision, device)
    how = ONE_LINE if batch == 1 else "compiled"
    options = {"mode": "reduce-overhead"} if batch == 1 else {}
    chosen = {name: model for name, model in models.items() if batch != 1 or name == "bit_ref"}
    with computing(precision):
        ready = {name: torch.compile(model, dynamic=False, **options) for name, model in chosen.items()}
        found = milliseconds(ready, batch)
    torch.compiler.reset()
    return {(precision, batch, how): found}


def audit() -> int:
    """Audits a checkpoint of random values, as a process of its own; returns 1 where it has not passed."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        from converters.mapping.architecture import Architecture

        apart(write_checkpoint, place / "source.npz", Architecture.released(NAME, 1000))
        run(CONVERT, "--checkpoint", place / "source.npz", "--output", place / "model", "--no-verify", "--quiet")
        arguments = (place / "model", "--against", place / "source.npz", "--report", place / "report", "--json")
        try:
            seconds, _, peak, output = run(VERIFY, *arguments, "--quiet", "--device", "cuda")
        except SystemExit as error:  # the other rows are no worse for it
            print(f"audit with --device cuda: FAILED\n{error}\n", flush=True)
            return 1
    content = json.loads(output)
    print(
        f"audit with --device cuda: {content['verdict']}, {seconds:.1f} s, {peak:.0f} MB of main memory\n", flush=True
    )
    return 0 if content["passed"] else 1


def table(times: Mapping[Key, dict[str, float]]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows = []
    for (precision, batch, how), found in times.items():
        against, goal = GOALS.get((precision, batch, how), ("eager" if how == ONE_LINE else how, None))
        peer = times.get((precision, batch, against), {}).get("timm")
        ours = found["bit_ref"]
        ratio = "-" if peer is None else f"{peer / ours:.2f}"
        rows.append((precision, batch, how, ours, peer or "-", ratio, goal or "-"))
    return ("precision", "batch", "run", "bit_ref, ms", "timm, ms", "timm / bit_ref", "goal"), rows


def judged(times: Mapping[Key, dict[str, float]]) -> int:
    """The status of the goals whose rows were measured."""
    goals = Goals()
    for (precision, batch, how), (against, goal) in GOALS.items():
        ours = times.get((precision, batch, how), {}).get("bit_ref")
        peer = times.get((precision, batch, against), {}).get("timm")
        what = f"{precision}, batch {batch}, {how}: timm {against} / bit_ref"
        if ours is None or peer is None:
            print(f"no figure  {what}: {'timm is not installed' if ours else 'not measured'}", flush=True)
        else:
            goals.at_least(what, peer / ours, goal)
    return goals.status


if __name__ == "__main__":
    sys.exit(main())
