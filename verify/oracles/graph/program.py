"""The part of a SavedModel that makes logits or features of images, as a program that was checked but not run.

saved_model.pb → a signature → the nodes between its images and its outputs → ``Program``, or OracleError

Everything that these nodes reach, functions included, must be in the table of operations; what they do not reach
(initialisers, restoring, saving, training) is not looked at and never run. Which variable a node means is the graph's
own word: in TensorFlow 1 the variable's name is its key in the checkpoint, in TensorFlow 2 the saved objects and the
checkpoint's are two trees of the same attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verify.oracles.graph.operations import OPERATIONS, RESIZING
from verify.protocols import OracleError
from verify.tensorflow import read_graph

GRAPH = "saved_model.pb"
SIGNATURES = ("default", "serving_default", "image_classification", "image_feature_vector", "__call__", "call")
"""Names of what takes images, the likelier first."""
VARIABLES = {"VarHandleOp": False, "VariableV2": True, "Variable": True}
"""Operation → whether its output is the value itself, not a handle."""
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
SPECIAL = ("Const", "PlaceholderWithDefault", "ReadVariableOp", *CALLS, *RESIZING)
MAX_NODES = 1 << 18
"""Nodes that a program may reach; a network of 459 tensors has some 15,000."""
NUMBERS = (1, 2, 3, 4, 14, 19)
"""TensorFlow's DT_FLOAT, DT_DOUBLE, DT_INT32, DT_UINT8, DT_BFLOAT16, DT_HALF: what colours may be."""

Ref = tuple[str, int]
"""An argument or a node, and which of its outputs."""


@dataclass(frozen=True)
class Step:
    """One node; ``finished`` are the values that nobody needs after it."""

    name: str
    op: str
    inputs: Sequence[Ref]
    attributes: Mapping[str, Any]
    """As the file has them: name → AttrValue."""
    finished: Sequence[str]


@dataclass(frozen=True)
class Body:
    """The nodes of a graph or a function, each after those that it needs."""

    arguments: Sequence[str]
    steps: Sequence[Step]
    results: Sequence[Ref]


@dataclass(frozen=True)
class Variable:
    """A variable of the checkpoint; ``direct`` where the node gives its value, not a handle."""

    key: str
    direct: bool


@dataclass(frozen=True)
class Program:
    """The computation of a signature."""

    main: Body
    functions: Mapping[str, Body]
    images: str
    """The argument that takes them."""
    shape: Sequence[int | None]
    """(batch, height, width, channels), None where any will do."""
    given: Mapping[str, Any]
    """The other arguments: a Variable, or the TensorProto of a constant."""


def load(folder: Path, object_graph: bytes | None) -> Program:
    """The program of a SavedModel folder; ``object_graph`` is the checkpoint's own, None in TensorFlow 1.

    Raises OracleError where there is none, or one that is not all arithmetic.
    """
    file = folder / GRAPH
    if not file.is_file():
        raise OracleError(f"there is no {GRAPH}, only variables")
    metas = read_graph(file).meta_graphs
    serving = [meta for meta in metas if "train" not in meta.meta_info_def.tags]
    if not serving:
        raise OracleError("it holds no graph but for training")
    return _of_version_1(serving[0]) if object_graph is None else _of_version_2(serving[0], object_graph)


# -- TensorFlow 1: a signature is some tensors of one graph


def _of_version_1(meta: Any) -> Program:
    nodes = _by_name(meta.graph_def.node)
    name = _first(name for name, signature in meta.signature_def.items() if _image_inputs(signature))
    signature = meta.signature_def[name]
    (images,) = _image_inputs(signature)
    placeholder, _ = _ref(images.name)
    variables = {
        node.name: Variable(_key_of(node), VARIABLES[node.op]) for node in nodes.values() if node.op in VARIABLES
    }
    outputs = [signature.outputs[key].name for key in sorted(signature.outputs)]
    main = _body([placeholder, *variables], nodes, outputs)
    reached = {name for step in main.steps for name, _ in step.inputs} | {name for name, _ in main.results}
    return Program(
        main=main,
        functions=_functions(main, meta.graph_def.library),
        images=placeholder,
        shape=_shape(images.tensor_shape),
        given={name: variable for name, variable in variables.items() if name in reached},
    )


