"""Kernels that evaluation mode standardises once.

weight → standardized_weight() → the cache, with the state of the weight → kernel(), until that state changes

A graph of ``torch.compile`` serves many calls, and cannot look at the state of a weight. So the model looks at it
before each call, outside of the graph, which takes the cached kernels as inputs:

    compiled(x) → _give() → each layer's kernel, where the cache may serve → the graph → _take_back()
"""

from __future__ import annotations

import sys
from typing import Any, Self
from weakref import WeakKeyDictionary

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

    _cached: tuple[tuple[Any, ...], torch.memory_format, Tensor, Tensor] | None = None
    _given: Tensor | None = None
    """The kernel that this call of a compiled model takes."""

    def standardized_weight(self) -> Tensor:
        raise NotImplementedError

    def kernel(self, x: Tensor) -> Tensor:
        """``standardized_weight()``, from the cache or computed, to the same bits; on a GPU in channels_last if x is.

        In the graph of ``torch.compile(model)`` it is an input, from the cache. In other graphs, of export, of traces
        and of compiled modules that contain the model, it is computed, so that they have the weight as their input.
        """
        if torch.compiler.is_compiling():
            return self.standardized_weight() if self._given is None else self._given
        if is_tracing() or not self._is_constant():
            return self.standardized_weight()
        return self._from_cache(_memory_format(x))

    def _kept(self) -> Tensor | None:
        """The kernel that the cache may serve now; None where more than a look at its state is needed."""
        cached, weight = self._cached, self._parameters.get("weight")
        if cached is None or cached[2] is not weight or self.training:
            return None
        is_same = cached[0] == (weight._version, weight.data_ptr(), self.epsilon)
        return cached[3] if is_same and not (weight.requires_grad and torch.is_grad_enabled()) else None

    def _is_constant(self) -> bool:
        """Whether no gradient of the kernel is wanted, and every change of the weight will be seen."""
        weight = self.weight
        differentiated = torch.is_grad_enabled() and weight.requires_grad
        return not (self.training or differentiated) and self.epsilon is not None and _counts_changes(weight)

    def _from_cache(self, memory_format: torch.memory_format | None = None) -> Tensor:
        """The kernel in this format; without one, in that which it is there in, or else its device's usual one."""
        weight, cached = self.weight, self._cached
        state = (weight._version, weight.data_ptr(), self.epsilon)
        if cached is None or cached[2] is not weight or cached[0] != state or memory_format not in (None, cached[1]):
            memory_format = memory_format or _usual_format(weight)
            with torch.inference_mode(False), torch.no_grad():  # to serve outside of inference mode as well
                kernel = self.standardized_weight().contiguous(memory_format=memory_format)
            if not _may_be_kept(kernel):
                return kernel
            cached = self._cached = state, memory_format, weight, kernel
        return cached[3]

    def train(self, mode: bool = True) -> Self:
        self._cached = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._cached = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None, "_given": None}


def serve_compiled(model: nn.Module) -> None:
    """Has ``torch.compile(model)`` take kernels from the cache."""
    model.register_forward_pre_hook(_give)
    model.register_forward_hook(_take_back, always_call=True)


def _give(model: nn.Module, arguments: object) -> None:
    """Gives the layers their kernels for one call; nothing in a graph, nor where nothing was ever compiled."""
    if torch.compiler.is_compiling() or is_tracing() or "torch._dynamo" not in sys.modules:
        return
    for layer in _layers(model):
        kernel = layer._kept()
        if kernel is None and layer._is_constant():
            kernel = layer._from_cache()
        if kernel is not None and kernel.is_cuda:  # a CUDA graph reads it in place, and is recorded again for another
            torch._dynamo.mark_static_address(kernel)
        layer.__dict__["_given"] = kernel


def _take_back(model: nn.Module, arguments: object, output: object) -> None:
    if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
        return
    for layer in _layers(model):
        layer.__dict__["_given"] = None


_LAYERS: WeakKeyDictionary[nn.Module, list[CachedKernel]] = WeakKeyDictionary()
"""Listed once for each model: a layer that is put in later computes its kernel in the graph."""


def _layers(model: nn.Module) -> list[CachedKernel]:
    if model not in _LAYERS:
        _LAYERS[model] = [module for module in model.modules() if isinstance(module, CachedKernel)]
    return _LAYERS[model]


def _skip_when_compiling() -> None:
    """``torch.compile`` runs a model's own hooks outside of its graph; these are not to become graphs themselves.

    Where PyTorch does not know how to skip them, they do nothing, and kernels are computed in the graph.
    """
    dynamo = torch._C._dynamo.eval_frame
    if hasattr(dynamo, "set_code_exec_strategy"):
        skip = dynamo._FrameExecStrategy(dynamo._FrameAction.SKIP, dynamo._FrameAction.SKIP)
        for hook in (_give, _take_back):
            dynamo.set_code_exec_strategy(hook.__code__, skip)


_skip_when_compiling()


def is_tracing() -> bool:
    """Whether ``torch.jit.trace`` is running the model."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def is_transforming() -> bool:
    """Whether a transform of ``torch.func`` is running the model: ``vmap`` knows no memory format but the usual one."""
    return not torch.compiler.is_compiling() and bool(torch._C._are_functorch_transforms_active())


def _memory_format(x: Tensor) -> torch.memory_format:
    """That of x on a GPU, where a kernel in another would be copied at each call."""
    if not x.is_cuda or x.is_contiguous() or is_transforming():
        return torch.contiguous_format
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def _usual_format(weight: Tensor) -> torch.memory_format:
    """That of a map's kernels in eager mode, and what ``torch.compile`` would convert them to at each call."""
    return torch.channels_last if weight.is_cuda else torch.contiguous_format


def _may_be_kept(kernel: Tensor) -> bool:
    """Whether every stream and thread may take a kernel from now on, which on a GPU is waited for.

    While a CUDA graph is recorded, nothing is computed: the kernel is the graph's own, which standardises it each time.
    In a transform of ``torch.func`` it is a wrapper, which ends with the transform.
    """
    if torch._C._functorch.is_functorch_wrapped_tensor(kernel):
        return False
    if kernel.is_cuda:
        if torch.cuda.is_current_stream_capturing():
            return False
        torch.cuda.current_stream(kernel.device).synchronize()
    return True


def _counts_changes(weight: Tensor) -> bool:
    """Not so what was made in inference mode, nor what stands in for a parameter: in functional calls,
    parametrizations, as sharded or as fake tensors."""
    return type(weight) is nn.Parameter and not weight.is_inference()
