"""Labelled data sets: a folder with a sub-folder for each class, or a CSV of paths and labels.

path, ClassNames → ``listing()`` → every image with its class
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.auditing.evaluation.classes import ClassNames, indices
from converters.auditing.evaluation.images import SUFFIXES, is_image
from converters.errors import UsageError

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
LABELS = ("label", "class", "target", "category", "class_name", "synset", "wnid")
"""Names of the two columns in a header; ``file_name`` and ``label`` are those of Hugging Face's image folders."""
MAX_CSV = 1 << 30
MAX_CELL = 1 << 16


@dataclass(frozen=True)
class LabelledImage:
    """An image of a data set."""

    name: str
    """Its path in the data set, as a report names it."""
    path: Path
    label: int


@dataclass(frozen=True)
class Listing:
    """The images of a data set, in a fixed order."""

    name: str
    place: Path
    images: tuple[LabelledImage, ...]

    def limited(self, limit: int | None) -> Listing:
        """At most ``limit`` of the images, spread evenly over the list, so that no class is left out by its name."""
        if limit is None or limit >= len(self.images):
            return self
        chosen = np.linspace(0, len(self.images) - 1, limit).round().astype(int)
        return replace(self, images=tuple(self.images[index] for index in chosen))


def listing(place: Path, classes: ClassNames) -> Listing:
    """Every image of a data set. Raises UsageError for one that cannot be read, is empty, or names no class."""
    images = _of_csv(place, classes) if place.is_file() else _of_folder(place, classes)
    return Listing(place.resolve().name, place, tuple(images))


def _of_folder(place: Path, classes: ClassNames) -> list[LabelledImage]:
    """The images in sub-folders, at any depth; those without any image, and hidden ones, are passed over."""
    found = {folder.name: list(_images(folder)) for folder in sorted(place.iterdir()) if _is_class(folder)}
    found = {name: paths for name, paths in found.items() if paths}
    if not found:
        tables = sorted(path.name for path in place.glob("*.csv"))
        or_csv = f", or give {tables[0]}" if tables else ", or give a CSV of paths and labels"
        raise UsageError(
            f"{place}: no sub-folder with an image ({', '.join(SUFFIXES)}).\n"
            f"Make a sub-folder for each class{or_csv} with --dataset."
        )
    index = indices(found, classes, str(place))
    return [
        LabelledImage(path.relative_to(place).as_posix(), path, index[name])
        for name, paths in found.items()
        for path in paths
    ]


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and folder.name != "__MACOSX"


def _images(folder: Path) -> Iterator[Path]:
    """The image files below a folder, sorted; a link to a folder above is not followed in circles."""
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        state = os.stat(where)
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for path in map(Path(where).joinpath, sorted(names)) if is_image(path))


def _of_csv(place: Path, classes: ClassNames) -> list[LabelledImage]:
    rows = _rows(place)
    for line, name, _ in rows:
        if not (place.parent / name).is_file():
            raise UsageError(f"{place}: line {line}: no such file: {name}. Paths are relative to the CSV's folder.")
    index = indices((label for *_, label in rows), classes, str(place))
    return [LabelledImage(_shown(name), place.parent / name, index[label]) for _, name, label in rows]


def _shown(name: str) -> str:
    """A path as a report has it, which goes where this machine is not."""
    return name if not Path(name).is_absolute() else Path(name).name


def _rows(place: Path) -> list[tuple[int, str, str]]:
    """(line, path, label) of each row. Raises UsageError for a table that has none."""
    try:
        if place.stat().st_size > MAX_CSV:
            raise ValueError(f"more than {MAX_CSV >> 20} MB")
        text = place.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds NUL bytes")
        delimiter = "\t" if place.suffix.lower() == ".tsv" else ","
        csv.field_size_limit(MAX_CELL)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(
            f"{place}: cannot be read as a CSV: {getattr(error, 'strerror', None) or error}. Give paths and labels."
        ) from error
    named = _named_columns(cells[0][1]) if cells else None
    if named is not None:
        del cells[0]
    first, second = named or (0, 1)
    for line, row in cells:
        if max(first, second) >= len(row) or not row[first] or not row[second]:
            raise UsageError(f"{place}: line {line}: needs a path and a label.")
    if not cells:
        raise UsageError(f"{place}: lists no image. Give a line for each: its path, a comma, its label.")
    return [(line, row[first], row[second]) for line, row in cells]


def _named_columns(row: list[str]) -> tuple[int, int] | None:
    """The columns of path and label as a header names them; None of a row that is none."""
    lower = [cell.lower() for cell in row]
    path, label = (next((at for at, cell in enumerate(lower) if cell in names), None) for names in (PATHS, LABELS))
    return None if path is None or label is None else (path, label)