def _image_inputs(signature: Any) -> list[Any]:
    """The one input of a signature, if it can be images; else nothing."""
    inputs = list(signature.inputs.values())
    fits = len(inputs) == 1 and inputs[0].dtype in NUMBERS and _is_image(inputs[0].tensor_shape)
    return inputs if fits and signature.outputs else []


def _key_of(node: Any) -> str:
    shared: str = node.attr["shared_name"].s.decode() if "shared_name" in node.attr else ""
    return shared or str(node.name)


# -- TensorFlow 2: a signature is a function, and the saved objects say what it captured


def _of_version_2(meta: Any, object_graph: bytes) -> Program:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    saved, library = meta.object_graph_def, meta.graph_def.library
    functions = _by_name(library.function, lambda function: function.signature.name)
    candidates = {
        name: function
        for name, function in _entries(saved)
        if function in functions and _image_argument(saved.concrete_functions[function]) is not None
    }
    name = candidates[_first(candidates)]
    concrete, function = saved.concrete_functions[name], functions[name]
    arguments = [argument.name for argument in function.signature.input_arg]
    images, captured = arguments[0], arguments[1:]
    if len(captured) != len(concrete.bound_inputs):
        raise OracleError(f"its function {name} takes other than images")
    keys = _keys(saved, TrackableObjectGraph.FromString(object_graph))
    constants = _by_name(meta.graph_def.node)
    given = {
        argument: _captured(saved.nodes[number], keys.get(number), constants)
        for argument, number in zip(captured, concrete.bound_inputs, strict=True)
    }
    main = _function_body(function)
    argument = _image_argument(concrete)
    assert argument is not None
    return Program(main, _functions(main, library), images, _shape(argument.shape), given)


def _entries(saved: Any) -> Iterator[tuple[str, str]]:
    """(name of a signature or method of the root, its function); of a method the one that is not for training."""
    children = {child.local_name: saved.nodes[child.node_id] for child in saved.nodes[0].children}
    if "signatures" in children:
        for child in children["signatures"].children:
            yield child.local_name, saved.nodes[child.node_id].bare_concrete_function.concrete_function_name
    for method, node in children.items():
        names = sorted(
            node.function.concrete_functions,
            key=lambda name: any(leaf.bool_value for leaf in _signature(saved.concrete_functions[name])),
        )
        yield from ((method, name) for name in names[:1])


def _image_argument(concrete: Any) -> Any:
    """The one tensor that a function is called with, if it can be images; else None."""
    kinds = ("tensor_spec_value", "bounded_tensor_spec_value")
    tensors = [getattr(leaf, kind) for leaf in _signature(concrete) if (kind := leaf.WhichOneof("kind")) in kinds]
    fits = len(tensors) == 1 and tensors[0].dtype in NUMBERS and _is_image(tensors[0].shape)
    return tensors[0] if fits else None


def _signature(concrete: Any) -> list[Any]:
    """The leaves of what a function is called with: StructuredValue is a tree."""
    pending, leaves = [concrete.canonicalized_input_signature], []
    while pending:
        value = pending.pop()
        kind = value.WhichOneof("kind")
        if kind in ("tuple_value", "list_value"):
            pending += getattr(value, kind).values
        elif kind == "dict_value":
            pending += value.dict_value.fields.values()
        else:
            leaves.append(value)
    return leaves


def _keys(saved: Any, stored: Any) -> dict[int, str]:
    """Number of a saved object → key of its value in the checkpoint: the same attributes lead to both."""
    keys: dict[int, str] = {}
    pending, seen = [(0, 0)], {0}
    while pending:
        ours, theirs = pending.pop()
        for attribute in stored.nodes[theirs].attributes:
            if attribute.name == "VARIABLE_VALUE":
                keys[ours] = attribute.checkpoint_key
        named = {child.local_name: child.node_id for child in stored.nodes[theirs].children}
        for child in saved.nodes[ours].children:
            if child.local_name in named and child.node_id not in seen:
                seen.add(child.node_id)
                pending.append((child.node_id, named[child.local_name]))
    return keys


def _captured(node: Any, key: str | None, constants: Mapping[str, Any]) -> Any:
    kind = node.WhichOneof("kind")
    if kind == "variable" and key is not None:
        return Variable(key, direct=False)
    if kind == "constant" and node.constant.operation in constants:
        return constants[node.constant.operation].attr["value"].tensor
    raise OracleError(f"its function captures a {kind or 'thing'} that is no variable of the checkpoint")


# -- the nodes that are reached


