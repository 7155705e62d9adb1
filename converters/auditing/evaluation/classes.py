"""The class that a label means: its index among the logits.

labels of the catalogue, or the names in config.json → ``ClassNames`` → ``index("tench")``, ``index("n01440764")``
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from converters.auditing.inspection.label_fields import (
    fits,
    in_order,
    is_class_number,
    is_unnamed,
    letters_of,
    names_of,
)
from converters.catalogue.labels import Label, id2label, labels
from converters.errors import UsageError
from converters.files import CONFIG, read_json
from converters.folder.plan import Plan

SHOWN = 3
"""Labels that an error names."""


class ClassNames:
    """The classes of a network, by anything that each is called."""

    def __init__(self, count: int, found: Sequence[Label], names: Sequence[str]) -> None:
        """``found`` and ``names`` are of every class, or empty; ``names`` are unique where the labels can make them."""
        self.count, self._labels, self.names = count, found, names

    @classmethod
    def of(cls, plan: Plan, folder: Path) -> ClassNames:
        """Those of the variant; where it is not known, those that the folder's config.json gives."""
        count = plan.architecture.classes or 0
        if plan.variant is not None and plan.variant.labels is not None and plan.labels is not None:
            return cls(count, labels(plan.variant.labels), id2label(plan.variant.labels))
        names = declared_names(folder) if (folder / CONFIG).is_file() else []
        if len(names) != count:
            names = []
        return cls(count, [Label(None, name) for name in names], names)

    def index(self, text: str) -> int:
        """The class of a label. Raises UnknownLabelError for none, and for one of several classes."""
        for found in self._candidates(text):
            if len(found) == 1:
                return next(iter(found))
            if found:
                raise UnknownLabelError(f"{text!r} may be {' or '.join(self._named(index) for index in sorted(found))}")
        near = get_close_matches(text, self.names, 1, 0.6)
        raise UnknownLabelError(f"{text!r} is no class{f' (nearest: {near[0]!r})' if near else ''}")

    @property
    def known(self) -> str:
        """The words that classes are named by here."""
        if not self.names or is_unnamed(list(self.names)):
            return f"an index, 0 to {self.count - 1}"
        synset = f", its WordNet id ({self._labels[0].id})" if self._labels[0].id else ""
        return f"its name ({self.names[0].partition(',')[0]!r}){synset} or its index (0 to {self.count - 1})"

    def _candidates(self, text: str) -> Iterable[set[int]]:
        """The classes that a label may mean, the surest reading first."""
        yield self._exact.get(text, set())
        folded = unicodedata.normalize("NFKC", text).casefold()
        yield self._by_letters.get(letters_of(folded), set()) if self._labels else set()
        is_index = is_class_number(text) and int(text) < self.count
        yield {int(text)} if is_index else set()
        yield {index for index, label in enumerate(self._labels) if fits(text, label, self.names[index], index)}

    def _named(self, index: int) -> str:
        label = self._labels[index]
        return f"{label.id or index} ({self.names[index].partition(',')[0]})"

    @cached_property
    def _exact(self) -> dict[str, set[int]]:
        pairs = zip(self.names, self._labels, strict=True)
        return _by_name((name, label.name, label.id or name) for name, label in pairs)

    @cached_property
    def _by_letters(self) -> dict[str, set[int]]:
        return _by_name(map(names_of, self._labels))


def _by_name(names: Iterable[Iterable[str]]) -> dict[str, set[int]]:
    """Name → the classes that have it, of the names of each class."""
    found: dict[str, set[int]] = {}
    for index, own in enumerate(names):
        for name in own:
            found.setdefault(name, set()).add(index)
    return found


class UnknownLabelError(ValueError):
    """A label that is no class, or more than one."""


def declared_names(folder: Path) -> list[str]:
    """The names of the classes in config.json, in the order of the logits; empty where they are not in order."""
    config = read_json(folder / CONFIG)
    inner = config.get("pretrained_cfg")
    places: list[dict[str, Any]] = [config, inner if isinstance(inner, dict) else {}]
    for key in ("id2label", "label_names"):
        for place in places:
            if listed := in_order(place.get(key)):
                return listed
    back = config.get("label2id")
    if isinstance(back, dict) and all(isinstance(index, int) for index in back.values()):
        return in_order({str(index): name for name, index in back.items()}) or []
    return []


def indices(texts: Iterable[str], classes: ClassNames, where: str) -> dict[str, int]:
    """The class of each label. Raises UsageError, which names the first labels that are none."""
    found: dict[str, int] = {}
    refused: list[str] = []
    for text in dict.fromkeys(texts):
        try:
            found[text] = classes.index(text)
        except UnknownLabelError as error:
            refused.append(str(error))
            if len(refused) > SHOWN:  # each is held against every class: of 21,843, half a second
                break
    if refused:
        more = " and more" if len(refused) > SHOWN else ""
        raise UsageError(f"{where}: {', '.join(refused[:SHOWN])}{more}.\nName each class by {classes.known}.")
    return found
