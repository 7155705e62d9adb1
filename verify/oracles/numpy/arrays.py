"""The few operations of arrays in which NumPy and PyTorch differ, under one name each.

What both have alike (arithmetic, ``reshape``, ``sum``, ``mean``, products) is called on the arrays themselves.

    device → ``arrays_of()`` → NumpyArrays or TorchArrays
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from verify.tf32 import products

Array = npt.NDArray[Any]
"""Here and in the oracle: NumPy's arrays, or tensors of PyTorch, which stand in for them."""

Precision = str
"""``float64`` or ``float32``."""


class Arrays(Protocol):
    """A library of arrays, on one device."""

    name: str
    """The name of an oracle that computes with it."""
    parallel: bool
    """Whether several threads compute more than one."""

    def put(self, values: npt.NDArray[Any], precision: Precision) -> Array:
        """NumPy's values on this device; the same array where it is one of that precision already."""
        ...

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        """The same values as NumPy has them, on the CPU."""
        ...

    def cast(self, x: Array, precision: Precision) -> Array:
        """A fresh, contiguous array."""
        ...

    def empty(self, shape: Sequence[int], like: Array) -> Array: ...

    def take(self, x: Array, order: npt.NDArray[Any], axis: int) -> Array: ...

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array: ...

    def concatenate(self, arrays: Sequence[Array]) -> Array:
        """Along the first axis."""
        ...

    def pad(self, x: Array, by: int, value: float = 0.0) -> Array:
        """More rows and columns, ``by`` on every side of the last two axes."""
        ...

    def contiguous(self, x: Array) -> Array: ...

    def sqrt(self, x: Array) -> Array: ...

    def larger(self, x: Array, y: Array | float) -> Array:
        """The larger of each two elements, in place; NaN stays."""
        ...

    def exactly(self) -> Any:
        """A context in which products keep the precision of their factors, and numbers beyond it are no warnings."""
        ...


class NumpyArrays:
    """NumPy, on the CPU: what verdicts rest on unless a GPU is asked for."""

    name = "NumPy float64"
    parallel = True

    def put(self, values: npt.NDArray[Any], precision: Precision) -> Array:
        return values.astype(precision, copy=False)

    def numpy(self, x: Array) -> npt.NDArray[Any]:
        return x

    def cast(self, x: Array, precision: Precision) -> Array:
        return x.astype(precision, order="C")

    def empty(self, shape: Sequence[int], like: Array) -> Array:
        return np.empty(shape, like.dtype)

    def take(self, x: Array, order: npt.NDArray[Any], axis: int) -> Array:
        return x.take(order, axis=axis)

    def stack(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        return np.stack(arrays, axis=axis)

    def concatenate(self, arrays: Sequence[Array]) -> Array:
        return np.concatenate(arrays)

    def pad(self, x: Array, by: int, value: float = 0.0) -> Array:
        *outer, high, wide = x.shape
        padded = np.full((*outer, high + 2 * by, wide + 2 * by), value, x.dtype)  # np.pad takes ten times as long
        padded[..., by : by + high, by : by + wide] = x
        return padded

    def contiguous(self, x: Array) -> Array:
        return np.ascontiguousarray(x)

    def sqrt(self, x: Array) -> Array:
        return np.asarray(np.sqrt(x))

    def larger(self, x: Array, y: Array | float) -> Array:
        return np.maximum(x, y, out=x)

    def exactly(self) -> Any:
        return np.errstate(all="ignore")  # which a thread does not inherit


class TorchArrays:
    """PyTorch's tensors, on a GPU or on the CPU; products without TF32."""

    parallel = False

    def __init__(self, device: str) -> None:
        self.name = f"PyTorch float64 on {device}"
        self.device = device

    def put(self, values: npt.NDArray[Any], precision: Precision) -> Any:
        import torch

        tensor = torch.from_numpy(np.require(values, requirements=("C", "W")))  # PyTorch warns of what is read-only
        return tensor.to(self.device, getattr(torch, precision))

    def numpy(self, x: Any) -> Any:
        return x.to("cpu").numpy()

    def cast(self, x: Any, precision: Precision) -> Any:
        import torch

        return x.to(getattr(torch, precision), copy=True).contiguous()

    def empty(self, shape: Sequence[int], like: Any) -> Any:
        return like.new_empty(tuple(shape))

    def take(self, x: Any, order: npt.NDArray[Any], axis: int) -> Any:
        import torch

        return x.index_select(axis, torch.from_numpy(order).to(self.device))

    def stack(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        import torch

        return torch.stack(list(arrays), dim=axis)

    def concatenate(self, arrays: Sequence[Any]) -> Any:
        import torch

        return torch.concatenate(list(arrays))

    def pad(self, x: Any, by: int, value: float = 0.0) -> Any:
        from torch.nn import functional

        return functional.pad(x, (by, by, by, by), value=value)

    def contiguous(self, x: Any) -> Any:
        return x.contiguous()

    def sqrt(self, x: Any) -> Any:
        return x.sqrt()

    def larger(self, x: Any, y: Any) -> Any:
        import torch

        return x.clamp_(min=y) if isinstance(y, float) else torch.maximum(x, y, out=x)

    def exactly(self) -> Any:
        return products(False)


def arrays_of(device: str) -> Arrays:
    """NumPy's arrays for ``cpu``, PyTorch's tensors for any other device, and on the CPU for ``torch:cpu``."""
    return NumpyArrays() if device == "cpu" else TorchArrays(device.removeprefix("torch:"))


def oracle_name(device: str, precision: Precision = "float64") -> str:
    """Returns the name of the oracle that computes on a device, its truth in this precision."""
    return arrays_of(device).name.replace("float64", precision)


NAMES = tuple(map(oracle_name, ("cpu", "cuda")))
"""The names of the oracle that reports are judged by."""
