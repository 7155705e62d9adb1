"""What is to become of a source: the value that everything written is a function of, beside the source itself."""

from __future__ import annotations

from dataclasses import dataclass

from converters.architecture import Architecture
from converters.catalogue import Preprocessing, Variant
from converters.labels import id2label
from converters.layouts import LAYOUTS, Exact
from converters.storage import Storage
from verify.protocols import PoolPadding

UNKNOWN_PREPROCESSING = Preprocessing(size={"height": 480, "width": 480})
"""big_transfer's recipe for images that are not tiny, for checkpoints that the catalogue does not know."""
MAX_SHARD_BYTES = 5 * 10**9
"""Of one file, as the Hub has it; the largest released network takes 4.43 GB."""


@dataclass(frozen=True)
class Plan:
    """What is to become of a source."""

    name: str
    """Of the model and its repository: a variant's, or made from the architecture."""
    architecture: Architecture
    variant: Variant | None
    exact: Exact
    pool_padding: PoolPadding
    layout: str = "transformers"
    dtype: str = "float32"
    max_shard_bytes: int = MAX_SHARD_BYTES

    @property
    def storage(self) -> Storage:
        """How its tensors are stored."""
        return Storage(LAYOUTS[self.layout], self.exact, self.dtype)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.variant.preprocessing if self.variant else UNKNOWN_PREPROCESSING

    @property
    def labels(self) -> list[str] | None:
        """The classes' names in the order of the logits; None where they are not known."""
        if self.architecture.classes is None or self.variant is None or self.variant.labels is None:
            return None
        return id2label(self.variant.labels)
