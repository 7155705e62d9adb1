"""JSON Schemas of what a run writes for programs; the package ships them as files beside this one.

types that are written → ``SCHEMAS`` → NAME.schema.json; ``python -m converters.release.schemas`` renews the files

Objects may have more keys than a schema names: keys are added within a version, and removed or changed with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.release.rows import Content

FOLDER = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def release() -> dict[str, Any]:
    """The schema of release.json, and of a shard's part."""
    return _schema_of(Content, "release.json of bit-convert")


def events() -> dict[str, Any]:
    """The schema of a line of ``--events``."""
    from converters.release.events import Event
    from converters.release.log import SCHEMA

    schema = _schema_of(Event, "A line of bit-convert --events")
    schema["properties"] = {"schema": {"const": SCHEMA}, **schema["properties"]}
    schema["required"] = [*schema["properties"]]
    return schema


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {"release": release, "events": events}


def file_of(name: str) -> Path:
    """The file in the package."""
    return FOLDER / f"{name}.schema.json"


def _schema_of(kind: Any, title: str) -> dict[str, Any]:
    import msgspec

    (_,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    schema: dict[str, Any] = definitions.pop(kind.__name__)
    for each in (schema, *definitions.values()):
        for field in each.get("properties", {}).values():
            field.pop("default", None)  # of the class; what is written has every key
        if "properties" in each:
            each["required"] = [*each["properties"]]
    return {"$schema": DIALECT, **schema, "title": title, **({"$defs": definitions} if definitions else {})}
