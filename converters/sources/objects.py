"""The object graph of a TensorFlow 2 checkpoint: what its variables are called, and which of them only training needs.

An object graph is what Python held when the checkpoint was written: objects, and the attributes that lead from one to
the next. Keras and tensorflow_hub put BiT wherever a user's model has it, under names and attributes of the user's own.

    TrackableObjectGraph → ``namings()``: names, place by place;  ``training()``: what is left out, and why
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from converters.mapping.names import (
    BESIDE,
    COUNTER,
    METRIC,
    METRICS,
    NO_WEIGHT,
    OPTIMISER,
    SLOT,
    TRAINING,
    attributes,
    trunk,
)

MAX_NODES = 1 << 18
"""Objects of a graph that are looked at; the largest network saved with an optimiser has some 5,000."""
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
SAVE_COUNTER = "save_counter"
"""An attribute that ``tf.train.Checkpoint`` gives itself."""
METRIC_MARK = frozenset({"total", "count"})


class ObjectGraph:
    """The graph of a checkpoint that holds the tensors ``keys``. Raises ValueError where it is none."""

    def __init__(self, serialised: bytes, keys: Mapping[str, Any]) -> None:
        from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

        nodes = TrackableObjectGraph.FromString(serialised).nodes
        if len(nodes) > MAX_NODES:
            raise ValueError(f"it has {len(nodes)} objects")
        self._children = [{child.local_name: child.node_id for child in node.children} for node in nodes]
        if any(not 0 <= number < len(nodes) for children in self._children for number in children.values()):
            raise ValueError("it leads to an object that is not there")
        self._keys: dict[int, str] = {}
        """Number of a variable's object → its key."""
        self.full_names: dict[str, str] = {}
        """Key → full name, of those that have one."""
        for number, node in enumerate(nodes):
            for attribute in node.attributes:
                if attribute.checkpoint_key in keys:
                    self._keys[number] = attribute.checkpoint_key
                    if attribute.full_name:
                        self.full_names[attribute.checkpoint_key] = attribute.full_name
        self._optimisers = {number for number, node in enumerate(nodes) if node.slot_variables}
        self._slots = {}
        for slot in (slot for node in nodes for slot in node.slot_variables):
            key, original = (self._keys.get(n) for n in (slot.slot_variable_node_id, slot.original_variable_node_id))
            if key and original:
                self._slots[key] = SLOT
                self.full_names[key] = f"{self.full_names.get(original, original)}/{slot.slot_name}"

    def trunk(self, scheme: str) -> dict[str, str]:
        """Key → name in the table, of the tensors of BiT below its head, wherever in the user's model that is."""
        return max(self._trunks(scheme), key=len, default={})

    def words(self) -> dict[str, set[str]]:
        """Key → the last words of all that the variable is called: its attributes and its full name."""
        words = {key: {name.rpartition("/")[2]} for key, name in self.full_names.items()}
        for children in self._children:
            for attribute, number in children.items():
                if number in self._keys and not attribute.isdecimal():
                    words.setdefault(self._keys[number], set()).add(attribute.rpartition("/")[2].partition(":")[0])
        return words

    def training(self, floats: Mapping[str, bool], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        """Key → why it is left out, of what is not the network's."""
        why = dict(self._slots) | {key: NO_WEIGHT if shapes[key] else COUNTER for key in shapes if not floats[key]}
        optimisers = self._optimisers | {
            number for number, children in enumerate(self._children) if len(children.keys() & set(OPTIMISER)) > 1
        }
        metrics = {number for number, children in enumerate(self._children) if children.keys() >= METRIC_MARK}
        for children in self._children:
            if METRICS in children:
                metrics |= set(self._children[children[METRICS]].values())
        network = self._reached([0], optimisers | metrics)
        for start, reason in ((metrics, METRIC), (optimisers, SLOT)):
            for number in self._reached(start, set()) - network:
                if number in self._keys:
                    why.setdefault(self._keys[number], reason)
        return self._by_attribute(why, shapes, network)

    def _by_attribute(
        self, why: dict[str, str], shapes: Mapping[str, tuple[int, ...]], network: set[int]
    ) -> dict[str, str]:
        """The same, and scalars: those that an optimiser or the checkpoint itself calls settings or counters."""
        for number, children in enumerate(self._children):
            for attribute, child in children.items():
                key = self._keys.get(child)
                if key is None or shapes[key]:
                    continue
                if attribute in TRAINING and (child not in network or number == 0):
                    why[key] = TRAINING[attribute]
                elif number == 0 and SAVE_COUNTER in children:
                    why.setdefault(key, BESIDE)
        return why

    def _trunks(self, scheme: str) -> Iterator[dict[str, str]]:
        """Yields trunks by full names, by keys, by the attributes of each object, and by those of Google's network."""
        names = {key: name for key, name in self.full_names.items() if key not in self._slots}
        yield trunk(names, scheme)
        keys = {key: _unescaped(key) for key in self._keys.values() if key not in self._slots}
        yield trunk(keys, scheme)
        yield trunk({key: name.replace(".", "/") for key, name in keys.items()}, scheme)
        tree = attributes(scheme)
        for children in self._children:
            own = {self._keys[number]: name for name, number in children.items() if number in self._keys}
            if len(own) > 1:
                yield trunk(own, scheme)
            if tree.keys() <= children.keys():
                found = dict(self._walk(children, tree))
                if len(set(found.values())) == len(found):
                    yield found

    def _walk(self, children: Mapping[str, int], tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(key, name in the table) of what the attributes of a tree lead to."""
        for attribute, number in children.items():
            below = tree.get(attribute)
            if isinstance(below, str) and number in self._keys:
                yield self._keys[number], below
            elif isinstance(below, dict):
                yield from self._walk(self._children[number], below)

    def _reached(self, start: Any, closed: set[int]) -> set[int]:
        """The objects that attributes lead to from those of ``start``, without passing one that is ``closed``."""
        reached, pending = set[int](), [number for number in start if number not in closed or not number]
        while pending:
            number = pending.pop()
            if number not in reached:
                reached.add(number)
                pending += [child for child in self._children[number].values() if child not in closed]
        return reached


def _unescaped(key: str) -> str:
    """The path of attributes that a key is: TensorFlow writes ``.S`` for a slash in an attribute's name, ``..`` for a
    dot."""
    return "/".join(".".join(part.split("..")) for part in key.removesuffix(VALUE).replace(".S", "/").split("/"))
