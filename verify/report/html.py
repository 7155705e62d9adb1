"""parity.html: a report for people, in one file that asks nothing of the network.

Report, environment, command → report.html.jinja (with plots drawn as inline SVG) → text
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from verify.compare import FACTOR, in_words
from verify.precision import precision_named
from verify.report.meaning import class_name, evaluation_lines, figure_text, meaning
from verify.report.pages import page
from verify.report.parity import LayerReport, LogitReport, Report

TEMPLATE = "report.html.jinja"

WIDTH, LEFT, RIGHT, ROW = 360, 88, 14, 12
"""Sizes of the plot of layers, in SVG units: narrow enough for a phone; each layer has a row, its name at the left."""
TICKS = 6
"""Steps between the labels of its scale, at most."""
SIDE, CORNER = 200, (40, 212)
"""Length of the square of logits, and the place of its lower left corner."""
LISTED = 8
"""Misfits that stand open; more are folded away."""


@dataclass(frozen=True)
class Point:
    """A layer in the plot: its row, how far to the right its error, its floor and its limit are, and what it is."""

    y: float
    error: float | None
    floor: float | None
    limit: float | None
    label: str
    text: str
    within: bool


@dataclass(frozen=True)
class Tick:
    """A line of the grid."""

    at: float
    label: str


def render(report: Report, environment: Mapping[str, str], command: str) -> str:
    """The page; ``environment`` is what ran (name → version), ``command`` what repeats it."""
    points, ticks = layer_plot(report.layers)
    dots, axis = logit_plot(report.logits)
    return page(
        "verify.report",
        TEMPLATE,
        report=report,
        environment=environment,
        command=command,
        factor=FACTOR,
        points=points,
        ticks=ticks,
        dots=dots,
        axis=axis,
        width=WIDTH,
        left=LEFT,
        bottom=2 + ROW * len(points),
        listed=LISTED,
        corner=CORNER,
        side=SIDE,
        figure=figure_text,
        ratio=partial(figure_text, form=".3g"),
        in_words=in_words,
        precision=precision_named(report.readers[0].name) if report.readers else "float32",
        final="logits" if any(layer.name == "logits" for layer in report.layers) else "pooled features",
        meaning=meaning(report),
        evaluation_lines=evaluation_lines,
        class_name=class_name,
        unmet=[each for each in report.expectations if not each.met],
    )


def layer_plot(layers: Sequence[LayerReport]) -> tuple[list[Point], list[Tick]]:
    """Errors, floors and limits on a logarithmic scale, a row for each layer."""
    floors = [layer.limit / FACTOR if layer.limit else None for layer in layers]
    values = [v for layer in layers for v in (layer.error, layer.limit) if v] + [f for f in floors if f]
    if not values:
        return [], []
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x(value: float | None) -> float | None:
        if value is None:
            return None
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return round(LEFT + max(share, 0.0) * (WIDTH - LEFT - RIGHT), 1)

    points = [
        Point(
            y=round(2 + ROW * (index + 0.5), 1),
            error=x(layer.error),
            floor=x(floor),
            limit=x(layer.limit),
            label=layer.name,
            text=f"{layer.name}: error {figure_text(layer.error)}, "
            f"floor {figure_text(floor)}, limit {figure_text(layer.limit)}",
            within=layer.error is not None and layer.limit is not None and layer.error <= layer.limit,
        )
        for index, (layer, floor) in enumerate(zip(layers, floors, strict=True))
    ]
    powers = range(low, high + 1, max(1, math.ceil((high - low) / TICKS)))
    return points, [Tick(x(10.0**power) or 0.0, f"1e{power:+03d}") for power in powers]


def logit_plot(logits: Sequence[LogitReport]) -> tuple[list[tuple[float, float, str]], list[Tick]]:
    """Dots of (x, y, text) in a square: the oracle's logit across, the model's upwards."""
    pairs = [(each, each.oracle, each.model) for each in logits if each.oracle is not None and each.model is not None]
    if not pairs:
        return [], []
    values = [value for _, oracle, model in pairs for value in (oracle, model)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return SIDE * (value - low) / span

    dots = [
        (
            round(CORNER[0] + at(oracle), 1),
            round(CORNER[1] - at(model), 1),
            f"class {each.index}: oracle {oracle}, model {model}",
        )
        for each, oracle, model in pairs
    ]
    return dots, [Tick(round(at(value), 1), f"{value:.3g}") for value in (low, high)]
