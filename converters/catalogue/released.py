"""The lines of the catalogue as texts, and the table of them that ``bit-convert --list`` prints.

    released.csv (a line for each pattern of names, with its source) → ``entries()`` → ``listing()``

A line's name may hold sets in braces, ``BiT-M-{R50x1,R50x3}``, as Google's own lists do; it stands for every
combination. The other columns name the chosen element of the first set ``{0}``, of the second ``{1}``, the whole name
``{name}``, and the architecture without its R ``{size}``. ``docs/catalogue.md`` has the origin of each line.
Nothing else is imported unless a pattern or JSON is asked for: a list should appear at once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from itertools import count, product
from os.path import dirname, join

FOLDER = dirname(__file__)
"""The folder of the catalogue's data files, as text: pathlib takes as long to import as all else that a list needs."""

_SET = re.compile(r"\{([^{}]*)\}")


def listing(pattern: str | None = None, *, as_json: bool = False) -> str:
    """Returns the catalogue, or what ``find`` gives of it, as a table or as JSON, with a newline at the end.

    Raises UsageError, with the nearest names, where nothing matches the pattern.
    """
    if not pattern and not as_json:
        return _table(entries())
    from converters.catalogue.variants import find, variants

    chosen = find(pattern) if pattern else variants()
    if as_json:
        import json

        return json.dumps([variant.to_json() for variant in chosen], indent=2) + "\n"
    names = {variant.name for variant in chosen}
    return _table(cells for cells in entries() if cells["name"] in names)


def entries() -> Iterator[dict[str, str]]:
    """Yields the columns of every released checkpoint, in the order of the data file."""
    with open(join(FOLDER, "released.csv"), encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            yield from _expand(line)


def _expand(line: Mapping[str, str]) -> Iterator[dict[str, str]]:
    slot = count()
    name_template = _SET.sub(lambda _: f"{{{next(slot)}}}", line["name"])
    fixed = {column: text for column, text in line.items() if "{" not in text}
    patterns = {column: text for column, text in line.items() if column not in fixed and column != "name"}
    for chosen in product(*(found.split(",") for found in _SET.findall(line["name"]))):
        name = name_template.format(*chosen)
        architecture = line["architecture"].format(*chosen).capitalize()  # TF-Hub spells r50x1
        fill = {"name": name, "size": architecture.removeprefix("R")}
        filled = {column: text.format(*chosen, **fill) for column, text in patterns.items()}
        yield fixed | filled | {"name": name, "architecture": architecture}


def _table(chosen: Iterator[dict[str, str]]) -> str:
    rows: list[tuple[str, ...]] = [("name", "format", "network", "classes", "labels", "bytes")]
    for cells in chosen:
        size = f"{int(cells['bytes']):,}" if cells["bytes"] else ""
        name = f"{cells['name']} (defective)" if cells["defect"] else cells["name"]
        rows.append(
            (name, cells["format"], cells["architecture"], cells["classes"] or "–", cells["labels"] or "–", size)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
