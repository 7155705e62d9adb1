"""The panel of oracles: witnesses that compute the same in another way, and must agree before any of them judges.

A float32 floor is far above what float64 can do to an honest oracle, so that a thousandth of it tells a witness that
computes something else from one that only rounds otherwise; and nothing that small decides a verdict.

    source, images → witness → each layer beside the first oracle's → a WitnessReport for each witness

A witness that was asked for and cannot be run, or gives nothing to compare, is an objection; one that comes with the
source unasked is then left out and said to be. What departs is an objection in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.protocols import Layer, Oracle, OracleError, PoolPadding, Source
from verify.report.parity import WitnessReport

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]
Maker = Callable[[Source, PoolPadding], Oracle]

AGREEMENT = 1e-3
"""The share of a float32 floor that two oracles may differ by."""


@dataclass(frozen=True)
class Witness:
    """An oracle to be: what it is called in options and reports, who makes it, and whether it was asked for."""

    oracle: str
    make: Maker
    asked: bool = True


def _made_by(module: str, name: str) -> Maker:
    def make(source: Source, pool_padding: PoolPadding) -> Oracle:
        oracle: Oracle = getattr(import_module(f"verify.oracles.{module}"), name)(source, pool_padding=pool_padding)
        return oracle

    return make


MAKERS: Mapping[str, Maker] = {
    "graph": _made_by("graph", "GraphOracle"),
    "keras": _made_by("keras", "KerasOracle"),
    "tensorflow": _made_by("tensorflow", "TensorFlowOracle"),
}
"""Who makes the oracles, by the name that a user asks for."""


class Testimony:
    """What one witness says, layer by layer, as far as it has been heard."""

    def __init__(self, witness: Witness, source: Source, pool_padding: PoolPadding, images: Sequence[Image]) -> None:
        self.witness = witness
        self.objection = ""
        self._inability = ""
        self._oracle: Oracle | None = None
        self._walk: Iterator[Layer] | None = None
        self._next: Layer | None = None
        self._compared = 0
        try:
            self._oracle = witness.make(source, pool_padding)
            self._walk = self._oracle.layers(images)
        except ImportError as error:
            self._cannot(f"was not run: {error.name or error} is not installed")
        except OracleError as error:
            self._cannot(f"was not run: {error}")

    @property
    def name(self) -> str:
        return self._oracle.name if self._oracle else f"the {self.witness.oracle} oracle"

    def hear(self, layer: Layer, floor: float) -> None:
        """One layer of the first oracle, and its float32 floor; if the witness gives this layer it is compared."""
        theirs = self._peek()
        if theirs is not None and (theirs.name, theirs.image) == (layer.name, layer.image):
            limit = AGREEMENT * max(floor, compare.U * compare.norm(layer.truth))
            self._compare(layer.name, layer.image, layer.truth, theirs.truth, limit)
            self._next = None

    def hear_logits(self, truth: Array, floors: Sequence[float]) -> None:
        """(images, classes) logits of the first oracle, and the float32 floor of each image's."""
        given = self._logits(len(truth))
        for image, logits in given.items():
            self._compare("logits", image, truth[image], logits, AGREEMENT * floors[image])

    def report(self) -> WitnessReport:
        """The end of the walk: a witness that gave nothing to compare is none."""
        if self._peek() is not None:
            self._object(f"{self.name} gives layers that the checkpoint's network has not")
        elif not self._compared:
            self._cannot("gave nothing to compare")
        reason = self.objection or self._inability or (self._oracle.note if self._oracle else "")
        verdict: Any = "objects" if self.objection else "not run" if self._inability else "agrees"
        return WitnessReport(self.witness.oracle, self.name, verdict, self._compared, reason)

    def _peek(self) -> Layer | None:
        """The layer that comes next."""
        if self._next is None and self._walk is not None:
            try:
                self._next = next(self._walk, None)
            except (OracleError, ValueError) as error:
                self._cannot(f"{error}", ":")
            if self._next is None:
                self._walk = None
        return self._next

    def _logits(self, images: int) -> dict[int, Array]:
        """Image → logits: those among the layers, or else of the head."""
        given: dict[int, Array] = {}
        while (layer := self._peek()) is not None and layer.name == "logits" and layer.image < images:
            given[layer.image], self._next = layer.truth, None
        if given or self._oracle is None or self._peek() is not None:
            return given
        try:
            blocks = [block.truth for block in self._oracle.head_blocks()]
        except (OracleError, ValueError) as error:
            self._cannot(f"{error}", ":")
            return {}
        return dict(enumerate(np.concatenate(blocks, axis=-1))) if blocks else {}

    def _compare(self, name: str, image: int, ours: Array, theirs: Array, limit: float) -> None:
        self._compared += 1
        if ours.shape != theirs.shape:
            self._object(f"{self.name} gives {name} in shape {theirs.shape}, not {ours.shape}")
            return
        distance = compare.norm(ours - theirs)
        if not distance <= limit:
            where = f"{name} on image {image + 1} by {distance:.1e}, {limit:.1e} allowed"
            self._object(f"the oracles disagree: {self.name} differs at {where}")

    def _cannot(self, why: str, colon: str = "") -> None:
        """It cannot go on: an objection if it was asked for, or has begun to speak."""
        if self.witness.asked or self._compared:
            self._object(f"{self.name}{colon} {why}")
        else:
            self._inability = self._inability or why.removeprefix("was not run: ")

    def _object(self, text: str) -> None:
        self.objection = self.objection or text


class Panel:
    """The witnesses of one audit, walked alongside the first oracle."""

    def __init__(
        self, witnesses: Sequence[Witness], source: Source, pool_padding: PoolPadding, images: Sequence[Image]
    ) -> None:
        self._testimonies = [Testimony(witness, source, pool_padding, images) for witness in witnesses]

    def hear(self, layer: Layer, floor: float) -> None:
        """One layer of the first oracle, and its float32 floor."""
        for testimony in self._testimonies:
            testimony.hear(layer, floor)

    def hear_logits(self, truth: Array, runs: Array, scales: Array) -> None:
        """(images, classes) logits of the first oracle, its (runs, images, classes) in float32, and their scale."""
        floors = [
            max(compare.norm(runs[:, image] - logits), compare.U * compare.norm(scales[image]))
            for image, logits in enumerate(truth)
        ]
        for testimony in self._testimonies:
            testimony.hear_logits(truth, floors)

    def reports(self) -> list[WitnessReport]:
        """What came of it, at the end of the walk."""
        return [testimony.report() for testimony in self._testimonies]
