"""Predictions that are kept while an evaluation runs, so that one which is interrupted goes on where it was.

key → ``Results`` → predictions known, ``add()`` → lines at the end of a file in the cache

The key is all that a prediction depends on but the image: digests of source or folder, arithmetic, preprocessing. An
image is known by its name, size, times and inode, so that one which changed is evaluated again. Lines are written in
one piece; a line that a killed process left half written is passed over. A file is only ever added to, so processes
may share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from converters.auditing.evaluation.datasets import LabelledImage
from converters.errors import UsageError
from converters.files import cache_folder
from verify.evaluation import Prediction
from verify.typed import decoded

FOLDER = "evaluations"
VERSION = 2
"""Another number where lines mean something else."""


@dataclass(frozen=True)
class ImageResult:
    """The prediction for an image, and what the image was."""

    prediction: Prediction
    sha256: str
    other_pixels: bool = False
    """Whether the target's preprocessing makes other pixels of it than the source's."""


class Results:
    """The results of one network."""

    def __init__(self, key: Mapping[str, Any]) -> None:
        """Raises UsageError where the cache cannot be read."""
        text = json.dumps({**key, "version": VERSION}, sort_keys=True)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        self.path = cache_folder() / FOLDER / f"{digest}.jsonl"
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}. Remove it.") from error
        self._known = dict(filter(None, map(_parsed, content.split(b"\n"))))
        self._is_cut = bool(content) and not content.endswith(b"\n")

    def of(self, identity: str) -> ImageResult | None:
        """The result for an image."""
        return self._known.get(identity)

    def add(self, results: Iterable[tuple[str, ImageResult]]) -> None:
        """Keeps the results of images by their identities, at once and whole.

        Raises UsageError where the cache cannot be written.
        """
        made = dict(results)
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in made.items())
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(handle, b"\n" * self._is_cut + lines)
            finally:
                os.close(handle)
        except OSError as error:
            where = self.path.parent
            raise UsageError(
                f"{where}: cannot be written: {error.strerror}. Set BIT_CONVERT_CACHE elsewhere."
            ) from error
        self._is_cut = False
        self._known |= made


def identity_of(image: LabelledImage) -> str:
    """A name for the image's present content, which is told without reading it."""
    try:
        state = image.path.stat()
        told = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]
    except OSError:
        told = []
    text = json.dumps([image.name, str(image.path.absolute()), *told])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _parsed(line: bytes) -> tuple[str, ImageResult] | None:
    """A line's identity and result; None of one that is not whole."""
    try:
        return decoded(line, tuple[str, ImageResult])
    except msgspec.MsgspecError:
        return None
