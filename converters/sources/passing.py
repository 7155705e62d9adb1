"""The sha256 of a file from the bytes that are read of it anyway.

bytes and their place, as they are read → a growing prefix of the file → ``hexdigest`` reads what is left
"""

from __future__ import annotations

import hashlib
import os

from converters.files import PIECE

MAX_GAP = 1 << 16
"""Bytes between two tensors that are read in passing: headers. Where more is left out, the rest is read at the end."""


class PassingDigest:
    """Of an open file. What comes out of order costs a second reading, not the right answer."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._end = 0

    def saw(self, data: memoryview, offset: int) -> None:
        """``data`` are the bytes of the file at ``offset``."""
        gap = offset - self._end
        if 0 <= gap <= MAX_GAP:
            self._digest.update(os.pread(self._file, gap, self._end))
            self._digest.update(data)
            self._end = offset + data.nbytes

    def hexdigest(self) -> str:
        """Of the whole file."""
        while piece := os.pread(self._file, PIECE, self._end):
            self._digest.update(piece)
            self._end += len(piece)
        return self._digest.hexdigest()
