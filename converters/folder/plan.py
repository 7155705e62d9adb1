"""The plan of a conversion: everything written is a function of it and of the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from converters.catalogue.labels import id2label
from converters.catalogue.variants import Preprocessing, Variant
from converters.mapping.architecture import Architecture
from converters.mapping.storage import Storage
from converters.sources import GoogleView
from verify.protocols import PoolPadding

UNKNOWN_PREPROCESSING = Preprocessing(size={"height": 480, "width": 480})
"""big_transfer's recipe for images that are not tiny, for checkpoints that the catalogue does not know."""


@dataclass(frozen=True)
class Plan:
    """The plan of a conversion."""

    name: str
    """The name of the model and its repository: a variant's, or made from the architecture."""
    architecture: Architecture
    variant: Variant | None
    storage: Storage
    """The way its tensors are stored."""
    pool_padding: PoolPadding = "zeros"
    found: Preprocessing | None = None
    """The preprocessing that the checkpoint's own graph shows, where it does."""

    @classmethod
    def of(
        cls, source: GoogleView, variant: Variant | None, storage: Storage, pool_padding: PoolPadding | None = None
    ) -> Self:
        """Plans a checkpoint that is given as ``variant``, and with another padding of its max-pool than its own."""
        name = variant.repository_name if variant else f"BiT-{source.architecture.name}"
        padding = pool_padding or source.pool_padding
        return cls(name, source.architecture, variant, storage, padding, preprocessing_of(source))

    @property
    def layout(self) -> str:
        return self.storage.layout

    @property
    def preprocessing(self) -> Preprocessing:
        return self.variant.preprocessing if self.variant else self.found or UNKNOWN_PREPROCESSING

    @property
    def labels(self) -> list[str] | None:
        """The classes' names in the order of the logits; None where they are not known."""
        if self.architecture.classes is None or self.variant is None or self.variant.labels is None:
            return None
        return id2label(self.variant.labels)


def preprocessing_of(source: GoogleView) -> Preprocessing | None:
    """Returns the input of a SavedModel's graph: the range of colours that its network sees, and its size if fixed.

    None where that is not known, as for any other format.
    """
    found = source.graph_input
    if found is None:
        return None
    size = dict(zip(("height", "width"), found.size, strict=True)) if found.size else UNKNOWN_PREPROCESSING.size
    return Preprocessing(size=size, mean=found.mean, std=found.std)
