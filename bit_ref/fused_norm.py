"""GroupNorm and ReLU as one pass over a feature map on a GPU, for inference.

PyTorch's GroupNorm goes back to contiguous NCHW, and reads and writes the map more often. Here maps stay in
channels_last, as cuDNN's convolutions want them. Wherever this is not surely the same function, PyTorch's is used: on
other devices, in training, where a gradient is wanted, in autocast, in ``torch.compile``, export and traces, for other
data types, and without Triton, which comes with PyTorch for NVIDIA's GPUs.

    x → ``group_norm_relu()`` → what ``fused_norm_kernels`` computes, or None: PyTorch is to compute it
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bit_ref.kernel_cache import is_tracing, is_transforming

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
"""The least compute capability: Ampere's."""
IMAGES, VALUES = 2**16 - 1, 2**31
"""Images at once, and values of one: as many as a grid of programs and 32 bits can count."""

_refused: list[str] = []
"""Why Triton cannot be used in this process, once that is known."""


def group_norm_relu(norm: nn.GroupNorm, x: Tensor) -> Tensor | None:
    """``relu(norm(x))`` for x (N, C, H, W), new and in channels_last, with statistics in float32; None where PyTorch is
    to compute it."""
    if not x.is_cuda or not _fits(norm, x) or _refused:
        return None
    try:
        with torch.cuda.device(x.device):
            kernels = _kernels()
            return None if kernels is None else kernels.group_norm_relu(x, norm)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, which needs a C compiler, a driver, a folder to write to, …
        _refused.append(str(error))
        warnings.warn(f"bit_ref uses PyTorch's GroupNorm, since Triton fails here: {error}", stacklevel=2)
        return None


def _fits(norm: nn.GroupNorm, x: Tensor) -> bool:
    weights = (norm.weight, norm.bias)
    return (
        not (torch.compiler.is_compiling() or is_tracing() or norm.training)
        and type(x) is Tensor
        and x.ndim == 4
        and len(x) <= IMAGES
        and 0 < x.numel() < VALUES * len(x)
        and x.dtype in DTYPES
        and all(type(weight) is nn.Parameter and weight.dtype == x.dtype for weight in weights)
        and all(weight.device == x.device and weight.is_contiguous() for weight in weights)
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *weights)))
        and not _is_transformed()
        and not torch.is_autocast_enabled("cuda")
        and _is_recent(x.device)
    )


def _is_transformed() -> bool:
    """Whether a transform of ``torch.func`` or forward-mode differentiation is at work, which see no kernel of ours."""
    return is_transforming() or forward_ad._current_level >= 0


@cache
def _is_recent(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= CAPABILITY


@cache
def _kernels() -> Any:
    """None without Triton, and where TensorFlow was imported before it: their libraries of LLVM end the process."""
    if find_spec("triton") is None or ("tensorflow" in sys.modules and "triton" not in sys.modules):
        return None
    from bit_ref import fused_norm_kernels

    return fused_norm_kernels
