"""What a release is said to take, held against what was measured of it."""

from __future__ import annotations

import pytest

from converters.mapping.architecture import Architecture
from converters.release.estimate import memory_of

MEASURED = {
    ("R50x1", 1000): (789, 89),
    ("R50x1", 21843): (1237, 138),  # in bfloat16; in float32 977
    ("R101x1", 1000): (951, None),
    ("R50x3", 1000): (2514, 228),
    ("R152x4", 1000): (8050, None),
}
"""Network and classes → megabytes at the peak of a whole process: verified, and with --no-verify."""


@pytest.mark.parametrize(("network", "classes"), MEASURED)
def test_memory_is_enough_and_not_much_more(network, classes):
    verified, converted = MEASURED[network, classes]
    architecture = Architecture.released(network, classes)
    assert verified <= memory_of(architecture, verify=True) / 1e6 <= 1.3 * verified
    if converted:
        assert converted <= memory_of(architecture, verify=False) / 1e6


def test_memory_of_a_stream_does_not_grow_with_the_network():
    small, large = (Architecture.released(name, 1000) for name in ("R50x1", "R152x4"))
    assert memory_of(small, verify=False) == memory_of(large, verify=False) < memory_of(small, verify=True)
