"""Protocols of what an audit is handed: a source of tensors, a target folder, and the readers that run it.

Whoever converts fills these in; ``verify`` only looks through them. Arrays are NumPy's throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Image = npt.NDArray[np.float32]

PoolPadding = Literal["zeros", "-inf"]
"""The padding value of the stem's max-pool."""

Fate = Literal["compared", "no effect", "unknown"]
"""The result of inspecting a file or field: it must have a value, it changes nothing, or nobody knows."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are done, and how many there are."""


class Tensors(Protocol):
    """Named tensors in Google's layout."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str) -> Array:
        """A fresh array of the stored values."""
        ...


class Source(Tensors, Protocol):
    """A checkpoint as named tensors in Google's layout: the names of the released npz files, HWIO kernels."""

    @property
    def path(self) -> str: ...

    @property
    def location(self) -> str:
        """The place on this machine: ``path``, or of an archive the folder that it was unpacked into."""
        ...

    @property
    def format(self) -> str: ...

    @property
    def sha256(self) -> str: ...


class OracleError(ValueError):
    """The checkpoint does not make a BiT, or not for this oracle; the message names the tensor or the reason."""


@dataclass(frozen=True)
class Layer:
    """One named tensor of the trunk, for one image: (channels, height, width), features (channels,)."""

    name: str
    image: int
    truth: npt.NDArray[np.float64]
    runs: Sequence[npt.NDArray[np.float32]]
    """The float32 runs, channels in Google's order; none of an oracle beside the first."""


@dataclass(frozen=True)
class HeadBlock:
    """Some columns (classes) of the head, and the logits they give for each image."""

    columns: slice
    kernel: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    truth: npt.NDArray[np.float64]
    """(images, columns)."""
    runs: npt.NDArray[np.float32]
    """(float32 runs, images, columns)."""


class Oracle(Protocol):
    """Computes a checkpoint's network in float64: from raw tensors, by its own graph, or in Keras layers.

    Every oracle that an audit is given must agree with the first before any judges. Raises OracleError where the
    checkpoint makes no BiT, and ImportError where its library is not installed.
    """

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str:
        """A remark for the report, or nothing."""
        ...

    @property
    def classes(self) -> int | None:
        """The number of logits that the head gives; None without a head."""
        ...

    def layers(self, images: Sequence[Image]) -> Iterator[Layer]:
        """Tensors of the trunk for (1, 3, height, width) images.

        An oracle beside the first may leave out what it cannot give, images too, and may give ``logits`` here,
        after the features.
        """
        ...

    def head_blocks(self) -> Iterator[HeadBlock]:
        """The head, block by block, on the features of the last walk over ``layers``; an oracle beside the first
        gives its truth."""
        ...


@dataclass(frozen=True)
class Correspondence:
    """One source tensor and the parameter of the target that must hold it, bit for bit."""

    source: str
    target: str
    expected: Callable[[], Array]
    """Computes, from the source, the values that must be stored."""
    stored: Callable[[], Array]
    """Reads the values that are stored."""
    holds: Callable[[Array], bool] = lambda stored: False
    """Whether stored values are the expected ones, bit for bit, where that can be known without an array of these."""


@dataclass(frozen=True)
class Expectation:
    """A field of the target's files: what it must be and what it is, as short canonical texts."""

    place: str
    expected: str
    found: str

    @property
    def met(self) -> bool:
        return self.expected == self.found

    def __str__(self) -> str:
        return f"{self.place} is {self.found}, not {self.expected}"


@dataclass(frozen=True)
class Inspected:
    """A file of the target, or a field of one of its JSON files, and what became of it."""

    place: str
    """``adapter_config.json``, or ``config.json torch_dtype``."""
    fate: Fate
    reason: str
    """The reason why it changes nothing, or what it is compared with."""


class Reader(Protocol):
    """A library that loads the target and runs it."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> float:
        """Half the distance from 1 to the next number of the precision that it computes in."""
        ...

    def run(self, images: Image) -> Mapping[str, Array]:
        """Runs the model on one normalised image or on a batch, (n, 3, height, width) float32.

        Returns arrays with the same leading batch axis under ``root`` (stem: convolution, padding, max-pool),
        ``block{b}/unit{u:02d}``, ``norm`` (the last group norm and its ReLU), ``features`` (pooled) and, with a
        head, ``logits``. A reader that gives nothing but ``logits`` is judged on them alone. Raises ImportError
        where the library is not installed.
        """
        ...

    def close(self) -> None:
        """Lets go of the model; it is called after the last image."""
        ...


@runtime_checkable
class LogitsReader(Protocol):
    """A reader that gives logits alone, without what is on the way to them, in less time than ``run``."""

    def logits(self, images: Image) -> Array:
        """Runs the model on a batch as ``run`` does; returns (n, classes)."""
        ...


@runtime_checkable
class ImportingReader(Protocol):
    """A reader that imports a library, which takes seconds, and can do so in a thread before it is needed."""

    def prepare(self) -> None:
        """Imports what ``run`` needs. Raises nothing that ``run`` does not raise, too."""
        ...


@runtime_checkable
class ReaderApart(Reader, Protocol):
    """A reader that computes in a process of its own, which leaves this one time for something else."""

    @property
    def apart(self) -> bool: ...


@runtime_checkable
class LibraryReader(Reader, Protocol):
    """A reader that is a library with constants of its own, and loads a folder by itself."""

    @property
    def stock(self) -> bool:
        """Whether it is a library made elsewhere, that follows what it finds in a folder."""
        ...

    @property
    def epsilon(self) -> float | None:
        """The epsilon of the library itself, whatever the folder declares; the max-pool then pads with zeros, too.
        None: it follows the folder."""
        ...

    @property
    def largest(self) -> float:
        """The largest number of the precision that it computes in."""
        ...

    @property
    def effective(self) -> Sequence[Expectation]:
        """Properties of the loaded model that files could change; known once it has run."""
        ...


class Target(Protocol):
    """A converted folder under audit."""

    @property
    def path(self) -> str: ...

    @property
    def layout(self) -> str: ...

    @property
    def dtype(self) -> str:
        """The dtype of the stored values."""
        ...

    @property
    def exact(self) -> str:
        """``bits`` or ``logits``: what the folder claims to keep."""
        ...

    @property
    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor stored in the folder."""
        ...

    @property
    def correspondences(self) -> Sequence[Correspondence]: ...

    @property
    def expectations(self) -> Sequence[Expectation]:
        """The fields of the target's files, with the values that they must have for this source."""
        ...

    @property
    def inspected(self) -> Sequence[Inspected]:
        """Every file and every field that was looked at, and what became of it."""
        ...

    @property
    def misleading(self) -> str:
        """The reason why no library may be given the target (it redirects the loader or brings code), or empty."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """File name → sha256."""
        ...

    @property
    def readers(self) -> Sequence[Reader]:
        """Each must compute what the checkpoint computes; the first, the declared reader, in the checkpoint's own
        arithmetic, and a library beside it in the library's. A report has the figures of the first, layer by layer."""
        ...
