"""The words of a command line: those without an option, those that are missing, and all of them as a text."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.catalogue.variants import find, named
from converters.download.locations import is_checkpoint
from converters.errors import UsageError
from converters.redaction import printable


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
    from converters.auditing.named_source import named_by_card

    name = named_by_card(Path(target)) if "://" not in target else None
    if name is None:
        return UsageError(f"{target}: against which checkpoint? Name it with --against: a variant, a path or a URL.")
    return UsageError(
        f"{target}: against which checkpoint? Its card names {name}:\n"
        + shlex.join(["bit-verify", target, "--against", name])
    )


def command_line(command: str) -> str:
    """Returns the command line as the user typed it, without the credentials in a URL."""
    return shlex.join([command, *map(printable, sys.argv[1:])])
