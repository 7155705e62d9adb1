"""The names of the classes in config.json, held against the source's.

id2label, label2id, num_labels; or timm's label_names → ``inspect_labels()``, ``inspect_names()`` → Notes
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from converters.auditing.inspection.fates import ABSENT, Fields, is_int, short_name, shown
from converters.catalogue.labels import Label, id2label, labels
from converters.folder.plan import Plan

WRONG = 5
"""Wrong labels that are named one by one."""
MOST_LETTERS = 1000
"""More than any name of a class has."""
MOST_LABELS = 100_000
"""More than any checkpoint has; a library builds a dictionary of as many as ``num_labels`` says."""
WORDNET_ID = re.compile(r"(?<![a-z0-9])n\d{8}(?!\d)")
NUMBER = re.compile(r"^(\d+)(?!\d)")
"""The number of a class before its name."""
SYNSET = re.compile(r"\.n\.\d+$")
"""The suffix that NLTK writes after a lemma: ``tench.n.01``."""
SEPARATORS = re.compile(r"[,;/|()\[\]\n\t]| or ")
"""The separators of the lemmas of a class."""
OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "n02012849": ("crane bird",),  # torchvision models/_meta.py _IMAGENET_CATEGORIES
    "airplane": ("plane",),  # PyTorch's tutorial on CIFAR-10
    "automobile": ("car",),
}
"""Names of a class, by its WordNet id or its own name, that libraries and their tutorials have beside."""

HEADLESS = "transformers models/bit/modeling_bit.py BitModel has no head to name"


def inspect_labels(fields: Fields, plan: Plan) -> None:
    """Compares the labels: their number, their order, each text, and label2id as their inverse."""
    if plan.architecture.classes is None:
        _inspect_headless(fields)
        return
    count = plan.architecture.classes
    names, number = fields.take("id2label", None), fields.take("num_labels")
    found = 2 if names is None else len(names) if isinstance(names, dict) else names
    if number is not ABSENT and (names is None or found == count):
        found = number  # transformers numbers the classes again where this is another number
    if not fields.notes.must(f"{fields.file} number of labels", str(count), shown(found)):
        fields.notes.mislead(f"{fields.file} describes another network than the weights are of")
    listed = _numbered(fields, names, count)
    if listed is not None:
        _inspect_inverse(fields, listed)
        if plan.variant is not None and plan.variant.labels is not None and names is not None:
            inspect_names(fields, "id2label", listed, plan.variant.labels)
    else:
        fields.take("label2id")


def inspect_names(fields: Fields, key: str, found: list[Any], set_name: str) -> None:
    """Every label against the set that the source was trained on; what is wrong is named by its index.

    Classes that have no names claim nothing.
    """
    if is_unnamed(found):
        return
    wanted, unique = labels(set_name), id2label(set_name)
    wrong = [i for i, label in enumerate(wanted) if i >= len(found) or not fits(found[i], label, unique[i], i)]
    for index in wrong[:WRONG]:
        label = found[index] if index < len(found) else ABSENT
        fields.notes.must(f"{fields.place(key)} {index}", _quoted(wanted[index].name), _quoted(label))
    right = f"the labels of {set_name}"
    if not wrong or len(wrong) > WRONG:
        fields.must(key, right, f"{right}, but for {len(wrong)}" if wrong else right)


def fits(found: Any, label: Label, unique: str, index: int | None = None) -> bool:
    """Whether a text names a class: by its WordNet id, or by one or more of its lemmas.

    Their order, what parts them, capitals, and what stands between letters (``_``, ``-``, ``'``) are free; the number
    of the class, its ``index``, may stand before.
    """
    if not isinstance(found, str) or len(found) > MOST_LETTERS:
        return False
    if found in (unique, label.name, label.id):
        return True
    text = unicodedata.normalize("NFKC", found).casefold()
    number = NUMBER.match(text)
    if number is not None and number[1] == str(index) and fits(text[number.end() :], label, unique):
        return True
    ids = WORDNET_ID.findall(text) if label.id is not None else []
    if any(each != label.id for each in ids):
        return False
    text = SYNSET.sub("", WORDNET_ID.sub(",", text) if ids else text)
    names = names_of(label)
    parts = [letters for part in SEPARATORS.split(text) if (letters := letters_of(part))]
    if not parts:
        return bool(ids)
    return letters_of(text) in names or all(_is_joined(part, names) for part in parts)


def names_of(label: Label) -> set[str]:
    """The letters and digits of everything that a class is called."""
    own = label.name.split(",") if label.id is not None else [label.name, re.sub(r"^/\w/", "", label.name)]
    return {letters_of(name.casefold()) for name in (*own, *OTHER_NAMES.get(label.id or label.name, ()))} - {""}


def is_unnamed(names: list[Any]) -> bool:
    """Whether classes are called as transformers calls those without names."""
    return names == [f"LABEL_{index}" for index in range(len(names))]


def letters_of(text: str) -> str:
    """The letters and digits of a text, by which names are compared."""
    return "".join(filter(str.isalnum, text))


def _is_joined(text: str, names: set[str]) -> bool:
    """Whether a text is one name after another."""
    ends = {0}
    for place in range(len(text)):
        if place in ends:
            ends |= {place + len(name) for name in names if text.startswith(name, place)}
    return len(text) in ends


def _quoted(label: Any) -> str:
    return f"'{short_name(label)}'" if isinstance(label, str) else shown(label)


def _numbered(fields: Fields, names: Any, count: int) -> list[Any] | None:
    """The labels in the order of their numbers, where these are 0 … n−1."""
    if names is None:
        return [f"LABEL_{index}" for index in range(min(count, MOST_LABELS))]
    listed = in_order(names)
    fields.notes.fulfil(f"{fields.file} id2label's classes", "0 … n-1, each a text", names, listed is not None)
    return listed


def in_order(names: Any) -> list[Any] | None:
    """The values of a dictionary with the keys 0 … n−1 in any order, or a list; None of anything else."""
    if isinstance(names, dict):
        numbers = {int(key): value for key, value in names.items() if is_class_number(key)}
        if len(numbers) != len(names) or numbers.keys() != set(range(len(names))):
            return None
        names = [numbers[index] for index in range(len(numbers))]
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def is_class_number(text: str) -> bool:
    """Whether a text is the number of a class, in digits of ASCII."""
    return text.isascii() and text.isdecimal() and len(text) < 9


def _inspect_inverse(fields: Fields, listed: list[Any]) -> None:
    """label2id: every label has a number that carries it, whatever the order, and nothing else is in it."""
    back = fields.take("label2id", None)
    if back is None:
        return
    wrong = next(_wrong_numbers(back, listed), None)
    fields.must("label2id", "the inverse of id2label", wrong or "the inverse of id2label")


def _wrong_numbers(back: Any, listed: list[Any]) -> Iterator[str]:
    if not isinstance(back, Mapping):
        yield shown(back)
        return
    for label, number in back.items():
        index = int(number) if isinstance(number, str) and is_class_number(number) else number
        if not is_int(index) or not 0 <= index < len(listed) or listed[index] != label:
            carried = f", which is {_quoted(listed[index])}" if is_int(index) and 0 <= index < len(listed) else ""
            yield f"{_quoted(label)}: {shown(number)}{carried}"
    missing = next((label for label in listed if label not in back), None)
    if missing is not None:
        yield f"without {_quoted(missing)}"


def _inspect_headless(fields: Fields) -> None:
    """A model without a head has no labels; the library still reads them, and makes as many as it is told to."""
    names, back, number = (fields.take(name) for name in ("id2label", "label2id", "num_labels"))
    for name, value, takes in (
        ("id2label", names, names is ABSENT or names is None or in_order(names) is not None),
        ("label2id", back, back is ABSENT or back is None or (isinstance(back, dict) and _has_one_kind(back))),
        ("num_labels", number, number is ABSENT or (is_int(number) and 0 <= number <= MOST_LABELS)),
    ):
        if value is ABSENT:
            continue
        if takes:
            fields.harmless(name, HEADLESS)
        else:
            fields.must(name, "labels", shown(value), misleads="makes a library build what it is not")


def _has_one_kind(back: Mapping[str, Any]) -> bool:
    kinds = {type(value) for value in back.values()}
    return len(kinds) <= 1 and kinds <= {int, str}
