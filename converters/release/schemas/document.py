"""The types of the document that ``bit-convert --json`` prints; ``JobResult.to_json`` makes an entry.

Keys that are not required are left out where there is nothing to say.
"""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict

from converters.hub.guard import Publication
from converters.release.job import State


class Entry(TypedDict, total=False):
    """One model: what came of it, and of what was made the folder, the report and the publication."""

    name: Required[str]
    state: Required[State]
    exit_status: Required[int]
    error: str | None
    plan: dict[str, str] | None
    """With --dry-run: what would be done."""
    folder: str | None
    files: list[str] | None
    made: bool | None
    """False where the folder held this result already."""
    architecture: str | None
    left_out: str | None
    seconds: float | None
    report: dict[str, Any] | None
    """The content of parity.json: verify/report/parity.schema.json."""
    publication: Publication | None
    discarded: bool | None


class EstimateEntry(TypedDict):
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


class CollectionEntry(TypedDict, total=False):
    """One collection of the Hub, and what was added to it."""

    collection: Required[str]
    """Its title or slug, as it was asked for."""
    exit_status: Required[int]
    error: str | None
    slug: str | None
    title: str | None
    url: str | None
    added: list[str] | None


class Document(TypedDict, total=False):
    """The whole document."""

    schema: Required[Literal[1]]
    release: Required[str]
    """The version of bit-convert."""
    exit_status: Required[int]
    results: Required[list[Entry]]
    error: str | None
    """The error that ended the run before its time."""
    estimate: EstimateEntry | None
    """With --dry-run."""
    collections: list[CollectionEntry] | None
