"""Runs a program node by node, each operation by TensorFlow's own kernel, in float64 throughout.

The graph itself is never given to TensorFlow: each node is one call of a function of ``tf.raw_ops`` on values that were
made before, so that nothing runs but what the table of operations holds, a variable is read when it is needed and
dropped after its last use, and no limit of protobuf's holds.

Every float32, and every half precision, becomes a float64. A kernel or an image is widened exactly. A constant that is
one number, an epsilon say, becomes the shortest decimal that float32 rounds to it: 1e-5, as it was written in the
program that made the graph, and not 9.99999974738e-06. Otherwise the epsilons of two honest oracles would differ by
2.5e-8 of themselves, which on dim images is more than oracles may differ by.

    Program, images, reader of variables → ``Machine.run()`` → values of the outputs
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from verify.oracles.graph.operations import (
    LISTS,
    MAX_ELEMENTS,
    OPERATIONS,
    PROBABILITIES,
    RENAMED,
    RESHAPING,
    RESIZING,
)
from verify.oracles.graph.program import CALLS, Body, Program, Ref, Step, Variable
from verify.protocols import OracleError

Array = npt.NDArray[Any]
Watch = Callable[[str, Sequence[Any]], None]

MAX_STEPS = 1 << 19
"""Nodes that are run for one image: a function that calls another twice, which calls another twice, …"""
MAX_DEPTH = 64
"""Functions inside functions."""


NARROW = ("bfloat16", "float16", "float32")
"""Dtypes that are computed in float64 instead."""


class Resizes(OracleError):
    """The graph stretches images to a size of its own."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(f"it stretches images to {height} × {width}")
        self.size = height, width


class Machine:
    """A program and its variables. Raises OracleError where a node cannot be run.

    Of probabilities, what is given is the logits that they are made of.
    """

    def __init__(self, tensorflow: Any, program: Program, read: Callable[[str], Array]) -> None:
        self._tf, self._program, self._read = tensorflow, program, read
        self._steps = 0

    def run(self, images: Array, watch: Watch | None = None) -> list[Array]:
        """The outputs for (1, height, width, 3) images; ``watch`` sees each operation and its inputs beforehand."""
        self._steps, self._watch = 0, watch
        self._logits: dict[int, tuple[Any, Any]] = {}  # probabilities, by their identity → themselves, their logits
        with self._tf.device("CPU"):
            given = {
                name: value if isinstance(value, Variable) else self._constant(value)
                for name, value in self._program.given.items()
            }
            values = self._body(self._program.main, given | {self._program.images: self._tf.constant(images)}, 0)
            return [np.asarray(self._before_probabilities(self._value(value))) for value in values]

    def _body(self, body: Body, given: Mapping[str, Any], depth: int) -> list[Any]:
        if depth > MAX_DEPTH:
            raise OracleError(f"its functions call each other more than {MAX_DEPTH} deep")
        values = dict(given)
        for step in body.steps:
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise OracleError(f"it takes more than {MAX_STEPS} steps, more than any BiT")
            values[step.name] = self._run(step, [_output(values, ref) for ref in step.inputs], depth)
            for name in step.finished:
                values.pop(name, None)
        return [_output(values, ref) for ref in body.results]

    def _run(self, step: Step, inputs: list[Any], depth: int) -> Any:
        if step.op in CALLS:
            body = self._program.functions[step.attributes["f"].func.name]
            return self._body(body, dict(zip(body.arguments, inputs, strict=True)), depth + 1)
        if step.op == "Const":
            return self._constant(step.attributes["value"].tensor)
        if step.op == "Identity" and isinstance(inputs[0], Variable) and not inputs[0].direct:
            return inputs[0]
        if step.op in ("Identity", "PlaceholderWithDefault", "ReadVariableOp"):
            return self._value(inputs[0])
        given = [self._value(value) for value in inputs]
        if step.op in RESIZING:
            return _unchanged(given)
        made = self._operate(step, given)
        if step.op in PROBABILITIES:
            self._logits[id(made)] = made, given[0]
        elif step.op in RESHAPING and id(given[0]) in self._logits:
            self._logits[id(made)] = made, self._before_probabilities(given[0])
        return made

    def _operate(self, step: Step, inputs: list[Any]) -> Any:
        if self._watch is not None:
            self._watch(step.op, inputs)
        renamed = RENAMED.get(step.op, {})
        attributes = {renamed.get(name, name): self._attribute(value) for name, value in step.attributes.items()}
        operation = getattr(self._tf.raw_ops, step.op)
        arguments = _arguments(step.op, inputs)
        parameters = list(inspect.signature(operation).parameters)[:-1]  # the last is the node's name
        named = dict(zip(parameters, arguments, strict=False))
        named |= {name: attributes[name] for name in parameters[len(arguments) :] if name in attributes}
        try:
            size = OPERATIONS[step.op](inputs, attributes)
            if size <= MAX_ELEMENTS:
                return operation(**named)
        except Exception as error:  # TensorFlow's errors have no base of their own
            raise OracleError(f"its node {step.name}, a {step.op}, fails: {type(error).__name__}") from error
        raise OracleError(f"its node {step.name}, a {step.op}, makes a tensor larger than any of a BiT")

    def _before_probabilities(self, value: Any) -> Any:
        made, logits = self._logits.get(id(value), (value, value))
        return logits if made is value else value

    def _value(self, value: Any) -> Any:
        if not isinstance(value, Variable):
            return value
        array = self._read(value.key)
        narrow = array.dtype.name in NARROW
        return self._tf.constant(array.astype(np.float64) if narrow else array)

    def _constant(self, proto: Any) -> Any:
        shape = [dimension.size for dimension in proto.tensor_shape.dim]
        if min(shape, default=0) < 0 or np.prod(shape, dtype=object) > MAX_ELEMENTS:
            raise OracleError("it holds a constant larger than any of a BiT")
        array = self._tf.make_ndarray(proto)
        if array.dtype.name not in NARROW:
            return self._tf.constant(array)
        return self._tf.constant(
            float(str(array[()])) if array.ndim == 0 else array.astype(np.float64), self._tf.float64
        )

    def _attribute(self, value: Any) -> Any:
        """An AttrValue as ``tf.raw_ops`` takes it, float32 and narrower made float64."""
        kind = value.WhichOneof("value")
        if kind != "list":
            return self._plain(kind, getattr(value, kind)) if kind else None
        return [self._plain(field.name, item) for field, items in value.list.ListFields() for item in items]

    def _plain(self, kind: str, content: Any) -> Any:
        if kind == "type":
            dtype = self._tf.dtypes.as_dtype(content)
            return self._tf.float64 if dtype.name in NARROW else dtype
        if kind == "shape":
            return self._tf.TensorShape(content)
        return content.decode() if isinstance(content, bytes) else content


def _unchanged(inputs: Sequence[Any]) -> Any:
    """Images that are to be stretched to the size they have."""
    images, size = inputs
    height, width = (int(number) for number in np.ravel(size))
    if tuple(images.shape[1:3]) != (height, width):
        raise Resizes(height, width)
    return images


def _output(values: Mapping[str, Any], ref: Ref) -> Any:
    name, index = ref
    value = values[name]
    return value[index] if isinstance(value, (list, tuple)) else value


def _arguments(op: str, inputs: list[Any]) -> list[Any]:
    """The inputs as ``tf.raw_ops`` takes them."""
    if op not in LISTS:
        return inputs
    listed = len(inputs) - LISTS[op]
    return [inputs[:listed], *inputs[listed:]]
