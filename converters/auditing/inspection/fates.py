"""Notes of an inspection: values that must be, the result for every file and field, what misleads a loader.

file or field, its value → ``Notes``, ``Fields`` → Expectations and Inspected

Values come from files of unknown origin: whatever they are, they are compared as bounded texts and never acted upon.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from verify.protocols import Expectation, Inspected

MAX_TEXT = 80
MAX_LISTED = 200
"""Unknown fields of one file that are noted one by one; of more, their number."""


ABSENT: Any = object()
"""The value of a missing field."""


def shown(value: Any) -> str:
    """A value as a canonical, short, printable text: what is long is known by its digest."""
    if value is ABSENT:
        return "absent"
    return short(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))


def short(text: str) -> str:
    """A printable text: what is long is known by its digest."""
    text = printable(text)
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[: MAX_TEXT // 2]}… sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def printable(text: str) -> str:
    """Text that can be written as UTF-8: half characters, which JSON allows, are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def short_name(name: str) -> str:
    """A key or a file name of unknown origin, as a place names it: on one line, and not too long."""
    text = printable(json.dumps(name, ensure_ascii=False)[1:-1])
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


@dataclass(frozen=True)
class FieldType:
    """A type that a library accepts for a field: its name for messages, and a test of values."""

    name: str
    takes: Callable[[Any], bool]


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can be, and finite."""
    return (is_int(value) and abs(value) < 10**300) or (isinstance(value, float) and math.isfinite(value))


ANYTHING = FieldType("anything", lambda value: True)
BOOLEAN = FieldType("a boolean", lambda value: isinstance(value, bool))
KINDS = {
    kind.name: kind
    for kind in (
        ANYTHING,
        BOOLEAN,
        FieldType("a boolean or null", lambda value: value is None or isinstance(value, bool)),
        FieldType("a number", is_number),
        FieldType("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
        FieldType("an integer or null", lambda value: value is None or is_int(value)),
        FieldType(
            "three integers or null",
            lambda value: value is None or (isinstance(value, list) and list(map(is_int, value)) == [True] * 3),
        ),
    )
}
"""Kinds by their names."""


@dataclass(frozen=True)
class NoEffect:
    """Why a field changes nothing that a model computes, with the library's file and function; ``kind`` is what the
    library takes for it, since of anything else it cannot load the file."""

    reason: str
    kind: FieldType = ANYTHING
    sample: Any = "bit-convert"
    """Another value than the usual one, that the tests load the library with."""


@dataclass
class Notes:
    """The results of an inspection."""

    expectations: list[Expectation] = field(default_factory=list)
    inspected: list[Inspected] = field(default_factory=list)
    misleading: str = ""
    """Why no library may be given the folder, or nothing."""

    @property
    def unmet(self) -> list[Expectation]:
        return [each for each in self.expectations if not each.met]

    def wrong(self, file: str) -> bool:
        """Whether something in a file, or in a field of it, is not what it must be."""
        return any(each.place.partition(" ")[0] == file for each in self.unmet)

    def must(self, place: str, expected: str, found: str, reason: str = "") -> bool:
        """Notes what must be so, as short texts; whether it is."""
        self.expectations.append(Expectation(place, expected, found))
        self.inspected.append(Inspected(place, "compared", reason or f"must be {expected}"))
        return expected == found

    def fulfil(self, place: str, expected: str, found: Any, fulfilled: bool) -> bool:
        """Notes a requirement that is no single value; ``found`` is shown where it is not fulfilled."""
        return self.must(place, expected, expected if fulfilled else shown(found))

    def harmless(self, place: str, reason: str) -> None:
        self.inspected.append(Inspected(place, "no effect", reason))

    def unknown(self, place: str, reason: str = "nobody knows what it changes") -> None:
        self.inspected.append(Inspected(place, "unknown", reason))

    def mislead(self, why: str) -> None:
        """Notes why no library may be given the folder; the first reason stays."""
        self.misleading = self.misleading or why

    def may_note(self) -> bool:
        """Whether more of what is wrong is still worth naming."""
        return sum(not each.met for each in self.expectations[-MAX_LISTED:]) < MAX_LISTED


class Fields:
    """The fields of one JSON object: each is taken once, and ``rest`` says what became of those that nobody took."""

    def __init__(self, notes: Notes, file: str, content: Mapping[str, Any], within: str = "") -> None:
        self.notes, self.file, self.content = notes, file, content
        self._within = within
        self._left = dict.fromkeys(content)

    def place(self, key: str) -> str:
        return f"{self.file} {self._within}{short_name(key)}"

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def take(self, key: str, default: Any = ABSENT) -> Any:
        """The value, which the caller deals with."""
        self._left.pop(key, None)
        return self.content.get(key, default)

    def inner(self, key: str) -> Fields:
        """The fields of the object that a field holds; none of anything else, which misleads."""
        value = self.take(key)
        if not isinstance(value, dict):
            self.must(key, "an object", shown(value), misleads="is none")
            value = {}
        return Fields(self.notes, self.file, value, f"{key}.")

    def must(self, key: str, expected: str, found: str, reason: str = "", *, misleads: str = "") -> bool:
        """As ``Notes.must``; ``misleads`` is why no library may be given a folder with another value here."""
        is_met = self.notes.must(self.place(key), expected, found, reason)
        if misleads and not is_met:
            self.notes.mislead(f"{self.place(key)} {misleads}")
        return is_met

    def fulfil(self, key: str, expected: str, found: Any, fulfilled: bool, *, misleads: str = "") -> bool:
        """As ``Notes.fulfil``, and ``must``."""
        return self.must(key, expected, expected if fulfilled else shown(found), misleads=misleads)

    def equal(self, key: str, wanted: Any, default: Any = ABSENT, *, misleads: str = "") -> bool:
        """Compares a field, a missing one as what the library takes instead: its ``default``."""
        return self.must(key, shown(wanted), shown(self.take(key, default)), misleads=misleads)

    def harmless(self, key: str, reason: str) -> None:
        self.notes.harmless(self.place(key), reason)

    def one_of(self, key: str, wanted: Collection[Any]) -> bool:
        """Compares a field that may have several values, or be missing."""
        if key not in self.content:
            return True
        value = self.take(key)
        texts = [shown(each) for each in wanted]
        expected = texts[0] if len(texts) == 1 else "one of " + ", ".join(texts)
        found = shown(value)
        return self.must(key, expected, expected if found in texts else found)

    def none_of(self, keys: Mapping[str, Collection[Any]], why: str) -> None:
        """Fields that a loader follows elsewhere: each must be missing, or one of its few idle values."""
        for key, idle in keys.items():
            if key not in self.content:
                continue
            value = self.take(key)
            is_idle = any(shown(value) == shown(each) for each in idle)
            self.fulfil(key, "absent", value, is_idle, misleads=why)

    def rest(self, table: Mapping[str, NoEffect], attributes: Collection[str] = (), owner: str = "") -> None:
        """Notes the fields that were not read: without effect, an attribute of the library's own class, or unknown."""
        unknown = 0
        for key in sorted(self._left):
            value = self.take(key)
            if key in table:
                self._without_effect(key, value, table[key])
            elif key in attributes or (key.startswith("__") and key.endswith("__")):
                self.must(key, f"absent: it replaces what {owner} has under that name", shown(value))
            else:
                unknown += 1
                if unknown <= MAX_LISTED:
                    self.notes.unknown(self.place(key))
        if unknown > MAX_LISTED:
            self.notes.unknown(f"{self.file} {self._within}…", f"{unknown - MAX_LISTED} more fields")

    def rest_refused(self, table: Mapping[str, NoEffect], why: str) -> None:
        """Notes the fields that were not read: without effect, or refused by the library."""
        for key in sorted(self._left):
            value = self.take(key)
            if key in table:
                self._without_effect(key, value, table[key])
            elif self.notes.may_note():
                self.must(key, f"absent: {why}", shown(value))

    def _without_effect(self, key: str, value: Any, row: NoEffect) -> None:
        if row.kind.takes(value):
            self.harmless(key, row.reason)
        else:
            self.must(key, row.kind.name, shown(value))
