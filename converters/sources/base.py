"""The base of every source, with what all of them do alike: bounds, digests, values as float32.

file or folder → names, shapes (at once) → ``read(name)`` → one float32 array
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from converters.digests import known_sha256
from converters.errors import CheckpointError
from converters.mapping.layouts import Exact
from converters.mapping.names import longest_name
from converters.mapping.tiles import Tile, tiles_of
from converters.sources.declared import Declared
from verify.protocols import PoolPadding

T = TypeVar("T")
Array = npt.NDArray[Any]
Shape = tuple[int, ...]

MAX_EXPANSION = 32
"""Times a file's size that its tensors may take: trained float32 values deflate to some nine tenths."""
SMALL = 64 << 20
"""Bytes that any file may expand to, however well it compresses (a tiny network of zeros, say)."""
MAX_TENSORS = 4096
"""Tensors are counted before anything is opened; the largest released network has 459, three times that with Adam's
slots."""
MAX_NAME = 1024
"""Characters of a tensor's name."""
MAX_PARTS = 64
"""Parts of a name between slashes."""
HALVES = re.compile("[\ud800-\udfff]")
"""Half characters, which JSON and pickles can spell and UTF-8 cannot."""
MAX_RANK = 8
"""Dimensions of a tensor; a kernel has four."""
MAX_PREFIX = 64
"""Characters, on average, that wrappers and a user's own model put before the names of the table."""


def listing_bound(row: int) -> int:
    """Bytes of a list of the tensors of any BiT, each with its name and ``row`` bytes more."""
    return MAX_TENSORS * (longest_name() + MAX_PREFIX + row)


class TensorFile(ABC):
    """A checkpoint as named tensors. Open with ``with``; not safe to share between threads.

    ``scheme`` is the naming scheme of ``shapes`` and ``read``; shapes and values are stored ones, in that scheme's
    layout. ``exact`` is what the file declares to hold (kernels ten times as large by ``logits``), ``pool_padding``
    what it declares to surround the max-pool with, None where it does not say.
    """

    format: str
    looked_for: ClassVar[str]
    """The things that this reader recognises, for the message about a file that none does."""

    path: str
    scheme: str
    shapes: Mapping[str, Shape]
    """Name → stored shape, in the order of the file."""
    exact: Exact = "bits"
    pool_padding: PoolPadding | None = None
    dropped: Mapping[str, str] = {}
    """The names left out beside the tensors, and why."""
    counters: Collection[str] = ()
    """Names of those that are a single integer, which no tensor of a network is."""

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path, head: bytes) -> bool:
        """Whether ``path`` is of this format; ``head`` are the first bytes of a file, empty for a folder."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises CheckpointError where the file is broken or unsafe."""
        return cls(path)

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    @abstractmethod
    def read(self, name: str) -> Array:
        """The stored values of one tensor: a fresh, C-contiguous float32 array.

        float16 and bfloat16 are widened exactly; float64 is rounded to float32, in which all of Google's code computes.
        Raises CheckpointError, naming file and tensor, for anything broken or not finite.
        """

    def declare(self, said: Declared) -> None:
        """Takes over what the config.json beside the file says of it."""
        self.exact, self.pool_padding = said.exact, said.pool_padding

    def select(self, names: Collection[str]) -> None:  # noqa: B027 - most readers look at a tensor when it is read
        """Says which tensors will be read; what the others hold is of no account.

        Raises CheckpointError where one of them holds anything but floats.
        """

    def tiles(self, name: str, most: int) -> Iterator[Tile]:
        """The same values of a kernel, (…, inputs, outputs), in tiles of at most ``most`` outputs, each valid until the
        next is asked for. Readers that can, keep in memory no more than a tile."""
        kernel = self.read(name)
        yield from tiles_of(kernel.reshape(-1, *kernel.shape[-2:]), most)

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Inside, ``tiles`` may give what has not been checked yet; all of it has been when this ends. ``sha256`` is
        taken meanwhile.

        Raises CheckpointError at its end as ``read`` does.
        """
        with self.hashing():
            yield

    @contextmanager
    def hashing(self) -> Iterator[None]:
        """Inside, ``sha256`` is taken in a thread of its own, unless it is known; no longer than until an exception."""

        def take(stopped: Event) -> None:
            if "sha256" not in vars(self):
                self.sha256 = self._digest(stopped)

        with meanwhile(take):  # what it raises is raised again for whoever asks for the digest
            yield

    @property
    def location(self) -> str:
        """The path to the unpacked file; ``path`` is the name that people know."""
        return self.path

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that are read: name relative to the source → path. One file has its own name."""
        return {Path(self.path).name: Path(self.path)}

    @cached_property
    def sha256(self) -> str:
        """The file's, hexadecimal; of several, that of the lines ``digest, two spaces, name, line feed``, sorted by
        name: what ``sha256sum NAMES | sha256sum`` gives inside the folder."""
        return self._digest()

    def _digest(self, stopped: Event | None = None) -> str:
        digests = {name: known_sha256(path, stopped) for name, path in sorted(self.files.items())}
        if len(digests) == 1:
            return next(iter(digests.values()))
        return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()

    def close(self) -> None:  # noqa: B027 - most readers hold nothing open
        """Lets go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def meanwhile(work: Callable[[Event], T]) -> Iterator[Future[T]]:
    """Inside, the work is done in a thread of its own, which is told to stop where an exception comes; gives its
    result. At the end it is waited for."""
    stopped = Event()
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(copy_context().run, work, stopped)
        try:
            yield result
        except BaseException:
            stopped.set()
            raise


def bounded(size: int) -> int:
    """Bytes that a file of ``size`` bytes may expand to."""
    return max(MAX_EXPANSION * size, SMALL)


def as_float32(values: Array, path: str, name: str) -> Array:
    """``values`` as a C-contiguous float32 array, without a copy where they are one; refused where not finite."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes inf, and is refused
        values = np.asarray(values, np.float32, order="C")
        total = values.sum()  # finite where all terms are, unless it overflows itself: half the time
    if not np.isfinite(total) and not np.isfinite(values).all():
        raise not_finite(path, name)
    return values


def not_finite(path: str, name: str) -> CheckpointError:
    """The error about a tensor of such values."""
    return CheckpointError(f"{path}: {name} holds NaN or Inf: no trained model does. Download it again.")


def refuse_names(names: Iterable[str], path: str) -> None:
    """Raises CheckpointError for more or longer names than any checkpoint has."""
    names = list(names)
    if len(names) > MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(names)} tensors, more than any BiT checkpoint has.")
    longest = max(names, key=len, default="")
    if len(longest) > MAX_NAME:
        raise CheckpointError(f"{path}: a tensor name of {len(longest)} characters: {longest[:60]}… Download it again.")
    odd = next((name for name in names if not is_text(name) or len(name.split("/")) > MAX_PARTS), None)
    if odd is not None:
        raise CheckpointError(f"{path}: {odd[:60]!r} is no name of a tensor. Download it again.")


def is_text(name: str) -> bool:
    """Whether it is free of half characters."""
    return not HALVES.search(name)
