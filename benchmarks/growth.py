"""How a forward pass grows with the batch, the resolution and the network, in bit_ref, stock timm and transformers.

.venv-peers/bin/python benchmarks/growth.py [--rounds 5] [--plot docs/growth.svg]
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch
from common import CLOCKS, in_turn, libraries, logits, machine, median, print_table, ratio

NETWORKS = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
AXES = {
    "batch (R50x1 at 224)": [("R50x1", batch, 224) for batch in (1, 2, 4, 8, 16)],
    "resolution (R50x1, batch 1)": [("R50x1", 1, size) for size in (96, 160, 224, 320, 480)],
    "network (batch 1, at 224)": [(name, 1, 224) for name in NETWORKS],
}
PLACES = dict(zip(AXES, (1, 2, 0), strict=True))
"""Which of network, batch and resolution an axis varies."""


def plot(file: str, seconds: dict[str, dict[object, dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(seconds), figsize=(12, 3.6), layout="constrained")
    for panel, (axis, found) in zip(panels, seconds.items(), strict=True):
        for library in next(iter(found.values())):
            panel.plot([*map(str, found)], [times[library] for times in found.values()], marker="o", label=library)
        panel.set_xlabel(axis)
        panel.set_yscale("log")
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("seconds")
    panels[0].legend()
    panels[-1].tick_params("x", rotation=30)
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", metavar="FILE", help="draw the table into this SVG")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="processor on a machine that is busy")
    options = parser.parse_args()
    print(machine())
    seconds: dict[str, dict[object, dict[str, float]]] = {}
    for axis, cases in AXES.items():
        rows = []
        for case in cases:
            name, batch, size = case
            models = libraries(name)
            images = torch.randn(batch, 3, size, size)
            works = {library: partial(logits, model, images) for library, model in models.items()}
            with torch.inference_mode():
                found = in_turn(works, options.rounds, clock=CLOCKS[options.clock])
            value = case[PLACES[axis]]
            seconds.setdefault(axis, {})[value] = {library: median(found, library) for library in works}
            ratios = (ratio(found, library, "bit_ref") for library in works if library != "bit_ref")
            rows.append((value, *(1000 * time for time in seconds[axis][value].values()), *ratios))
        print(f"\n{axis}, medians of {options.rounds} rounds\n")
        print_table((axis, *(f"{n}, ms" for n in works), *(f"{n} / bit_ref" for n in list(works)[1:])), rows)
    if options.plot:
        plot(options.plot, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
