"""The declarations about a checkpoint's values in the config.json beside it.

config.json → exact (``bits`` or ``logits``), pool padding
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from converters.errors import CheckpointError
from converters.files import CONFIG, read_json
from converters.mapping.layouts import STANDARDIZATION_EPSILON, Exact
from verify.protocols import PoolPadding


@dataclass(frozen=True)
class Declared:
    """``exact`` is ``logits`` only where config.json has our key for it: the epsilon 1e-8 alone is also what every
    stock port has, whose kernels are Google's. ``pool_padding`` is None where nothing is said."""

    exact: Exact = "bits"
    pool_padding: PoolPadding | None = None


def declared(folder: Path) -> Declared:
    """Returns a folder's declarations, or the defaults. Raises CheckpointError where config.json contradicts itself."""
    file = folder / CONFIG
    return said_by(read_json(file), file) if file.is_file() else Declared()


def said_by(config: Mapping[str, Any], file: Path) -> Declared:
    """The same of a config.json that was read."""
    exact, padding = config.get("exact", "bits"), config.get("pool_padding")
    epsilon = config.get("weight_standardization_eps")
    if exact not in list(STANDARDIZATION_EPSILON) or padding not in (None, "zeros", "-inf"):
        raise CheckpointError(
            f"{file}: exact {exact!r} or pool_padding {padding!r} is unknown. Convert the model again."
        )
    if exact == "logits" and epsilon != STANDARDIZATION_EPSILON["logits"]:
        raise CheckpointError(
            f"{file}: exact is logits, but weight_standardization_eps is {epsilon}, not "
            f"{STANDARDIZATION_EPSILON['logits']}. Convert the model again."
        )
    return Declared(cast(Exact, exact), cast("PoolPadding | None", padding))
