"""A command's own process collects garbage seldom; a library call in a user's does not change how often."""

import gc
import subprocess
import sys

import pytest

from converters.cli import convert

PROGRAM = """
import gc
from converters.cli import convert
try:
    convert()
except SystemExit:
    print(gc.get_threshold()[0])
"""


def test_a_process_of_its_own_looks_for_garbage_seldom():
    command = [sys.executable, "-c", PROGRAM, "--list", "BiT-digits"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout.splitlines()[-1]) > 10_000


def test_a_command_that_is_called_leaves_the_callers_process_as_it_is():
    before = gc.get_threshold()
    with pytest.raises(SystemExit):
        convert(["--list", "BiT-digits"])
    assert gc.get_threshold() == before
