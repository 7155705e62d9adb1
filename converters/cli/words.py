"""Words without an option, and words that are missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.catalogue.variants import find, named
from converters.download.locations import is_checkpoint
from converters.errors import UsageError
from converters.files import CARD

MAX_CARD = 1 << 20
_AGAINST = re.compile(r"bit-verify [^`\n]*?(--against [^`\n]+)")


def with_source(word: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with a bare word as --variant or --checkpoint. Raises UsageError for neither, and for one twice."""
    is_path = "://" in word or (named(word) is None and is_checkpoint(word))
    option = "checkpoint" if is_path else "variant"
    if options[option] is not None:
        raise UsageError(f"{word} and --{option} {options[option]} are two of a kind. Leave one out.")
    if not is_path:
        try:
            find(word)
        except UsageError as error:
            raise UsageError(f"{word}: no such file; {error}") from None
    return {**options, option: word}


def missing_source(target: str) -> UsageError:
    """The error for bit-verify without a checkpoint; it proposes the variant that the folder's card names."""
    name = _named_by_card(Path(target) / CARD) if "://" not in target else None
    if name is None:
        return UsageError(f"{target}: against which checkpoint? Name it with --against: a variant, a path or a URL.")
    return UsageError(
        f"{target}: against which checkpoint? Its card names {name}:\n"
        + shlex.join(["bit-verify", target, "--against", name])
    )


def _named_by_card(card: Path) -> str | None:
    """The variant that the commands of a model card name, if any."""
    try:
        with card.open("rb") as file:
            text = file.read(MAX_CARD).decode("utf-8", "replace")
        found = _AGAINST.search(text)
        word = shlex.split(found[1])[1] if found else ""
    except (OSError, ValueError, IndexError):
        return None
    return word if named(word) is not None else None
