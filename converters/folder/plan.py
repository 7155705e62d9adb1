"""What is to become of a source: the value that everything written is a function of, beside the source itself."""

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
    """What is to become of a source."""

    name: str
    """Of the model and its repository: a variant's, or made from the architecture."""
    architecture: Architecture
    variant: Variant | None
    storage: Storage
    """How its tensors are stored."""
    pool_padding: PoolPadding = "zeros"
    found: Preprocessing | None = None
    """What the checkpoint's own graph says of its images, where it does."""

    @classmethod
    def of(
        cls, source: GoogleView, variant: Variant | None, storage: Storage, pool_padding: PoolPadding | None = None
    ) -> Self:
        """Of a checkpoint that is said to be ``variant``, and to pad its max-pool otherwise than it says itself."""
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
    """What a SavedModel's graph is given: the range of colours that its network sees, and the size if it has but one.

    None where that is not known, as for any other format.
    """
    found = source.graph_input
    if found is None:
        return None
    size = dict(zip(("height", "width"), found.size, strict=True)) if found.size else UNKNOWN_PREPROCESSING.size
    return Preprocessing(size=size, mean=found.mean, std=found.std)
