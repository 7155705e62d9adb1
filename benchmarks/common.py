"""What the benchmarks share: work done in turn, medians, ratios within a round, goals, and one network three times.

Rounds are paired, since whatever else the machine does falls on all that is done in one round: a ratio is the median
of the rounds' ratios, never one median over another.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Rounds = list[dict[str, float]]
"""Seconds of each work, by name, round after round."""

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"elapsed": time.perf_counter, "processor": time.process_time}
"""Seconds that pass, and seconds that the threads of this process compute: the clock of a machine that others use, too,
with OMP_WAIT_POLICY=passive, so that waiting is not counted."""


def in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1, clock: Clock = time.perf_counter
) -> Rounds:
    """Seconds of each, in turn; the rounds of the warm-up are left out."""
    return [{name: seconds(work, clock) for name, work in works.items()} for _ in range(warm_up + rounds)][warm_up:]


def seconds(work: Callable[[], object], clock: Clock) -> float:
    start = clock()
    work()
    return clock() - start


def median(rounds: Rounds, name: str) -> float:
    return statistics.median(times[name] for times in rounds)


def ratio(rounds: Rounds, name: str, base: str) -> float:
    """How many times the time of ``base`` ``name`` takes."""
    return statistics.median(times[name] / times[base] for times in rounds)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """In Markdown, floats to three digits."""
    cells = [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    print(lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:], "", sep="\n", flush=True)


def apart(work: Callable[..., object], *arguments: object) -> None:
    """In a process of its own: the memory that it took at most would count as that of every process started later."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


class Goals:
    """What is to be reached: each is printed as it is judged; ``status`` is 1 as soon as one is missed."""

    status = 0

    def at_least(self, what: str, found: float, limit: float) -> None:
        self._judge(what, found, "at least", limit, found >= limit)

    def at_most(self, what: str, found: float, limit: float) -> None:
        self._judge(what, found, "at most", limit, found <= limit)

    def _judge(self, what: str, found: float, bound: str, limit: float, reached: bool) -> None:
        print(f"{'reached' if reached else 'MISSED '}  {what}: {found:.2f}, {bound} {limit}", flush=True)
        self.status |= not reached


def machine() -> str:
    """The processor, the threads and the versions that figures belong to."""
    from importlib.metadata import version
    from importlib.util import find_spec

    import torch

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "transformers") if find_spec(name))
    return f"{processor}, {torch.get_num_threads()} threads; {versions}"


def network(name: str, classes: int = 1000, epsilon: float = 1e-8) -> Any:
    """bit_ref's model of a released shape, such as R152x4, with random weights, in evaluation mode."""
    import torch

    from bit_ref import BitConfig, BitForImageClassification
    from converters.mapping.architecture import Architecture

    shape = Architecture.released(name, classes)
    config = BitConfig(
        depths=list(shape.units),
        embedding_size=shape.root_width,
        hidden_sizes=[4 * width for width in shape.widths],
        num_labels=classes,
        weight_standardization_eps=epsilon,
    )
    with torch.device("meta"):
        model = BitForImageClassification(config)
    model.to_empty(device="cpu")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(1 if "norm" in key and key.endswith("weight") else 0, 0.01, generator=random)
    return model.eval()


def logits(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of any library's model."""
    output = model(images)
    return getattr(output, "logits", output)


def libraries(name: str) -> dict[str, torch.nn.Module]:
    """The same network in bit_ref, stock timm and transformers, on the same tensors in memory, in evaluation mode."""
    import torch
    import transformers

    ours = network(name)
    with torch.device("meta"):
        stock = transformers.BitForImageClassification(transformers.BitConfig(**ours.config.to_diff_dict()))
    stock.load_state_dict(ours.state_dict(), assign=True)
    return {"bit_ref": ours, "timm": in_timm(ours, name), "transformers": stock.eval()}


def in_timm(ours: Any, name: str) -> torch.nn.Module:
    """timm's model of the same network on the same tensors: its modules are in our order, its head is a convolution."""
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(f"resnetv2_{name.removeprefix('R')}_bit", num_classes=ours.config.num_labels)
    own = model.state_dict()
    tensors = zip(own, ours.state_dict().values(), strict=True)
    model.load_state_dict({key: tensor.view(own[key].shape) for key, tensor in tensors}, assign=True)
    return model.eval()
