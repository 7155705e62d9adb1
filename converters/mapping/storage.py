"""What a folder stores of a source's tensors: the one place where layout, exactness and dtype come together.

source, parameter → ``Storage.pieces()`` → rows of the stored tensor, which whoever writes it asks for
a whole array     → ``Storage.values()`` → the whole stored tensor, which an audit compares
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from converters.mapping.dtypes import round_to
from converters.mapping.layouts import Array, Exact, Layout, scaled
from converters.mapping.names import GOOGLE, Parameter, Shape
from converters.mapping.tiles import Tile


class GoogleTensors(Protocol):
    """A source in Google's layout."""

    def read(self, name: str) -> Array: ...

    def tiles(self, name: str, most: int) -> Iterator[Tile]: ...


class Piece(Protocol):
    """Some of a stored tensor's values.

    Pieces of the same ``rows`` follow each other, and fill them together; a piece is valid until the next is asked for.
    """

    @property
    def rows(self) -> slice:
        """Entries of the tensor's first axis."""
        ...

    def put(self, out: Array) -> None:
        """Writes the values into ``out``, which holds these rows alone, (rows, …) in C order."""
        ...


@dataclass(frozen=True)
class Rows:
    """Whole rows of a tensor."""

    rows: slice
    values: Array

    def put(self, out: Array) -> None:
        out[...] = self.values


@dataclass(frozen=True)
class Storage:
    """How a folder stores tensors."""

    layout: Layout
    exact: Exact = "bits"
    dtype: str = "float32"

    def name(self, parameter: Parameter) -> str:
        return self.layout.parameter_name(parameter)

    def shape(self, parameter: Parameter) -> Shape:
        return self.layout.shape(parameter)

    def values(self, parameter: Parameter, google: Array) -> Array:
        """The stored tensor of one in Google's layout, float32; bfloat16 is given as its uint16 bits."""
        return round_to(self.layout.store(parameter, google, self.exact), self.dtype)

    def pieces(self, parameter: Parameter, source: GoogleTensors, most: int) -> Iterator[Piece]:
        """The same values, read from ``source`` as they are asked for, at most ``most`` rows at a time.

        Raises CheckpointError as ``source.tiles`` and ``source.read`` do.
        """
        name = parameter.names[GOOGLE]
        if self.layout.forms[parameter.kind].is_outputs_first:
            for tile in source.tiles(name, most):
                values = scaled(tile.values, parameter.kind, self.exact, out=tile.values)
                yield Tile(tile.inputs, tile.rows, round_to(values, self.dtype))
        else:
            yield from rows_of(self.values(parameter, source.read(name)), most)


def rows_of(values: Array, most: int) -> Iterator[Rows]:
    """An array as pieces of at most ``most`` rows."""
    for start in range(0, len(values), most):
        rows = slice(start, min(start + most, len(values)))
        yield Rows(rows, values[rows])
