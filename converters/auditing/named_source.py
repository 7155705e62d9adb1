"""The checkpoint that a folder says it was made of, in its provenance, its model card or its report.

folder of unknown origin → ``named_by()`` → a name of the catalogue, or None
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from converters.catalogue.variants import named
from converters.errors import CheckpointError
from converters.files import CARD, PARITY, read_json
from converters.folder.provenance import Provenance, read

MAX_CARD = 1 << 20
_AGAINST = re.compile(r"bit-verify [^`\n]*?(--against [^`\n]+)")


def named_by(folder: Path) -> str | None:
    """The first variant that the folder's files name; an audit against another fails, so that a wrong one is found."""
    return next((name for name in _names(folder) if isinstance(name, str) and named(name) is not None), None)


def named_by_card(folder: Path) -> str | None:
    """The variant that the commands of the folder's card name."""
    try:
        with (folder / CARD).open("rb") as file:
            text = file.read(MAX_CARD).decode("utf-8", "replace")
        found = _AGAINST.search(text)
        word = shlex.split(found[1])[1] if found else ""
    except (OSError, ValueError, IndexError):
        return None
    return word if named(word) is not None else None


def _names(folder: Path) -> Iterator[Any]:
    content = read(folder)
    if content is not None:
        yield Provenance.said(content).options.get("variant")
    yield named_by_card(folder)
    try:
        source = read_json(folder / PARITY).get("source")
    except CheckpointError:
        return
    if isinstance(source, dict):
        yield PurePath(str(source.get("file"))).name.removesuffix(".npz")
