"""The tables of this package: fields and files that are told by their names, in a TOML file beside the module.

TOML → ``table()`` → rows → ``without_effect()``, ``idle_values()``

A list of names is one text, parted by spaces and line ends.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from typing import Any

from converters.auditing.inspection.fates import KINDS, NoEffect


def table(name: str) -> dict[str, Any]:
    """The content of ``NAME.toml``."""
    return tomllib.loads(files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def without_effect(rows: Iterable[Mapping[str, Any]]) -> dict[str, NoEffect]:
    """Field → why it changes nothing."""
    return {
        name: NoEffect(row["reason"], KINDS[row.get("kind", "anything")], row.get("sample", "bit-convert"))
        for row in rows
        for name in row["names"].split()
    }


def idle_values(rows: Mapping[str, Iterable[str]]) -> dict[str, Collection[Any]]:
    """Field → the values, written as JSON, that a loader does not follow."""
    return {name: tuple(map(json.loads, values)) for name, values in rows.items()}
