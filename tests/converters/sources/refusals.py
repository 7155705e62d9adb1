"""What every refusal must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.sources import open_checkpoint


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_checkpoint(path) as source:
        return {name: source.read(name) for name in source.shapes}


def refuse(path: Path, named: Path | str | None = None) -> str:
    """The message: two lines at most, and the file or folder named."""
    with pytest.raises(CheckpointError) as caught:
        read_all(path)
    message = str(caught.value)
    assert str(named or path) in message
    assert len(message.splitlines()) <= 2
    return message


def refuse_cut_short(file: Path, opened: Path, places: int = 60) -> None:
    """At its first and last bytes, and at places between."""
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    lengths = {*range(min(40, len(whole))), *range(max(0, len(whole) - 8), len(whole))}
    lengths |= {int(n) for n in rng.integers(len(whole), size=places)}
    for length in sorted(lengths):
        file.write_bytes(whole[:length])
        refuse(opened, file.name if length else opened)
    file.write_bytes(whole)


def refuse_or_equal_flipped(file: Path, opened: Path, tensors: dict[str, np.ndarray], places: int = 100) -> None:
    """One flipped bit: refused, or without meaning."""
    whole = file.read_bytes()
    for position in np.random.default_rng(0).integers(8 * len(whole), size=places):
        broken = bytearray(whole)
        broken[position // 8] ^= 1 << int(position % 8)
        file.write_bytes(broken)
        try:
            read = read_all(opened)
        except CheckpointError:
            continue
        assert all(read[name].tobytes() == value.tobytes() for name, value in tensors.items()), int(position)
    file.write_bytes(whole)


Change = Callable[..., None]
