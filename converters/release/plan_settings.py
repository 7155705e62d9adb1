"""The options of one table of a plan: its own, else those of the command line, else those of ``[defaults]``.

values of three levels → ``Settings`` → variants, filled templates, errors that name line and key
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter
from typing import Any

from converters.catalogue.variants import Variant, find, find_one
from converters.errors import UsageError
from converters.release.located_toml import LocatedToml, Place, read
from converters.release.plan_keys import DEFAULTS, WORDS, checked, nearest

TEMPLATES = ("output", "repo_id", "revision", "tag", "collection", "target")
"""Keys that may hold fields in braces."""
PLAIN_FIELDS = {"layout": "transformers", "dtype": "float32", "exact": "bits"}
"""Fields of templates that are options, and what these are by default."""
FIELDS = ("namespace", "name", "architecture", "format", *PLAIN_FIELDS)
_OPTION = re.compile(r"--(no-)?([a-z][a-z-]*)")


def settings_of(path: Path, name: str, typed: Mapping[str, Any] | None, wanted: str) -> list[Settings]:
    """Those of a plan's tables called ``name``, of which there must be one: ``wanted``.

    Raises UsageError, with file, line and key, for whatever is wrong with the plan.
    """
    document = read(path)
    defaults, tables = checked(document, name)
    if not tables:
        raise UsageError(f"{path}:1: {name}: the plan has none. Write {wanted}.")
    return [Settings(document, place, own, typed or {}, defaults) for place, own in tables]


@dataclass(frozen=True)
class Settings:
    """The options of one table; ``settings[key]`` is None for what none of the levels says."""

    document: LocatedToml
    place: Place
    own: Mapping[str, Any]
    typed: Mapping[str, Any]
    """The command line's, by field."""
    defaults: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values.get(key)

    @property
    def values(self) -> dict[str, Any]:
        """The options by key, of whichever level counts."""
        typed = {WORDS.get(name, name): value for name, value in self.typed.items()}
        return {**self.defaults, **typed, **self.own}

    @property
    def line(self) -> int:
        return self.document.line(*self.place)

    def variants(self) -> tuple[Variant, ...]:
        """Those of ``variant`` without those of ``exclude``. Raises UsageError where none is left."""
        if self["variant"] is None:
            raise self.error("variant", "is missing. Give a name or a glob of bit-convert --list.")
        with self.speaking():
            found = {variant.name: variant for pattern in self["variant"] for variant in find(pattern)}
        left = [
            variant
            for name, variant in found.items()
            if not any(fnmatchcase(name, pattern) for pattern in self["exclude"] or ())
        ]
        if not left:
            raise self.error("exclude", f"leaves none of {len(found)} variants.")
        return tuple(left)

    def variant(self, several: str) -> Variant | None:
        """The one that ``variant`` names, if it names one. Raises UsageError, with ``several``, for more."""
        patterns = self["variant"] or ()
        if len(patterns) > 1:
            raise self.error("variant", several)
        with self.speaking():
            return find_one(patterns[0]) if patterns else None

    def filled(self, variant: Variant | None) -> dict[str, Any]:
        """The values by field of the options, templates filled for ``variant``.

        Raises UsageError for a field that there is not, and a namespace beside a repository that has another.
        """
        fields: dict[str, Any] = {field: self[field] or default for field, default in PLAIN_FIELDS.items()}
        fields["namespace"] = self["namespace"]
        if variant is not None:
            fields |= {"name": variant.repository_name, "architecture": variant.architecture, "format": variant.format}
        by_field = {word: field for field, word in WORDS.items()}
        values = {by_field.get(key, key): value for key, value in self.values.items()}
        for key in (key for key in TEMPLATES if key in values):
            values[key] = self._filled(key, values[key], fields)
        if "hub" in self.typed or self._level("hub") > self._level("collection"):
            values.pop("collection", None)  # of a plan that is tried out with a folder hub
        if "repo_id" in values:
            self._refuse_second_namespace()
            values.pop("namespace", None)
        return values

    def _filled(self, key: str, template: Any, fields: Mapping[str, Any]) -> Any:
        if isinstance(template, tuple):
            return tuple(self._filled(key, each, fields) for each in template)
        text = "".join(self._parts(key, str(template), fields))
        return Path(text) if isinstance(template, Path) else text

    def _parts(self, key: str, template: str, fields: Mapping[str, Any]) -> Iterator[str]:
        """The parts of a template, its fields filled; a brace that is written twice is a brace."""
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise self.error(key, f"{template!r}: {error}. Write a brace twice where one is meant.") from None
        for before, field, how, conversion in parts:
            yield before
            if field is None:
                continue
            if field not in FIELDS or how or conversion:
                raise self.error(key, f"{{{field}}} cannot be filled. {nearest(field, FIELDS)}")
            if fields.get(field) is None:
                why = "no namespace is given" if field == "namespace" else "it is a variant's, and none is given"
                raise self.error(key, f"{{{field}}} cannot be filled: {why}.")
            yield str(fields[field])

    def _refuse_second_namespace(self) -> None:
        if "{namespace}" not in self["repo_id"] and self._level("namespace") >= self._level("repo_id"):
            remedy = "Leave namespace out, or write {namespace} in repo_id"
            raise self.error("namespace", f"repo_id has one already. {remedy}.")

    def _level(self, key: str) -> int:
        """The level at which a key is said: 2 the table, 1 the command line, 0 the defaults, -1 none."""
        levels = (self.defaults, self.typed, self.own)
        return max((level for level, values in enumerate(levels) if key in values), default=-1)

    def error(self, key: str, message: object) -> UsageError:
        """An error that names the key where it stands, or the table where it stands in none."""
        place = (DEFAULTS, key) if self._level(key) == 0 else (*self.place, key)
        said = _in_keys(str(message))
        return self.document.error(place, said if said.startswith(f"{key} ") else f"{key}: {said}")

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Inside, an error that names options of the command line names line and key instead."""
        try:
            yield
        except UsageError as error:
            if str(error).startswith(f"{self.document.path}:"):
                raise
            raise self.error(self._key_of(error), error) from None

    def _key_of(self, error: UsageError) -> str:
        """The key to blame: of the options that are named one of the table itself, else of any level."""
        named = [word.replace("-", "_") for _, word in _OPTION.findall(str(error))]
        said = [key for key in named if key in self.own] + [key for key in named if key in self.values]
        return said[0] if said else "variant"


def _in_keys(message: str) -> str:
    """A message of the command line, whose options are keys here."""
    return _OPTION.sub(lambda found: found[2].replace("-", "_") + (" = false" if found[1] else ""), message)
