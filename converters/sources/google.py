"""Any source as Google's released npz: names, order, shapes, and kernels of Google's scale.

TensorFile (stored names, stored shapes) → the table of names, the layouts → GoogleView (npz names, HWIO)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from converters.file_changes import FileChanges
from converters.mapping.architecture import Architecture
from converters.mapping.layouts import BY_SCHEME, Exact
from converters.mapping.names import GOOGLE, Match, infer, match, parameters
from converters.mapping.tiles import Tile, tiles_of
from converters.reading import reading
from converters.sources.base import Array, Shape, TensorFile
from verify.protocols import PoolPadding

if TYPE_CHECKING:
    from verify.oracles.graph import GraphInput

DEFAULT_PADDING: dict[str, PoolPadding] = {"big_vision": "-inf"}
"""big_vision's network pads the max-pool with -inf (models/bit_paper.py: flax's max_pool); all others with zeros."""

COUNTER = "a single integer, which no tensor of a network is"
MAX_NAMED = 12
"""Tensors of one reason that are named; more are counted."""


class GoogleView:
    """A source under the names of the released npz files, in their order. Closes what it wraps.

    ``architecture`` is read off names and shapes; ``dropped`` says what is left out and why, ``removed`` what was taken
    off the names (``module.``); ``exact`` is what the stored kernels are, those of ``logits`` being divided by ten
    again: within one unit in the last place of Google's.
    Raises CheckpointError, with all missing, unexpected and misshapen tensors, for anything but one whole BiT.
    """

    def __init__(self, source: TensorFile) -> None:
        self._source = source
        self._file_changes = FileChanges(lambda: source.files)
        self.path, self.location = source.path, source.location
        self.format, self.scheme = source.format, source.scheme
        self.exact: Exact = source.exact
        self.pool_padding: PoolPadding = source.pool_padding or DEFAULT_PADDING.get(source.scheme, "zeros")
        self._layout = BY_SCHEME[source.scheme]
        stored = {name: shape for name, shape in source.shapes.items() if name not in source.dropped}
        found, self.architecture = understand(stored, source.scheme, source.path, source.counters)
        self.dropped: Mapping[str, str] = {**source.dropped, **found.dropped}
        self.removed = found.removed
        own_names = {name: own for own, name in found.names.items()}
        self._rows = {
            row.names[GOOGLE]: (row, own_names[row.names[source.scheme]]) for row in parameters(self.architecture)
        }
        source.select([own for _, own in self._rows.values()])

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """npz name → shape (HWIO for kernels, the head's too), in the order of the released files."""
        return {name: row.shape for name, (row, _) in self._rows.items()}

    @cached_property
    def sha256(self) -> str:
        """The file's, or that of the folder's files, as TensorFile has it."""
        return self._source.sha256

    @cached_property
    def graph_input(self) -> GraphInput | None:
        """The input of a SavedModel's graph; None where that is not known, as for any other format."""
        from converters.sources.saved_model import SavedModel

        if self.format != SavedModel.format:
            return None
        from verify.oracles.graph import graph_input

        return graph_input(self)

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that are read: name relative to the source → path."""
        return self._source.files

    @property
    def left_out(self) -> str:
        """All that is left out, by reason, each up to its colon, and what names lose, in one line; empty without it."""
        by_reason: dict[str, list[str]] = {}
        for name, why in self.dropped.items():
            by_reason.setdefault(why.partition(":")[0], []).append(name)
        if self.removed:
            by_reason["part of names"] = list(self.removed)
        return "; ".join(f"{_listed(names)} ({why})" for why, names in by_reason.items())

    def changes(self) -> dict[str, str]:
        """Files that are not what they were when the source was opened, and what happened to each."""
        return self._file_changes.changes()

    def read(self, name: str) -> Array:
        """The values of one tensor: a fresh, C-contiguous float32 array in Google's layout."""
        row, own = self._rows[name]
        with reading(self.path, own):
            return self._layout.restore(row.kind, self._source.read(own), self.exact)

    def tiles(self, name: str, most: int) -> Iterator[Tile]:
        """The values of one kernel in tiles of at most ``most`` outputs, each valid until the next is asked for."""
        row, own = self._rows[name]
        if self._layout.is_googles(row.kind) and self.exact == "bits":
            with reading(self.path, own):
                yield from self._source.tiles(own, most)
        else:
            yield from tiles_of(self.read(name).reshape(-1, *row.shape[-2:]), most)

    def checking(self) -> AbstractContextManager[None]:
        """As TensorFile has it: what ``tiles`` gave inside has been checked when this ends."""
        return self._source.checking()

    def hashing(self) -> AbstractContextManager[None]:
        """As TensorFile has it: ``sha256`` is taken beside what is done inside."""
        return self._source.hashing()

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def understand(
    stored: Mapping[str, Shape], scheme: str, path: str, counters: Collection[str] = ()
) -> tuple[Match, Architecture]:
    """Returns what each tensor of these names and stored shapes is, and the network that they make together.

    ``counters`` are left out where the scheme does not know them. Raises CheckpointError, naming ``path``, for anything
    but one whole BiT.
    """
    found, layout = match(stored, scheme, path), BY_SCHEME[scheme]
    beside = {own: COUNTER for own in counters if own in found.names and own not in found.kinds}
    names = {own: name for own, name in found.names.items() if own not in beside}
    shapes = {
        name: layout.google_shape(found.kinds[own], stored[own]) if own in found.kinds else stored[own]
        for own, name in names.items()
    }
    found = replace(found, names=names, dropped={**found.dropped, **beside})
    return found, infer(shapes, scheme, path)


def _listed(names: list[str]) -> str:
    return f"{len(names)} tensors" if len(names) > MAX_NAMED else ", ".join(map(_printable, names))


def _printable(name: str) -> str:
    """A name of the file where the line goes into a table of the card: nothing there may be markup."""
    return "".join(character if character.isalnum() or character in "_-./: " else "?" for character in name[:80])
