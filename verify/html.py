"""parity.html: a report for people, in one file that asks nothing of the network.

Report, environment, command → report.html.jinja (with plots drawn as inline SVG) → text
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from verify.compare import FACTOR
from verify.faults import KINDS
from verify.report import LayerReport, LogitReport, Report

TEMPLATE = "report.html.jinja"

WIDTH, HEIGHT = 720, 300
LEFT, TOP, BOTTOM = 56, 14, 96
"""Margins of the plots, in SVG units: labels stand there."""
LABELS = 24
"""Most names under the plot of the layers."""


@dataclass(frozen=True)
class Point:
    """A layer in the plot: where it stands, how high its error, its floor and its limit are, and what it is."""

    x: float
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
    import jinja2

    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        files("verify").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    points, ticks = layer_plot(report.layers)
    dots, axis = logit_plot(report.logits)
    return template.render(
        report=report,
        environment=environment,
        command=command,
        kinds=KINDS,
        factor=FACTOR,
        points=points,
        ticks=ticks,
        dots=dots,
        axis=axis,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=HEIGHT - BOTTOM,
        figure=_figure,
        unmet=[each for each in report.expectations if not each.met],
    )


def layer_plot(layers: Sequence[LayerReport]) -> tuple[list[Point], list[Tick]]:
    """Errors, floors and limits on a logarithmic scale, a column for each layer."""
    floors = [layer.limit / FACTOR if layer.limit else None for layer in layers]
    values = [v for layer in layers for v in (layer.error, layer.limit) if v] + [f for f in floors if f]
    if not values:
        return [], []
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def y(value: float | None) -> float | None:
        if value is None:
            return None
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return round(HEIGHT - BOTTOM - max(share, 0.0) * (HEIGHT - BOTTOM - TOP), 1)

    step, every = (WIDTH - LEFT - 10) / len(layers), math.ceil(len(layers) / LABELS)
    points = [
        Point(
            x=round(LEFT + (index + 0.5) * step, 1),
            error=y(layer.error),
            floor=y(floor),
            limit=y(layer.limit),
            label=layer.name if index % every == 0 or index == len(layers) - 1 else "",
            text=f"{layer.name}: error {_figure(layer.error)}, floor {_figure(floor)}, limit {_figure(layer.limit)}",
            within=layer.error is not None and layer.limit is not None and layer.error <= layer.limit,
        )
        for index, (layer, floor) in enumerate(zip(layers, floors, strict=True))
    ]
    powers = range(low, high + 1, max(1, (high - low) // 6))
    return points, [Tick(y(10.0**power) or 0.0, f"1e{power:+03d}") for power in powers]


def logit_plot(logits: Sequence[LogitReport]) -> tuple[list[tuple[float, float, str]], list[Tick]]:
    """Dots of (x, y, text) in a square of 240 units: the oracle's logit across, the model's upwards."""
    pairs = [(each, each.oracle, each.model) for each in logits if each.oracle is not None and each.model is not None]
    if not pairs:
        return [], []
    values = [value for _, oracle, model in pairs for value in (oracle or 0.0, model or 0.0)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return round(20 + 200 * (value - low) / span, 1)

    dots = [
        (at(oracle or 0.0), round(240 - at(model or 0.0), 1), f"class {each.index}: oracle {oracle}, model {model}")
        for each, oracle, model in pairs
    ]
    return dots, [Tick(at(value), f"{value:.3g}") for value in (low, high)]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2e}"
