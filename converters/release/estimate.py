"""What a release will take, from the catalogue alone: nothing is downloaded, asked of a network or imported.

Architecture, Job … → bytes, memory
"""

from __future__ import annotations

import math
from functools import cache

from converters.mapping.architecture import Architecture

BASE_MEMORY = 800 * 10**6
"""Bytes of a process that verifies: PyTorch, a report, the oracle's tensors of one unit, images of 64 pixels."""
STREAM_MEMORY = 250 * 10**6
"""Bytes of a process that only converts: a conversion is a stream, of 233 MB at its most (docs/conversion-speed.md)."""


@cache
def weights_of(architecture: Architecture) -> int:
    """Bytes of a network's parameters in float32."""
    from converters.mapping.names import parameters

    return sum(4 * math.prod(parameter.shape) for parameter in parameters(architecture))


def memory_of(architecture: Architecture, verify: bool) -> int:
    """Bytes of memory that one model takes at most, photographs of ``--images`` left aside.

    Verified, a network's weights are there as they are stored and as kernels that are standardised once. Measured, as
    the peak of the whole process, in MB: R50x1 with 1,000 classes 789 (in bfloat16 834), with 21,843 classes 977
    (1,237), R101x1 951, R50x3 2,471 (2,514); R152x4 in an audit 8,050 (docs/speed.md).
    """
    return BASE_MEMORY + 2 * weights_of(architecture) if verify else STREAM_MEMORY
