"""Kernels that evaluation mode standardises once.

weight → standardized_weight() → the cache, with the state of the weight → kernel(), until that state changes
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn


class CachedKernel(nn.Module):
    """A layer that computes its kernel from its weight, once where no gradient of it is wanted.

    The cached kernel is no part of the state dict, of a copy or of a pickle. Setting a mode, a device or a data type,
    another parameter and any in-place change void it. Changes through ``weight.data`` are the exception, since PyTorch
    does not count them: call ``eval()`` after them.
    """

    weight: Tensor
    epsilon: float | None

    _cached: tuple[tuple[int, int, int, float | None], Tensor, Tensor] | None = None

    def standardized_weight(self) -> Tensor:
        raise NotImplementedError

    def kernel(self) -> Tensor:
        """``standardized_weight()``, from the cache or computed, to the same bits.

        Inside ``torch.compile``, export and traces it is computed, so that graphs have the weight as their input.
        """
        weight = self.weight
        differentiated = torch.is_grad_enabled() and weight.requires_grad
        in_graph = torch.compiler.is_compiling() or is_tracing()
        if self.training or differentiated or in_graph or not _counts_changes(weight):
            return self.standardized_weight()
        state = (id(weight), weight._version, weight.data_ptr(), self.epsilon)
        if self._cached is None or self._cached[0] != state:
            with torch.inference_mode(False), torch.no_grad():  # to serve outside of inference mode as well
                self._cached = state, weight, self.standardized_weight()  # the weight, so that its id stays its own
        return self._cached[2]

    def train(self, mode: bool = True) -> Self:
        self._cached = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._cached = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is running the model."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def _counts_changes(weight: Tensor) -> bool:
    """Not so what was made in inference mode, nor what stands in for a parameter: in functional calls,
    parametrizations, as sharded or as fake tensors."""
    return type(weight) is nn.Parameter and not weight.is_inference()
