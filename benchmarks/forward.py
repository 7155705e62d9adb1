"""A forward pass and a training step of bit_ref, beside stock timm and transformers: one network, in turn.

    .venv-peers/bin/python benchmarks/forward.py [--rounds 21] [--only "R50x1, batch 1"]

Ratios say how many times bit_ref's time a peer takes. What bounds them is shown for each: the share of the forward pass
that convolutions take, which all three leave to oneDNN, and their rate beside that of a product of two matrices.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial

import torch
from common import CLOCKS, Clock, Goals, Rounds, in_turn, libraries, logits, machine, median, print_table, ratio
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

CASES = {
    "R50x1, batch 1": ("R50x1", 1, 224, 1.0, 1.5),
    "R50x1, batch 8": ("R50x1", 8, 224, 0.5, 1.45),
    "R152x4, batch 1": ("R152x4", 1, 480, 0.15, 1.2),
}
"""Network, batch, resolution, share of the rounds that are asked for, and the goal: times the better peer's speed."""
TRAINING = "R50x1, batch 8, training"
CHANNELS_LAST = "timm, channels_last"


def report(title: str, rounds: Rounds) -> float:
    """Print the table; how many times bit_ref's time the better contiguous peer takes."""
    print(f"\n{title}, {len(rounds)} rounds\n")
    print_table(
        ("library", "median ms", "least ms", "x bit_ref"),
        (
            (name, 1000 * median(rounds, name), 1000 * min(r[name] for r in rounds), ratio(rounds, name, "bit_ref"))
            for name in rounds[0]
        ),
    )
    return min(ratio(rounds, name, "bit_ref") for name in ("timm", "transformers"))


def forward(name: str, batch: int, resolution: int, rounds: int, clock: Clock) -> tuple[Rounds, str]:
    """Seconds of each library, and what bounds them."""
    images = torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))
    models = libraries(name)
    works: dict[str, Callable[[], object]] = {
        library: partial(logits, model, images) for library, model in models.items()
    }
    with torch.inference_mode():
        same_function(models, images)
        if name == "R50x1":
            last = copy.deepcopy(models["timm"]).to(memory_format=torch.channels_last)
            works[CHANNELS_LAST] = partial(logits, last, images.to(memory_format=torch.channels_last))
            works[CHANNELS_LAST]()
        return in_turn(works, rounds, 0, clock), bound(works["bit_ref"])


def same_function(models: dict[str, torch.nn.Module], images: torch.Tensor) -> None:
    """Raises AssertionError where what is timed does not give the same logits."""
    expected = logits(models["bit_ref"], images)
    for library, model in models.items():
        torch.testing.assert_close(logits(model, images), expected, rtol=1e-3, atol=1e-3, msg=f"{library} differs")


def bound(work: Callable[[], object]) -> str:
    """Where the time goes, and how near to the processor's rate the convolutions are."""
    with FlopCounterMode(display=False) as counter, profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    flops = sum(n for operator, n in counter.get_flop_counts()["Global"].items() if "conv" in str(operator))
    events = [event for event in profiled.key_averages() if event.key.startswith("aten::")]
    times = {event.key.removeprefix("aten::"): event.self_cpu_time_total / 1e6 for event in events}
    whole, convolutions = sum(times.values()), sum(time for key, time in times.items() if "conv" in key)
    others = sorted((key for key in times if "conv" not in key), key=times.__getitem__, reverse=True)[:4]
    matrix = torch.randn(2048, 2048)
    product = min(times["product"] for times in in_turn({"product": lambda: matrix @ matrix}, 10))
    return (
        f"bit_ref: convolutions {convolutions / whole:.0%} of the time, at {flops / convolutions / 1e9:.0f} GFLOP/s "
        f"where a product of matrices has {2 * len(matrix) ** 3 / product / 1e9:.0f}; "
        + ", ".join(f"{key} {times[key] / whole:.1%}" for key in others)
    )


def training(rounds: int, clock: Clock) -> Rounds:
    """Steps of SGD with momentum on the cross-entropy of R50x1 at 224, batch 8."""
    images, labels = torch.randn(8, 3, 224, 224), torch.arange(8)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(logits(model, images), labels).backward()
        optimizer.step()

    models = {library: copy.deepcopy(model).train() for library, model in libraries("R50x1").items()}
    optimizers = {library: torch.optim.SGD(model.parameters(), 1e-3, 0.9) for library, model in models.items()}
    works = {library: partial(step, models[library], optimizers[library]) for library in models}
    return in_turn(works, rounds, clock=clock)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", choices=[*CASES, TRAINING])
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="processor on a machine that is busy")
    options = parser.parse_args()
    clock = CLOCKS[options.clock]
    print(machine())
    goals = Goals()
    for title, (name, batch, resolution, share, goal) in CASES.items():
        if options.only in (None, title):
            rounds, bounds = forward(name, batch, resolution, max(3, round(share * options.rounds)), clock)
            found = report(f"{title}, {resolution} x {resolution}", rounds)
            print(bounds)
            goals.at_least(f"{title}: the better peer / bit_ref", found, goal)
            if batch == 8:
                goals.at_least(f"{title}: {CHANNELS_LAST} / bit_ref", ratio(rounds, CHANNELS_LAST, "bit_ref"), 1.15)
    if options.only in (None, TRAINING):
        found = report(TRAINING, training(max(3, options.rounds // 3), clock))
        goals.at_least(f"{TRAINING}: the better peer / bit_ref", found, 1.0)
    return goals.status


if __name__ == "__main__":
    sys.exit(main())
