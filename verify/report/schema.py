"""The schema of parity.json, read off the dataclasses that it is written from.

    dataclass → ``json_schema()`` → parity.schema.json;  JSON value, dataclass → ``parse()`` → instance, or ValueError

One reading of the annotations gives both the published schema and the validation.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def parse(kind: Any, value: Any, where: str) -> Any:
    """``value`` as an instance of ``kind``. Raises ValueError naming the place that does not fit, as JSON Pointer."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _parse_object(cast(type, kind), value, where)
    if origin in (Union, types.UnionType):
        option = next((option for option in inner if (value is None) == (option is type(None))), inner[0])
        return parse(option, value, where)
    if origin is Literal and value in inner:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(parse(inner[0], item, f"{where}/{index}") for index, item in enumerate(value))
    if origin is not None and origin is not Literal and issubclass(origin, Mapping) and isinstance(value, dict):
        return {key: parse(inner[1], item, f"{where}/{key}") for key, item in value.items()}
    finite = not isinstance(value, float) or math.isfinite(value)
    if kind in PLAIN and (type(value) is kind or (kind is float and type(value) is int)) and finite:
        return value
    if _is_words(kind) and type(value) is str and value in {*kind}:
        return kind(value)
    raise ValueError(f"{where or '/'} is {_shown(value)}")


def _is_words(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _parse_object(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or '/'} is {_shown(value)}, no object")
    hints = get_type_hints(kind)
    missing = [field.name for field in fields(kind) if field.name not in value]
    if missing:
        raise ValueError(f"{where}/{missing[0]} is missing")
    return kind(
        **{field.name: parse(hints[field.name], value[field.name], f"{where}/{field.name}") for field in fields(kind)}
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def json_schema(kind: Any) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a type; objects may have more keys."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        properties = {name: json_schema(hints[name]) for name in names}
        return {"type": "object", "required": names, "properties": properties}
    if origin in (Union, types.UnionType):
        return {"anyOf": [json_schema(option) for option in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        return {"type": "array", "items": json_schema(inner[0])}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": json_schema(inner[1])}
    return {"type": PLAIN[str if _is_words(kind) else kind]}
