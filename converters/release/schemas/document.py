"""The types of the document that ``bit-convert --json`` prints; ``Result.to_json`` makes an entry."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from converters.hub.guard import Publication
from converters.release.job import State

REQUIRED = {
    "Document": ["schema", "release", "exit_status", "results"],
    "Entry": ["name", "state", "exit_status"],
    "CollectionEntry": ["collection", "exit_status"],
}
"""The keys that are always there."""


class Entry(msgspec.Struct, kw_only=True):
    """One model: what came of it, and of what was made the folder, the report and the publication."""

    name: str
    state: State
    exit_status: int
    error: str | None = None
    plan: dict[str, str] | None = None
    """With --dry-run: what would be done."""
    folder: str | None = None
    files: list[str] | None = None
    made: bool | None = None
    """False where the folder held this result already."""
    architecture: str | None = None
    left_out: str | None = None
    seconds: float | None = None
    report: dict[str, Any] | None = None
    """The content of parity.json: verify/report/parity.schema.json."""
    publication: Publication | None = None
    discarded: bool | None = None


class EstimateEntry(msgspec.Struct, kw_only=True):
    """The cost of a run: bytes, requests, hours."""

    models: int
    unknown: int
    """Models of which nothing is known before they are downloaded."""
    fetch: int
    cached: int
    send: int
    memory: int
    requests: int
    disk: int
    disk_with_discard: int
    hub_hours: float
    core_hours: float
    cores: int


class CollectionEntry(msgspec.Struct, kw_only=True):
    """One collection of the Hub, and what was added to it."""

    collection: str
    """Its title or slug, as it was asked for."""
    exit_status: int
    error: str | None = None
    slug: str | None = None
    title: str | None = None
    url: str | None = None
    added: list[str] | None = None


class Document(msgspec.Struct, kw_only=True):
    """The whole document."""

    schema: Literal[1]
    release: str
    """The version of bit-convert."""
    exit_status: int
    results: list[Entry]
    error: str | None = None
    """The error that ended the run before its time."""
    estimate: EstimateEntry | None = None
    """With --dry-run."""
    collections: list[CollectionEntry] | None = None
