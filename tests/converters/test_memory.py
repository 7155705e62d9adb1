"""What the process does with memory that is freed, and how often it looks for garbage."""

import gc
import subprocess
import sys

import pytest

from converters.cli import convert
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


COMMAND = """
import gc
from converters.cli import convert
try:
    convert()
except SystemExit:
    print(gc.get_threshold()[0])
"""


def test_a_process_of_its_own_looks_for_garbage_seldom():
    command = [sys.executable, "-c", COMMAND, "--list", "BiT-digits"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout.splitlines()[-1]) > 10_000


def test_a_command_that_is_called_leaves_the_callers_process_as_it_is():
    before = gc.get_threshold()
    with pytest.raises(SystemExit):
        convert(["--list", "BiT-digits"])
    assert gc.get_threshold() == before
