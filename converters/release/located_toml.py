"""TOML, and the line on which each of its keys stands, so that an error can name it.

file → tomllib → content;  the same text → ``_statements()`` → (table, key) → line

tomllib gives values without places. What is valid TOML falls into statements at newlines outside of strings and
brackets, and what a statement names is found by tomllib itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import CheckpointError, UsageError
from converters.files import refuse_special
from converters.reading import reading

MAX_BYTES = 1 << 20
"""The largest file that is read; a table for each model that Google released takes a tenth of it."""

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*|\n|[\[\]{}=]|[^\"'\#\n\[\]{}=]+",
    re.DOTALL,
)
_PLACE = re.compile(r"(?P<what>.*?) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL)

Place = tuple[str | int, ...]
"""Keys and, of an array of tables, the table's number from 0."""


@dataclass(frozen=True)
class LocatedToml:
    """The content of a file, and where it stands."""

    path: Path
    content: dict[str, Any]
    lines: dict[Place, int]

    def line(self, *place: str | int) -> int:
        """The line of a key, or of the innermost table around it that has one."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def error(self, place: Place, message: str) -> UsageError:
        return UsageError(f"{self.path}:{self.line(*place)}: {message}")


def read(path: Path) -> LocatedToml:
    """Raises UsageError, with the line, for a file that is missing, too large or no TOML."""
    try:
        with reading(path, "the plan", "Give a TOML file with --plan."):
            refuse_special(path)
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise UsageError(f"{path}: is larger than {MAX_BYTES >> 10} KB, which no plan is.")
            text = content.decode("utf-8").replace("\r\n", "\n")
            return LocatedToml(path, _parsed(path, text), _lines(text))
    except CheckpointError as error:
        raise UsageError(str(error)) from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.fullmatch(str(error))
        line = (found and found["line"]) or text.count("\n") + 1
        raise UsageError(f"{path}:{line}: no TOML: {found['what'] if found else error}.") from error


def _lines(text: str) -> dict[Place, int]:
    """Each key and each table's header, and the line on which it first stands."""
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for line, statement in _statements(text):
        is_header = statement.startswith("[")
        names = _names(statement if is_header else f"{statement}=0")
        place: Place = () if is_header else table
        for depth, name in enumerate(names, start=1):
            place = (*place, name)
            if statement.startswith("[[") and depth == len(names):
                counts[place] = counts.get(place, 0) + 1
            lines.setdefault(place, line)
            if place in counts:
                place = (*place, counts[place] - 1)
                lines.setdefault(place, line)
        table = place if is_header else table
    return lines


def _names(statement: str) -> list[str]:
    """The keys of a header or of an assignment, from the outermost in."""
    names, content = [], tomllib.loads(statement)
    while isinstance(content, dict) and content:
        name, content = next(iter(content.items()))
        names.append(name)
        content = content[0] if isinstance(content, list) else content
    return names


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yields the line of each header and assignment, and its text, of an assignment that before the ``=``."""
    line, depth, start, head, is_named = 1, 0, 1, "", False
    for token in _TOKEN.findall(text + "\n"):
        if token == "\n" and depth == 0:
            if head.strip():
                yield start, head.strip()
            head, is_named = "", False
        elif not is_named and token == "=" and depth == 0:
            is_named = True
        elif token.strip() and not token.startswith("#"):
            depth += (token in "[{") - (token in "]}")
            start = line if not head.strip() else start
            head += "" if is_named else token
        line += token.count("\n")
