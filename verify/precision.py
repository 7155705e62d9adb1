"""Computing in a given precision, on a given device.

The limits of parity are those of float32. A computation of another precision rounds u′/u times as much at every step,
to first order, and so is held against limits u′/u times as wide; u is half the distance from 1 to the next number.

    name of a precision, device → ``Computing`` → unit (of the limits), settings of PyTorch
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.compare import U, in_words
from verify.tf32 import convolutions, products, setting

if TYPE_CHECKING:
    import torch

UNITS: Mapping[str, float] = {"float32": U, "tf32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Precision → u. TF32 is float32 whose factors a GPU rounds to 11 bits."""


def precision_named(reader: str) -> str:
    """Returns the precision that the name of a reader ends in: ``bfloat16`` of ``bit_ref in bfloat16 on cuda``."""
    return next((precision for precision in UNITS if f" in {precision}" in reader), "float32")


def error_in_words(ratio: float | None, reader: str) -> str:
    """Returns a ratio as people read it, in the rounding of what a reader of this name computes in."""
    return in_words(ratio, precision_named(reader))


@dataclass(frozen=True)
class Computing:
    """float32 on the CPU is what verdicts of conversions rest on."""

    precision: str = "float32"
    device: str = "cpu"

    @property
    def unit(self) -> float:
        return UNITS[self.precision]

    @property
    def largest(self) -> float:
        """The largest number; of all but float16 larger than any value of a network."""
        return 65504.0 if self.precision == "float16" else math.inf

    def __str__(self) -> str:
        """Returns the words that are added to a reader's name; none for the default."""
        precision = "" if self.precision == "float32" else f" in {self.precision}"
        return precision + ("" if self.device == "cpu" else f" on {self.device}")

    def refusal(self) -> str:
        """Returns why this machine cannot compute so; empty where it can."""
        if self.device == "cpu":
            return "only a GPU computes in tf32" if self.precision == "tf32" else ""
        import torch

        return "" if torch.cuda.is_available() else "PyTorch finds no GPU here"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of parameters and images."""
        import torch

        dtype: torch.dtype = getattr(torch, "float32" if self.precision == "tf32" else self.precision)
        return dtype

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Applies the settings. On a GPU, float32 is computed without TF32 and without cuDNN, which may take Winograd's
        transform: only the order of summation then differs, as on the CPU. Other precisions are computed as
        users do."""
        if self.device == "cpu":
            yield
            return
        import torch

        in_tf32, uses_cudnn = self.precision == "tf32", self.precision != "float32"
        with (
            products(in_tf32),
            convolutions(in_tf32),
            setting(torch.backends.cudnn, "enabled", uses_cudnn),
        ):
            yield


DEFAULT = Computing()
