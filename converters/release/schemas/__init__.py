"""JSON Schemas of what a run writes for programs; the package ships them as files beside this one.

types that are written → ``SCHEMAS`` → NAME.schema.json; ``python -m converters.release.schemas`` renews the files

Objects may have more keys than a schema names: keys are added within a version, and removed or changed with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.choices import JSON_SCHEMA
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


def result() -> dict[str, Any]:
    """The schema of what ``bit-convert --json`` prints; that of a report alone is verify/report/parity.schema.json."""
    from converters.release.schemas.document import Document

    schema = _schema_of(Document, "What bit-convert --json prints")
    schema["properties"]["schema"] = {"const": JSON_SCHEMA}
    return schema


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {"release": release, "events": events, "result": result}


def file_of(name: str) -> Path:
    """The file in the package."""
    return FOLDER / f"{name}.schema.json"


def _schema_of(kind: Any, title: str) -> dict[str, Any]:
    """The schema of a type; of a class every key is written, a TypedDict says itself which are required."""
    import msgspec

    (_,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    for each in definitions.values():
        by_default = [key for key, field in each.get("properties", {}).items() if "default" in field]
        for key in by_default:
            del each["properties"][key]["default"]
            each.setdefault("required", []).append(key)
    schema: dict[str, Any] = definitions.pop(kind.__name__)
    return {"$schema": DIALECT, **schema, "title": title, **({"$defs": definitions} if definitions else {})}
