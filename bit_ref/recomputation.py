"""Activation checkpointing: a training computes a unit's activations again in the backward pass, and keeps none.

    model.gradient_checkpointing_enable() → every Units of the model → torch.utils.checkpoint around each unit

The gradients are the same; memory falls to about that of one unit, and a step takes about a third longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint


class Units(nn.Sequential):
    """Units one after the other, each of which may be computed again in the backward pass of a training."""

    gradient_checkpointing = False
    _checkpoint: Callable[..., Any] = staticmethod(checkpoint)
    checkpointed: frozenset[int] = frozenset()
    """Places of the units that are computed again."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        for place, unit in enumerate(self):
            x = self._checkpoint(unit, x) if place in self.checkpointed else unit(x)
        return x


class ActivationCheckpointing(nn.Module):
    """Switches it on and off for a whole model, under the names that transformers had and has for it."""

    supports_gradient_checkpointing = True

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute every ``every_n_layers``-th unit again; ``offload`` keeps what is kept of it in the host's memory.

        ``activation_checkpointing_kwargs`` are those of ``torch.utils.checkpoint.checkpoint``, of which
        ``use_reentrant`` is False where it is not given. Raises ValueError for an ``every_n_layers`` below 1.
        """
        if every_n_layers < 1:
            raise ValueError(f"every_n_layers={every_n_layers} is less than 1, which is every unit")
        options = {"use_reentrant": False, **(activation_checkpointing_kwargs or {})}
        function = partial(_checkpoint_on_host if offload else checkpoint, **options)
        number = 0
        for units in self._units():
            units._checkpoint = function
            units.checkpointed = frozenset(k for k in range(len(units)) if (number + k) % every_n_layers == 0)
            units.gradient_checkpointing = True
            number += len(units)

    def activation_checkpointing_disable(self) -> None:
        for units in self._units():
            units.gradient_checkpointing = False

    @property
    def is_activation_checkpointing(self) -> bool:
        return any(units.gradient_checkpointing for units in self._units())

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def gradient_checkpointing_disable(self) -> None:
        self.activation_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        return self.is_activation_checkpointing

    def _units(self) -> list[Units]:
        return [module for module in self.modules() if isinstance(module, Units)]


def _checkpoint_on_host(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return checkpoint(function, *arguments, **options)
