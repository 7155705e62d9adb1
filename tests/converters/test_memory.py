"""What the process does with memory that is freed."""

import sys

import pytest

from tests.processes import python

PROGRAM = """
import resource, sys
from converters.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
faults = []
for _ in range(4):
    block = bytearray(64 << 20)
    block[:: 1 << 12] = bytes(len(block) >> 12)
    del block
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is asked")
def test_freed_memory_is_used_again_without_being_asked_for_again():
    kept, given_back = (int(python(PROGRAM, word).stdout) for word in ("kept", "usual"))
    assert kept < given_back / 10
