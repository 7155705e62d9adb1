"""The names of the classes in config.json, held against the source's.

id2label, label2id, num_labels; or timm's label_names → ``inspect_labels()``, ``inspect_names()`` → Notes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from converters.auditing.inspection.fates import ABSENT, Fields, is_int, short_name, shown
from converters.catalogue.labels import Label, id2label, labels
from converters.folder.plan import Plan

WRONG = 5
"""Wrong labels that are named one by one."""
MOST_LABELS = 100_000
"""More than any checkpoint has; a library builds a dictionary of as many as ``num_labels`` says."""
WORDNET_ID = re.compile(r"n\d{8}")
WITH_ID = re.compile(r"\((n\d{8})\)$|^(n\d{8})[\s:,_-]+")

HEADLESS = "transformers models/bit/modeling_bit.py BitModel has no head to name"


def inspect_labels(fields: Fields, plan: Plan) -> None:
    """How many labels there are, that they are numbered, which they are, and that label2id is their inverse."""
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
    """Every label against the set that the source was trained on; what is wrong is named by its index."""
    wanted, unique = labels(set_name), id2label(set_name)
    wrong = [i for i, label in enumerate(wanted) if i >= len(found) or not fits(found[i], label, unique[i])]
    for index in wrong[:WRONG]:
        label = found[index] if index < len(found) else ABSENT
        fields.notes.must(f"{fields.place(key)} {index}", _quoted(wanted[index].name), _quoted(label))
    right = f"the labels of {set_name}"
    if not wrong or len(wrong) > WRONG:
        fields.notes.must(fields.place(key), right, f"{right}, but for {len(wrong)}" if wrong else right)


def fits(found: Any, label: Label, unique: str) -> bool:
    """Whether a text names a class: by its WordNet id, or by one or more of its lemmas in any order and case."""
    if not isinstance(found, str):
        return False
    if found == unique or found == label.name or found == label.id:
        return True
    text = _plain(found)
    if label.id is None:
        return text == _plain(label.name)
    with_id = WITH_ID.search(text)
    if with_id is not None:
        if label.id not in with_id.groups():
            return False
        text = WITH_ID.sub("", text)
    lemmas = {_plain(lemma) for lemma in label.name.split(",")}
    return {_plain(lemma) for lemma in text.split(",")} <= lemmas


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


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
        numbers = {
            int(key): value for key, value in names.items() if key.isascii() and key.isdecimal() and len(key) < 9
        }
        if len(numbers) != len(names) or numbers.keys() != set(range(len(names))):
            return None
        names = [numbers[index] for index in range(len(numbers))]
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _inspect_inverse(fields: Fields, listed: list[Any]) -> None:
    """label2id: every label has a number that carries it, whatever the order, and nothing else is in it."""
    back = fields.take("label2id", None)
    if back is None:
        return
    wrong = next(_wrong_numbers(back, listed), None)
    fields.notes.must(fields.place("label2id"), "the inverse of id2label", wrong or "the inverse of id2label")


def _wrong_numbers(back: Any, listed: list[Any]) -> Iterator[str]:
    if not isinstance(back, Mapping):
        yield shown(back)
        return
    for label, number in back.items():
        index = int(number) if isinstance(number, str) and number.isascii() and number[:9].isdecimal() else number
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
        ("label2id", back, back is ABSENT or back is None or (isinstance(back, dict) and not any(_wrong_kinds(back)))),
        ("num_labels", number, number is ABSENT or (is_int(number) and 0 <= number <= MOST_LABELS)),
    ):
        if value is ABSENT:
            continue
        if takes:
            fields.notes.harmless(fields.place(name), HEADLESS)
        elif not fields.notes.must(fields.place(name), "labels", shown(value)):
            fields.notes.mislead(f"{fields.place(name)} makes a library build what it is not")


def _wrong_kinds(back: Mapping[str, Any]) -> Iterator[bool]:
    kinds = {type(value) for value in back.values()}
    yield len(kinds) > 1 or not kinds <= {int, str}
