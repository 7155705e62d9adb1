"""The values of one parameter as a layout stores them, put where the file is written from.

source → tiles of a kernel in Google's layout, or a whole small tensor → the room that a file has for it
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from converters.dtypes import round_to
from converters.layouts import Array, Exact, Layout, scaled
from converters.names import GOOGLE, Parameter
from converters.sources import GoogleView
from converters.transposing import Tile


class Room(Protocol):
    """Where one tensor goes, some entries along its first axis at a time."""

    @property
    def most(self) -> int:
        """Entries that can be taken at a time."""
        ...

    def take(self, count: int) -> Array:
        """The next entries, to be filled before more are taken."""
        ...


def store(source: GoogleView, parameter: Parameter, layout: Layout, exact: Exact, dtype: str, room: Room) -> None:
    """Fills ``room`` with what ``layout.store`` gives, rounded to ``dtype``."""
    name, kind = parameter.names[GOOGLE], parameter.kind
    if not layout.forms[kind].is_outputs_first:
        values = round_to(layout.store(parameter, source.read(name), exact), dtype)
        np.copyto(room.take(len(values)), values)
        return
    for tile in source.tiles(name, room.most):
        if tile.inputs.start == 0:
            out = room.take(tile.outputs.stop - tile.outputs.start)
        values = round_to(scaled(tile.values, kind, exact, out=tile.values), dtype)
        Tile(tile.inputs, tile.outputs, values).put(out)