def _functions(main: Body, library: Any) -> dict[str, Body]:
    """Every function that is called, directly or not."""
    known = _by_name(library.function, lambda function: function.signature.name)
    bodies: dict[str, Body] = {}
    pending, count = list(_called(main)), len(main.steps)
    while pending:
        name = pending.pop()
        if name in bodies:
            continue
        if name not in known:
            raise OracleError(f"its function {name} is missing")
        bodies[name] = _function_body(known[name])
        pending += _called(bodies[name])
        count += len(bodies[name].steps)
        if count > MAX_NODES:
            raise OracleError(f"its graph has more than {MAX_NODES} nodes, more than that of any BiT")
    return bodies


def _called(body: Body) -> list[str]:
    return [step.attributes["f"].func.name for step in body.steps if step.op in CALLS]


def _function_body(function: Any) -> Body:
    arguments = [argument.name for argument in function.signature.input_arg]
    results = [function.ret[result.name] for result in function.signature.output_arg]
    return _body(arguments, _by_name(function.node_def), results)


def _body(arguments: Sequence[str], nodes: Mapping[str, Any], results: Sequence[str]) -> Body:
    """The nodes that the results need, in order. Raises OracleError for one that may not be run."""
    targets = [_ref(result) for result in results]
    order = _ordered(set(arguments), nodes, [name for name, _ in targets])
    inputs = {node.name: [_ref(text) for text in node.input if not text.startswith("^")] for node in order}
    last = {name: node.name for node in order for name, _ in inputs[node.name]}
    finished: dict[str, list[str]] = {}
    for name, user in last.items():
        if name not in {target for target, _ in targets}:
            finished.setdefault(user, []).append(name)
    steps = [Step(node.name, node.op, inputs[node.name], node.attr, finished.get(node.name, [])) for node in order]
    return Body(arguments, steps, targets)


def _ordered(arguments: set[str], nodes: Mapping[str, Any], targets: Sequence[str]) -> list[Any]:
    """Depth first, so that a value is made shortly before it is needed."""
    order: list[Any] = []
    done, open_ = set(arguments), set[str]()
    pending = list(reversed(targets))
    while pending:
        name = pending.pop()
        if name in done:
            continue
        if name in open_:
            order.append(nodes[name])
            done.add(name)
            continue
        if name not in nodes:
            raise OracleError(f"its node {name} is missing")
        if len(open_) > MAX_NODES:
            raise OracleError(f"its graph has more than {MAX_NODES} nodes, more than that of any BiT")
        _refuse(nodes[name])
        open_.add(name)
        needed = [_ref(text)[0] for text in nodes[name].input if not text.startswith("^")]
        if any(need in open_ and need not in done for need in needed):
            raise OracleError(f"its node {name} needs itself")
        pending += [name, *reversed(needed)]
    return order


def _refuse(node: Any) -> None:
    if node.op == "Placeholder":
        raise OracleError(f"it needs another input than images: {node.name}")
    if node.op not in OPERATIONS and node.op not in SPECIAL:
        raise OracleError(f"its node {node.name} is a {node.op}, which is not run: only arithmetic is")
    placeholders = [name for name, attribute in node.attr.items() if attribute.WhichOneof("value") == "placeholder"]
    if placeholders:
        raise OracleError(f"its node {node.name} leaves {placeholders[0]} open")


def _ref(text: str) -> Ref:
    """``node``, ``node:1`` of a graph, ``node:output:0`` of a function: no operation that is run has two outputs of
    different names."""
    name, *rest = text.split(":")
    return name, int(rest[-1]) if rest else 0


def _by_name(items: Iterable[Any], name: Any = lambda item: item.name) -> dict[str, Any]:
    return {name(item): item for item in items}


def _first(names: Iterable[str]) -> str:
    """The likeliest of the names that fit."""
    place = {name: index for index, name in enumerate(SIGNATURES)}
    fitting = sorted(names, key=lambda name: (place.get(name, len(place)), name))
    if not fitting:
        raise OracleError("it has no signature that takes images and nothing else")
    return fitting[0]


def _is_image(shape: Any) -> bool:
    sizes = _shape(shape)
    return not sizes or (len(sizes) == 4 and sizes[0] in (None, 1) and sizes[3] in (None, 3))


def _shape(shape: Any) -> tuple[int | None, ...]:
    return () if shape.unknown_rank else tuple(None if dim.size < 0 else int(dim.size) for dim in shape.dim)
