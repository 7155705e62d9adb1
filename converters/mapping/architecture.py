"""The shape of a BiT network: how many units, how wide, how many classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

GROUPS = 32
"""Groups of every GroupNorm in BiT (big_transfer bit_pytorch/models.py, ``nn.GroupNorm(32, …)``)."""

RELEASED_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth → units per block, as in ``KNOWN_MODELS`` of big_transfer bit_pytorch/models.py."""


@dataclass(frozen=True)
class Architecture:
    """A BiT network.

    ``units`` per block; ``root_width`` the channels of the root convolution (64 × the width factor in released
    models); ``widths`` the inner channels of each block's units, whose output is four times as wide; ``classes``
    of the head, None without one.
    """

    units: tuple[int, ...]
    root_width: int
    widths: tuple[int, ...]
    classes: int | None

    @classmethod
    def regular(cls, units: tuple[int, ...], root_width: int, classes: int | None) -> Architecture:
        """The published pattern: inner widths double from block to block, starting at the root's."""
        return cls(units, root_width, tuple(root_width * 2**block for block in range(len(units))), classes)

    @classmethod
    def released(cls, name: str, classes: int | None) -> Architecture:
        """From a name such as ``R50x3``."""
        depth, factor = name.removeprefix("R").split("x")
        return cls.regular(RELEASED_UNITS[int(depth)], 64 * int(factor), classes)

    @property
    def features(self) -> int:
        """Channels of the pooled features."""
        return 4 * self.widths[-1]

    def multiply_accumulates(self, height: int, width: int) -> int:
        """The multiplications of a forward pass of one image, of convolutions and head, each with its addition."""
        pixels, inputs = _halved((height, width)), self.root_width
        total = math.prod(pixels) * 7 * 7 * 3 * self.root_width
        outside = pixels = _halved(pixels)  # the max-pool
        for block, (units, inner) in enumerate(zip(self.units, self.widths, strict=True)):
            if block:
                pixels = _halved(pixels)
            for unit in range(units):
                projected = inputs * 4 * inner if unit == 0 else 0
                inside = 3 * 3 * inner * inner + inner * 4 * inner + projected
                total += math.prod(outside) * inputs * inner + math.prod(pixels) * inside
                outside, inputs = pixels, 4 * inner
        return total + self.features * (self.classes or 0)

    @property
    def name(self) -> str:
        """As Google names them: ``R50x1`` is 50 layers (root, three a unit, head) of width factor 1."""
        return f"R{3 * sum(self.units) + 2}x{self.root_width / 64:g}"

    @property
    def is_regular(self) -> bool:
        return self == Architecture.regular(self.units, self.root_width, self.classes)

    def __str__(self) -> str:
        units = "-".join(map(str, self.units))
        widths = "" if self.is_regular else f", inner widths {'-'.join(map(str, self.widths))}"
        head = "no head" if self.classes is None else f"{self.classes} classes"
        return f"{self.name} (units {units}, root width {self.root_width}{widths}), {head}"


def _halved(pixels: tuple[int, int]) -> tuple[int, int]:
    """The height and width that a stride of 2 leaves, as each of BiT's pads."""
    return (pixels[0] + 1) // 2, (pixels[1] + 1) // 2
