"""The stored form of a source's tensors: the one place where layout, exactness and dtype come together.

source, parameter → ``Storage.pieces()`` → rows of the stored tensor, which whoever writes it asks for
source, parameter → ``Storage.holds()`` → whether a stored tensor is that one, which an audit asks
a whole array     → ``Storage.values()`` → the whole stored tensor
a whole array     → ``Storage.kept()`` → what the stored tensor keeps of it, which an audit computes with
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Protocol, Self

import numpy as np

from converters.mapping.dtypes import DTYPES, round_to, widened
from converters.mapping.layouts import LAYOUTS, NPZ, Exact, Layout, scaled
from converters.mapping.names import GOOGLE, Parameter, Shape, TensorKind
from converters.mapping.tiles import Array, Tile, same_bits


class GoogleTensors(Protocol):
    """A source in Google's layout."""

    def read(self, name: str) -> Array: ...

    def tiles(self, name: str, most: int) -> Iterator[Tile]: ...


@dataclass(frozen=True)
class Rows:
    """Whole rows of a tensor: entries of its first axis."""

    rows: slice
    values: Array

    def put(self, out: Array) -> None:
        """Writes the values into ``out``, which holds these rows alone, (rows, …) in C order."""
        out[...] = self.values

    def equals(self, stored: Array) -> bool:
        """Whether ``stored``, these rows alone, has the very bits that ``put`` would write."""
        return same_bits(stored, self.values)


Piece = Rows | Tile
"""Some of a stored tensor's values. Those of the same ``rows`` follow each other, and fill them together; one is valid
until the next is asked for."""


@dataclass(frozen=True)
class Storage:
    """The way a folder stores tensors."""

    layout: str = "transformers"
    """A key of LAYOUTS."""
    exact: Exact = "bits"
    dtype: str = "float32"
    max_shard_size: int | None = None
    """Bytes of one file's tensors; None: all are in one."""

    @classmethod
    def of(cls, other: object) -> Self:
        """As options or a report say it, under the same names."""
        return cls(**{field.name: getattr(other, field.name) for field in fields(cls) if hasattr(other, field.name)})

    @property
    def form(self) -> Layout:
        return LAYOUTS[self.layout]

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return DTYPES[self.dtype].storage.itemsize

    def name(self, parameter: Parameter) -> str:
        return self.form.parameter_name(parameter)

    def shape(self, parameter: Parameter) -> Shape:
        return self.form.shape(parameter)

    def values(self, parameter: Parameter, google: Array) -> Array:
        """The stored tensor of one in Google's layout, float32; bfloat16 is given as its uint16 bits."""
        return round_to(self.form.store(parameter, google, self.exact), self.dtype)

    def kept(self, parameter: Parameter, google: Array) -> Array:
        """The dtype before rounding, in Google's layout: float32; of kernels stored ten times as large, float64, in
        which the division by ten leaves no trace."""
        values = widened(replace(self, layout=NPZ.name).values(parameter, google), self.dtype)
        if self.exact == "logits" and parameter.kind is TensorKind.KERNEL:
            values = values.astype(np.float64)
        return NPZ.restore(parameter.kind, values, self.exact)

    def pieces(self, parameter: Parameter, source: GoogleTensors, most: int) -> Iterator[Piece]:
        """The same values, read from ``source`` as they are asked for, at most ``most`` rows at a time.

        Raises CheckpointError as ``source.tiles`` and ``source.read`` do.
        """
        name = parameter.names[GOOGLE]
        if self.form.forms[parameter.kind].is_outputs_first:
            for tile in source.tiles(name, most):
                values = scaled(tile.values, parameter.kind, self.exact, out=tile.values)
                yield Tile(tile.inputs, tile.rows, round_to(values, self.dtype))
        else:
            yield from rows_of(self.values(parameter, source.read(name)), most)

    def holds(self, parameter: Parameter, source: GoogleTensors, stored: Array) -> bool:
        """Whether ``stored``, C-contiguous, is the stored tensor of the source, bit for bit. No copy of it is made.

        Raises CheckpointError as ``pieces`` does.
        """
        if stored.shape != self.shape(parameter) or stored.dtype != DTYPES[self.dtype].storage:
            return False
        pieces = self.pieces(parameter, source, max(1, len(stored)))  # whole rows of the source, each read at once
        return all(piece.equals(stored[piece.rows]) for piece in pieces)


def rows_of(values: Array, most: int) -> Iterator[Rows]:
    """An array as pieces of at most ``most`` rows."""
    for start in range(0, len(values), most):
        rows = slice(start, min(start + most, len(values)))
        yield Rows(rows, values[rows])
