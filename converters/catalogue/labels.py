"""The names of the classes, in the order of the logits.

    name of a set → labels/*.txt (ids, or plain names) → ``labels()`` → ``id2label()``, unique names for config.json

``labels/README.md`` says where each list comes from.
"""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("labels")

WORDNET_IDS = {"ilsvrc2012": "ilsvrc2012_ids.txt", "imagenet21k": "imagenet21k_ids.txt.gz"}
"""The sets whose classes are WordNet synsets; every other set has its names in ``labels/SET.txt``."""

WORDNET_LEMMAS = "wordnet_lemmas.tsv.gz"


@dataclass(frozen=True)
class Label:
    """A class: ``id`` is its WordNet id (``n01440764``), None outside WordNet; ``name`` its lemmas or its name."""

    id: str | None
    name: str


@cache
def labels(set_name: str) -> tuple[Label, ...]:
    """The classes of a set of the catalogue; names may repeat. Raises KeyError for a set that does not ship."""
    if set_name in WORDNET_IDS:
        lemmas = dict(line.split("\t") for line in _lines(WORDNET_LEMMAS))
        return tuple(Label(synset, lemmas[synset]) for synset in _lines(WORDNET_IDS[set_name]))
    try:
        return tuple(Label(None, name) for name in _lines(f"{set_name}.txt"))
    except FileNotFoundError:
        raise KeyError(set_name) from None


def id2label(set_name: str) -> list[str]:
    """A unique name for each class: ``tench, Tinca tinca``, as google/bit-50's config.json has them.

    Where synsets share their lemmas, each gets its WordNet id, ``crane (n02012849)``, so that label2id loses none.
    Raises KeyError for a set that does not ship.
    """
    found = labels(set_name)
    times = Counter(label.name for label in found)
    return [label.name if times[label.name] == 1 else f"{label.name} ({label.id})" for label in found]


def _lines(file_name: str) -> list[str]:
    data = (FOLDER / file_name).read_bytes()
    if file_name.endswith(".gz"):
        data = gzip.decompress(data)
    return data.decode("utf-8").splitlines()
