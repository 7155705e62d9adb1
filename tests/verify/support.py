"""A source, a target and an honest model to audit, none of which knows the code under test.

The model is written with PyTorch's functional operations on the tensors it is given, under Google's names, and has a
knob for each of the arithmetic faults that ports have had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from verify import AuditSettings, Correspondence, Report, audit, default_images

Tensors = dict[str, np.ndarray]


@dataclass
class MemorySource:
    """A checkpoint in memory."""

    tensors: Tensors
    path: str = "/somewhere/else/tiny.npz"
    format: str = "npz"
    sha256: str = "ab" * 32
    location: str = ""
    reads: list[str] = field(default_factory=list)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def read(self, name: str) -> np.ndarray:
        self.reads.append(name)
        return self.tensors[name].copy()

    def tiles(self, name: str, most: int):
        """As sources of files give a kernel: (inputs, window, outputs), some outputs at a time."""
        *_, inputs, outputs = self.tensors[name].shape
        kernel = self.tensors[name].reshape(-1, inputs, outputs).transpose(1, 0, 2)
        for start in range(0, outputs, most):
            some = slice(start, min(start + most, outputs))
            yield SimpleNamespace(inputs=slice(0, inputs), rows=some, values=kernel[:, :, some].copy())

    def checking(self):
        return nullcontext()

    def changes(self):
        return {}


class OpenedSource(MemorySource):
    """The same as a conversion has it: with the network that the tensors make."""

    pool_padding = "zeros"
    graph_input = None

    def hashing(self):
        return nullcontext()

    @cached_property
    def architecture(self):
        from converters.mapping.names import GOOGLE, infer

        return infer(self.shapes, GOOGLE, self.path)


@dataclass
class TorchModel:
    """BiT in PyTorch, float32, on tensors in Google's layout: the reader under test."""

    tensors: Tensors
    epsilon: float = 1e-10
    norm_epsilon: float = 1e-5
    groups: int = 32
    pool_padding: float = 0.0
    stride_on: str = "b"
    relu_after_add: bool = False
    activation: Callable[[torch.Tensor], torch.Tensor] = F.relu
    standardize: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Of a kernel (out, in, height, width), in place of the right way."""
    normalize: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    """Of activations, gamma and beta."""
    only: str = ""
    """What the names of the tensors begin with that the three functions above are for."""
    pooling: Callable[[torch.Tensor], torch.Tensor] | None = None
    stem_pooling: Callable[[torch.Tensor], torch.Tensor] | None = None
    finish: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone
    """What is done to the logits."""
    outputs: tuple[str, ...] | None = None
    name: str = "torch"
    unit: float = 2.0**-24
    closed: bool = False

    def run(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        with torch.inference_mode():
            taken = {name: values.numpy() for name, values in self._forward(torch.from_numpy(image)).items()}
        return {name: taken[name] for name in self.outputs or taken}

    def close(self) -> None:
        self.closed = True

    def _forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self._conv("resnet/root_block/", x, stride=2)
        if self.stem_pooling is None:
            x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=self.pool_padding), 3, 2)
        else:
            x = self.stem_pooling(x)
        taken = {"root": x}
        units = [
            name.removesuffix("a/group_norm/gamma") for name in self.tensors if name.endswith("a/group_norm/gamma")
        ]
        for at in units:
            x = self._unit(at, x, stride=2 if "unit01" in at and "block1" not in at else 1)
            taken[at.removeprefix("resnet/").rstrip("/")] = x
        taken["norm"] = x = self._norm("resnet/", x)
        taken["features"] = x = self.pooling(x) if self.pooling else x.mean(dim=(2, 3), keepdim=True)
        if "resnet/head/conv2d/kernel" in self.tensors:
            kernel = self._tensor("resnet/head/conv2d/kernel")[0, 0]
            taken["logits"] = self.finish(x.flatten(1) @ kernel + self._tensor("resnet/head/conv2d/bias"))
        return taken

    def _unit(self, at: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        first, second = (stride, 1) if self.stride_on == "a" else (1, stride)
        y = self._norm(at + "a/", x)
        if at + "a/proj/standardized_conv2d/kernel" in self.tensors:
            x = self._conv(at + "a/proj/", y, stride)
        y = self._conv(at + "a/", y, first)
        y = self._conv(at + "b/", self._norm(at + "b/", y), second)
        y = self._conv(at + "c/", self._norm(at + "c/", y)) + x
        return F.relu(y) if self.relu_after_add else y

    def _norm(self, at: str, x: torch.Tensor) -> torch.Tensor:
        scale, bias = self._tensor(at + "group_norm/gamma"), self._tensor(at + "group_norm/beta")
        wrong = at.startswith(self.only)
        if wrong and self.normalize:
            y = self.normalize(x, scale, bias)
        else:
            y = torch.group_norm(x, self.groups, scale, bias, self.norm_epsilon)
        return self.activation(y) if wrong else F.relu(y)

    def _conv(self, at: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        kernel = self._tensor(at + "standardized_conv2d/kernel").permute(3, 2, 0, 1)
        if self.standardize and at.startswith(self.only):
            kernel = self.standardize(kernel)
        else:
            variance, mean = torch.var_mean(kernel, dim=(1, 2, 3), keepdim=True, correction=0)
            kernel = (kernel - mean) / torch.sqrt(variance + self.epsilon)
        return F.conv2d(x, kernel.contiguous(), stride=stride, padding=kernel.shape[-1] // 2)

    def _tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.tensors[name])


@dataclass
class MemoryTarget:
    """A folder in memory that stores tensors under Google's names with ``!`` before them."""

    parameters_: Tensors
    correspondences: list[Correspondence]
    readers: list
    path: str = "/tmp/somewhere/folder"
    exact: str = "bits"
    layout: str = "transformers"
    dtype: str = "float32"
    expectations: tuple = ()
    inspected: tuple = ()
    misleading: str = ""
    files: Mapping[str, str] = field(default_factory=lambda: {"model.safetensors": "cd" * 32})

    @property
    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.parameters_.items()}


def target_of(source: MemorySource, held: Tensors | None = None, *readers) -> MemoryTarget:
    """A target that holds ``held`` (default: what the source holds), read by ``readers`` or an honest model of it."""
    held = source.tensors if held is None else held
    stored = {"!" + name: tensor for name, tensor in held.items()}
    pairs = [
        Correspondence(name, "!" + name, lambda n=name: source.tensors[n], lambda n=name: stored["!" + n])
        for name in source.tensors
    ]
    return MemoryTarget(stored, pairs, list(readers) or [TorchModel(held)])


def audited(tensors: Tensors, model: TorchModel | None = None, size: int = 64, progress=None, **settings) -> Report:
    """The audit of a target whose stored values are the source's, and which computes what ``model`` does."""
    source = MemorySource(tensors)
    target = target_of(source, None, *([model] if model else []))
    return audit(target, source, AuditSettings(images=default_images(size), **settings), progress)
