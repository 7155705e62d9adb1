"""The keys of a plan: those of the options' own fields, and how a value of TOML becomes an option's.

``[defaults]``, ``[[release]]``, ``[[audit]]`` → ``checked()`` → values by key, or an error that names line and key
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from converters.errors import UsageError
from converters.options import AuditOptions, ConvertOptions, PublishOptions, as_path, as_size
from converters.redaction import remember
from converters.release.located_toml import LocatedToml, Place

Kind = Callable[[Any], Any]
"""Takes a value of TOML to an option's; raises UsageError for one of another type."""

DEFAULTS, RELEASES, AUDITS = "defaults", "release", "audit"
WORDS = {"oracles": "oracle", "runners": "runner"}
"""Options that are given once a value, by the field that holds all of them."""


def _only(kinds: tuple[type, ...], otherwise: str) -> Kind:
    """Takes values of these very types, so that a boolean is no number."""

    def taken(value: Any) -> Any:
        if type(value) not in kinds:
            raise UsageError(f"{value!r} {otherwise}")
        return value

    return taken


_flag = _only((bool,), "is neither true nor false.")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"{value!r} is no text. Write it in quotes.")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and value:
        return tuple(map(_text, value))
    return (_text(value),)


def _size(value: Any) -> int:
    return as_size(_only((int, str), "is no size such as 800000000 or '5GB'.")(value))


def _path(value: Any) -> Path:
    return as_path(_text(value))


def _address(value: Any) -> str:
    remember(_text(value))
    return str(value)


KINDS: Mapping[str, Kind] = {
    "bool": _flag,
    "Path": _path,
    "tuple[str, ...]": _texts,
    "int": _only((int,), "is no whole number."),
    "float": _only((int, float), "is no number."),
}
"""The kind of value, by the annotation of an option's field without ``| None``; of any other it is a text."""


def _keys(*options: type, **others: Kind) -> dict[str, Kind]:
    every = (field for kind in options for field in fields(kind))
    found = {
        WORDS.get(field.name, field.name): KINDS.get(str(field.type).removesuffix(" | None"), _text) for field in every
    }
    return {**found, **others}


KEYS: Mapping[str, Mapping[str, Kind]] = {
    RELEASES: _keys(
        ConvertOptions,
        PublishOptions,
        max_shard_size=_size,
        variant=_texts,
        exclude=_texts,
        checkpoint=_address,
        output=_path,
        push=_flag,
    ),
    AUDITS: _keys(AuditOptions, variant=_texts, exclude=_texts, target=_texts, against=_address),
}
"""The keys of the tables of each name."""
OF_ONE = ("variant", "checkpoint", "target", "against")
"""Keys that are for one table, and no defaults."""


Tables = list[tuple[Place, Mapping[str, Any]]]
"""The place of each, and what it says itself, each key's value an option's."""


def checked(document: LocatedToml, name: str) -> tuple[Mapping[str, Any], Tables]:
    """The defaults that concern the tables called ``name``, RELEASES or AUDITS, and these tables.

    Raises UsageError for a table or a key that no plan has, and for a value of another type, wherever it stands.
    """
    for key in document.content:
        _refuse_unknown(document, (key,), (DEFAULTS, RELEASES, AUDITS))
    defaults = document.content.get(DEFAULTS, {})
    if not isinstance(defaults, dict):
        raise document.error((DEFAULTS,), "defaults: is no table. Write [defaults].")
    common = {key: kind for known in KEYS.values() for key, kind in known.items() if key not in OF_ONE}
    values = _values(document, (DEFAULTS,), defaults, common)
    found = {kind: _tables(document, kind) for kind in KEYS}
    return {key: value for key, value in values.items() if key in KEYS[name]}, found[name]


def _tables(document: LocatedToml, name: str) -> Tables:
    tables = document.content.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise document.error((name,), f"{name}: is no array of tables. Write [[{name}]].")
    places: list[Place] = [(name, index) for index in range(len(tables))]
    return [(p, _values(document, p, t, KEYS[name])) for p, t in zip(places, tables, strict=True)]


def _values(
    document: LocatedToml, place: Place, content: Mapping[str, Any], known: Mapping[str, Kind]
) -> Mapping[str, Any]:
    values = {}
    for key, value in content.items():
        _refuse_unknown(document, (*place, key), known)
        try:
            values[key] = known[key](value)
        except UsageError as error:
            raise document.error((*place, key), f"{key}: {error}") from None
    return values


def _refuse_unknown(document: LocatedToml, place: Place, known: Iterable[str]) -> None:
    key = str(place[-1])
    if key not in known:
        raise document.error(place, f"{key}: no such key. {nearest(key.replace('-', '_'), known)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that proposes the nearest known word, or all of them."""
    near = get_close_matches(word, known := list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(known)}."
