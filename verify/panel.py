"""The panel of oracles: witnesses that compute the same in another way, and must agree before any of them judges.

A float32 floor is far above what float64 can do to an honest oracle, so that a thousandth of it tells a witness that
computes something else from one that only rounds otherwise; and nothing that small decides a verdict.

    source, images → witness → each layer beside the first oracle's → objections
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from verify import compare
from verify.protocols import Layer, Oracle, OracleError, PoolPadding, Source

Array = npt.NDArray[Any]
Image = npt.NDArray[np.float32]
Witness = Callable[[Source, PoolPadding], Oracle]

AGREEMENT = 1e-3
"""The share of a float32 floor that two oracles may differ by."""


def _tensorflow(source: Source, pool_padding: PoolPadding) -> Oracle:
    oracle: Oracle = import_module("verify.oracles.tensorflow").TensorFlowOracle(source, pool_padding=pool_padding)
    return oracle


WITNESSES: Mapping[str, Witness] = {"tensorflow": _tensorflow}
"""Those that any source can be given, by the name that a user asks for."""


class Panel:
    """The witnesses of one audit, walked alongside the first oracle."""

    def __init__(
        self, witnesses: Sequence[Witness], source: Source, pool_padding: PoolPadding, images: Sequence[Image]
    ) -> None:
        self.objections: list[str] = []
        self.names: list[str] = []
        self._walks: list[tuple[Oracle, Iterator[Layer]]] = []
        self._next: dict[str, Layer | None] = {}
        self._heard: dict[str, int] = {}
        for witness in witnesses:
            try:
                oracle = witness(source, pool_padding)
            except ImportError as error:
                self.objections.append(f"an oracle was not run: {error.name or error} is not installed")
                continue
            self.names.append(oracle.name)
            self._walks.append((oracle, oracle.layers(images)))

    def hear(self, layer: Layer, floor: float) -> None:
        """One layer of the first oracle, and its float32 floor; a witness that gives this layer is compared."""
        for oracle, walk in self._walks:
            if oracle.name not in self._next:
                self._advance(oracle, walk)
            theirs = self._next[oracle.name]
            if theirs is not None and (theirs.name, theirs.image) == (layer.name, layer.image):
                limit = AGREEMENT * max(floor, compare.U * compare.norm(layer.truth))
                self._compare(oracle, layer.name, layer.image, layer.truth, theirs.truth, limit)
                self._advance(oracle, walk)

    def hear_logits(self, truth: Array, runs: Array, scales: Array) -> None:
        """(images, classes) logits of the first oracle, its (runs, images, classes) in float32, and their scale."""
        for oracle, walk in self._walks:
            if self._next.get(oracle.name) is not None or next(walk, None) is not None:
                self._object(f"{oracle.name} gives layers that the checkpoint's network has not")
                continue
            try:
                theirs = np.concatenate([block.truth for block in oracle.head_blocks()], axis=-1)
            except (OracleError, ValueError) as error:
                self._object(f"{oracle.name}: {error}")
                continue
            for image, logits in enumerate(truth):
                floor = max(compare.norm(runs[:, image] - logits), compare.U * compare.norm(scales[image]))
                self._compare(oracle, "logits", image, logits, theirs[image], AGREEMENT * floor)

    def _advance(self, oracle: Oracle, walk: Iterator[Layer]) -> None:
        try:
            self._next[oracle.name] = next(walk, None)
        except (OracleError, ValueError) as error:
            self._next[oracle.name] = None
            self._object(f"{oracle.name}: {error}")

    def _compare(self, oracle: Oracle, name: str, image: int, ours: Array, theirs: Array, limit: float) -> None:
        self._heard[oracle.name] = self._heard.get(oracle.name, 0) + 1
        if ours.shape != theirs.shape:
            self._object(f"{oracle.name} gives {name} in shape {theirs.shape}, not {ours.shape}")
            return
        distance = compare.norm(ours - theirs)
        if not distance <= limit:
            where = f"{name} on image {image + 1} by {distance:.1e}, {limit:.1e} allowed"
            self._object(f"the oracles disagree: {oracle.name} differs at {where}")

    def _object(self, text: str) -> None:
        self.objections.append(text)

    def close(self) -> None:
        """The end of the walk: a witness that gave nothing to compare is none."""
        silent = [oracle.name for oracle, _ in self._walks if not self._heard.get(oracle.name)]
        self.objections += [f"{name} gave nothing to compare" for name in silent]
