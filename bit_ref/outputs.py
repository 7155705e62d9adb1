"""Outputs of the models: ordered dictionaries without the values that are None, read by attribute, key or index.

The classes have the names and the fields of transformers' own.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class ModelOutput(OrderedDict[str, Any]):
    """Fields are the annotations of the class, in their order.

    ``output.logits``, ``output["logits"]`` and ``output[0]`` are the same; a field that is None can be read as an
    attribute only, and counts for no index. For ``torch.export`` a class is a tree of what it holds, for
    ``torch.jit.trace(…, strict=False)`` a dictionary.
    """

    def __init_subclass__(cls) -> None:
        torch.jit.ignore(cls)  # type: ignore[no-untyped-call]  # or a trace takes it for a class to compile
        pytree.register_pytree_node(
            cls,
            lambda output: ([*output.values()], [*output]),
            lambda values, names: cls(zip(names, values, strict=True)),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            flatten_with_keys_fn=lambda output: ([(pytree.MappingKey(k), v) for k, v in output.items()], [*output]),
        )

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any) -> None:
        given = dict(values, **named)
        for name in given:
            if name not in self._fields():
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
        super().__init__((name, given[name]) for name in self._fields() if given.get(name) is not None)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """An output with these values; where transformers is loaded, one of its own class of the same name.

        Its pipelines know an output by its class, and turn any other dictionary into one without an order.
        """
        theirs = sys.modules.get("transformers.modeling_outputs")
        kind: type[Self] = getattr(theirs, cls.__name__, cls)
        return kind(**values)

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return tuple(cls.__annotations__)

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name in type(self)._fields():
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._fields():
            self[name] = value
        else:
            super().__setattr__(name, value)


class BaseModelOutputWithPoolingAndNoAttention(ModelOutput):
    """``last_hidden_state`` (N, C, H, W) after the final norm; ``pooler_output`` (N, C, 1, 1); ``hidden_states`` the
    root's output and each stage's, before the norm, where asked for."""

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None


class ImageClassifierOutputWithNoAttention(ModelOutput):
    """``loss``, a scalar, where labels were given; ``logits`` (N, classes); ``hidden_states`` as ``BitModel`` has."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] | None


class BackboneOutput(ModelOutput):
    """``feature_maps`` of the chosen stages, (N, C, H, W) each, before the norm; ``hidden_states`` of all."""

    feature_maps: tuple[Tensor, ...]
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
