"""The steps of a layer that a candidate computes rightly: computed once for all candidates.

A candidate is wrong in one kernel, one norm or one constant, and most of a unit is as the right oracle has it: what
comes before the fault, and what runs beside it. ``RightSteps`` keeps those results, for one layer and one input.

    ``SharingOracle.layer_with()`` → RightSteps → the activations that an oracle before this one has computed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from verify.oracles.numpy import NumpyOracle
from verify.protocols import Layer

Streams = list[Any]


class RightSteps:
    """The activations that right steps give, for one layer and one input."""

    def __init__(self) -> None:
        self._results: dict[tuple[object, ...], Streams] = {}
        self._right: set[int] = set()

    def result(self, step: tuple[object, ...], taken: Streams | None, compute: Callable[[], Streams]) -> Streams:
        """Returns what ``compute`` gives for a right step, which is called where the step or what it takes is new."""
        if taken is not None and id(taken) not in self._right:  # a step before this one was wrong
            return compute()
        key = (*step, id(taken))
        if key not in self._results:
            self._results[key] = compute()
            self._right.add(id(self._results[key]))
        return self._results[key]


class SharingOracle(NumpyOracle):
    """An oracle with one float64 run that takes from right steps what it computes as the right oracle does."""

    _steps: RightSteps | None = None

    def layer_with(self, steps: RightSteps | None, name: str, images: Sequence[Any]) -> list[Layer]:
        """As ``layer``, with the right steps of this layer on these images; None: all of it is computed."""
        self._steps = steps
        return self.layer(name, images)

    def _start(self, images: Any) -> Streams:
        return self._shared(("start", self.arithmetic), None, True, lambda: super(SharingOracle, self)._start(images))

    def _norm(self, at: str, streams: Streams) -> Streams:
        right = self._is_right_norm(at)
        return self._shared(("norm", at), streams, right, lambda: super(SharingOracle, self)._norm(at, streams))

    def _conv(self, at: str, streams: Streams, size: int = 1, stride: int = 1, like: Streams | None = None) -> Streams:
        def compute() -> Streams:
            return super(SharingOracle, self)._conv(at, streams, size, stride, like)

        return self._shared(("conv", at, size, stride), streams, self._is_right_conv(at), compute)

    def _note_constant_channel(self, name: str, kernel: Any) -> None:
        """Concerns are the walk's."""

    def _shared(
        self, step: tuple[object, ...], taken: Streams | None, right: bool, compute: Callable[[], Streams]
    ) -> Streams:
        return self._steps.result(step, taken, compute) if self._steps and right else compute()

    def _is_right_norm(self, at: str) -> bool:
        return self._reads_right(at + "group_norm/gamma", at + "group_norm/beta")

    def _is_right_conv(self, at: str) -> bool:
        return self._reads_right(at + "standardized_conv2d/kernel")

    def _reads_right(self, *names: str) -> bool:
        """Whether the source gives these tensors as they are."""
        return not any(name in getattr(self.source, "wrong", ()) for name in names)
