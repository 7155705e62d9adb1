"""Oracles beside the first one: each computes the same network in another way, and must agree with it.

The float32 floor of a layer is far larger than any honest difference between two float64 computations. So a thousandth
of it separates an oracle that computes something else from one that only rounds in another order, and a difference
that small decides no verdict.

    source, images → other oracle → each layer compared with the first oracle's → one OracleReport for each

An oracle that differs makes the audit inconclusive. So does one that was asked for and cannot be run or gives nothing
to compare; one that comes with the source unasked is then left out, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.protocols import Layer, Oracle, OracleError, PoolPadding, Source
from verify.report.parity import OracleReport, OracleVerdict

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
Maker = Callable[[Source, PoolPadding], Oracle]

AGREEMENT = 1e-3
"""The share of a float32 floor that two oracles may differ by."""


@dataclass(frozen=True)
class OracleRequest:
    """An oracle that is to be compared with the first one; ``name`` is that of options and reports."""

    name: str
    make: Maker
    required: bool = True
    """Nothing can be concluded without it. Otherwise it is left out where it cannot be run."""


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
"""The oracles beside NumPy's by name; each maker imports its library when it is called."""


class OracleAgreement:
    """One other oracle, compared layer by layer with the first one."""

    def __init__(self, request: OracleRequest, source: Source, pool_padding: PoolPadding, images: Sequence[Image]):
        self.request = request
        self._difference = ""
        self._failure = ""
        self._required = request.required
        self._oracle: Oracle | None = None
        self._walk: Iterator[Layer] | None = None
        self._next: Layer | None = None
        self._compared = 0
        try:
            self._oracle = request.make(source, pool_padding)
            self._walk = self._oracle.layers(images)
        except ImportError as error:
            self._fail(f"{error.name or error} is not installed", " was not run: ")
        except OracleError as error:
            self._fail(f"{error}", " was not run: ")

    @property
    def name(self) -> str:
        return self._oracle.name if self._oracle else f"the {self.request.name} oracle"

    def compare(self, layer: Layer, floor: float) -> None:
        """Compares a layer of the first oracle, whose float32 floor is ``floor``, if this oracle has that layer."""
        own = self._peek()
        if own is not None and (own.name, own.image) == (layer.name, layer.image):
            limit = AGREEMENT * max(floor, compare.U * compare.norm(layer.truth))
            self._compare(layer.name, layer.image, layer.truth, own.truth, limit)
            self._next = None

    def compare_logits(self, truth: Array, runs: Array, scales: Array) -> None:
        """Compares the first oracle's (images, classes) logits; ``runs`` are those of its float32 runs,
        (runs, images, classes), and ``scales`` the sums of absolute terms behind each logit."""
        for image, logits in self._logits(len(truth)).items():
            floor = max(compare.norm(runs[:, image] - truth[image]), compare.U * compare.norm(scales[image]))
            self._compare("logits", image, truth[image], logits, AGREEMENT * floor)

    def report(self) -> OracleReport:
        """Ends the comparison and returns its result."""
        if self._peek() is not None:
            self._differ(f"{self.name} gives layers that the checkpoint's network does not have")
        elif not self._compared:
            self._fail("gave nothing to compare", " ")
        reason = self._difference or self._failure or (self._oracle.note if self._oracle else "")
        return OracleReport(self.request.name, self.name, self._verdict(), self._compared, reason)

    def _verdict(self) -> OracleVerdict:
        if self._difference:
            return "disagrees"
        if self._failure:
            return "failed" if self._required else "not run"
        return "agrees"

    def _peek(self) -> Layer | None:
        """Returns the layer that comes next, without taking it."""
        if self._next is None and self._walk is not None:
            try:
                self._next = next(self._walk, None)
            except (OracleError, ValueError) as error:
                self._fail(f"{error}", ": ")
            if self._next is None:
                self._walk = None
        return self._next

    def _logits(self, images: int) -> dict[int, Array]:
        """Returns image → logits, from among the layers where they are there, otherwise from the head."""
        given: dict[int, Array] = {}
        while (layer := self._peek()) is not None and layer.name == "logits" and layer.image < images:
            given[layer.image], self._next = layer.truth, None
        if given or self._oracle is None or self._peek() is not None:
            return given
        try:
            blocks = [block.truth for block in self._oracle.head_blocks()]
        except (OracleError, ValueError) as error:
            self._fail(f"{error}", ": ")
            return {}
        return dict(enumerate(np.concatenate(blocks, axis=-1))) if blocks else {}

    def _compare(self, name: str, image: int, first: Array, own: Array, limit: float) -> None:
        self._compared += 1
        if first.shape != own.shape:
            self._differ(f"{self.name} gives {name} in shape {own.shape}, not {first.shape}")
            return
        distance = compare.norm(first - own)
        if not distance <= limit:
            where = f"{name} on image {image + 1} by {distance:.1e}, {limit:.1e} allowed"
            self._differ(f"the oracles disagree: {self.name} differs at {where}")

    def _differ(self, text: str) -> None:
        self._difference = self._difference or text

    def _fail(self, why: str, link: str) -> None:
        """Notes why the oracle cannot go on; after a first comparison nothing can be concluded without it."""
        if not self._failure:
            self._required = self.request.required or self._compared > 0
            self._failure = f"{self.name}{link}{why}" if self._required else why
