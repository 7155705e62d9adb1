"""The operations of a graph that are run, and how many elements each can make of its inputs.

A graph comes out of a file that nobody vouches for: what is not in this table is never run. The table holds arithmetic
and shapes only, nothing that reads a file, asks a network, calls Python, draws at random or keeps a state.

    name of an operation, inputs, attributes → most elements of its result
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Size = Callable[[Sequence[Any], Mapping[str, Any]], int]

MAX_ELEMENTS = 1 << 28
"""The most values of one tensor; the head of R152x4 with 21,843 classes has 179 million."""


def elements(tensor: Any) -> int:
    return math.prod(tensor.shape)


def _no_more(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    return sum(map(elements, inputs))


def _broadcast(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    return math.prod(np.broadcast_shapes(*(tuple(value.shape) for value in inputs)))


def _filled(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    return math.prod(int(size) for size in np.ravel(inputs[0]))


def _stretched(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    return math.prod(int(size) for size in np.ravel(inputs[1]))


def _tiled(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    return elements(inputs[0]) * math.prod(int(times) for times in np.ravel(inputs[1]))


def _padded(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    around = np.reshape(inputs[1], (-1, 2)).tolist()
    return math.prod(size + before + after for size, (before, after) in zip(inputs[0].shape, around, strict=True))


def _gathered(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    return elements(inputs[0]) * max(elements(inputs[1]), 1)


def _counted(inputs: Sequence[Any], _: Mapping[str, Any]) -> int:
    start, limit, delta = (float(value) for value in inputs)
    return math.ceil(abs((limit - start) / delta))


def _multiplied(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    a, b = inputs
    return int(a.shape[1 if attributes.get("transpose_a") else 0] * b.shape[0 if attributes.get("transpose_b") else 1])


def _windowed(inputs: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    """A convolution or pooling: at most a window at each place of the padded images."""
    batch, height, width, channels = inputs[0].shape
    _, _, top, bottom, left, right, _, _ = attributes.get("explicit_paddings") or [0] * 8
    channels = inputs[1].shape[3] if len(inputs) > 1 else channels
    return int(batch * (height + top + bottom) * (width + left + right) * channels)


SHRINKING = """
    Abs All Any ArgMax Cast EnsureShape Exp ExpandDims Identity LogSoftmax LogicalNot Max Mean Min Neg OnesLike
    PreventGradient Prod Rank Reciprocal Relu Reshape Rsqrt Select Shape Sigmoid Size Slice Snapshot Softmax Sqrt Square
    Squeeze StopGradient StridedSlice Sum Transpose ZerosLike
    AddN ConcatV2 IdentityN Pack ShapeN Split SplitV Unpack
"""
BROADCASTING = """
    Add AddV2 BiasAdd Div DivNoNan Equal FloorDiv FloorMod Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr
    Maximum Minimum Mul NotEqual Pow RealDiv SelectV2 SquaredDifference Sub
"""
OPERATIONS: Mapping[str, Size] = {
    **dict.fromkeys(SHRINKING.split(), _no_more),
    **dict.fromkeys(BROADCASTING.split(), _broadcast),
    **dict.fromkeys(("AvgPool", "Conv2D", "MaxPool"), _windowed),
    **dict.fromkeys(("Pad", "PadV2"), _padded),
    **dict.fromkeys(("Gather", "GatherV2"), _gathered),
    "BroadcastTo": _stretched,
    "Fill": _filled,
    "MatMul": _multiplied,
    "Range": _counted,
    "Tile": _tiled,
}
RESIZING = ("ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor")
"""Operations that are run where they change nothing: images that already are of the size they make."""
PROBABILITIES = ("LogSoftmax", "Sigmoid", "Softmax")
"""Operations that a classifier may end in; their inputs are its logits."""
RESHAPING = ("Cast", "ExpandDims", "Reshape", "Snapshot", "Squeeze")
"""Operations that may follow; they change only the shape."""
LISTS = {"AddN": 0, "ConcatV2": 1, "IdentityN": 0, "Pack": 0, "ShapeN": 0}
"""Operations that take a list of tensors as one argument → how many other inputs follow it."""
RENAMED = {"Squeeze": {"squeeze_dims": "axis"}}
"""Operation → attributes that its Python function calls otherwise than the graph does."""
