"""What the process does with memory that is freed, and how often it looks for garbage."""

import gc
import signal
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
import atexit, gc, threading, time
from converters.cli import convert

class Part:
    def __del__(self):
        print("taken apart")

part = Part()
atexit.register(lambda: print("at exit", gc.get_threshold()[0] > 10_000))
threading.Thread(target=lambda: (time.sleep(0.3), print("in a thread"))).start()
convert()
"""


@pytest.mark.parametrize(("words", "status"), [(("--list", "BiT-digits"), 0), (("--no-such-option",), 2)])
def test_a_process_of_its_own_looks_for_garbage_seldom_and_ends_as_python_does_but_takes_nothing_apart(words, status):
    result = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True)
    assert result.returncode == status
    assert result.stdout.splitlines()[-2:] == ["in a thread", "at exit True"]


WAITED_FOR = """
import threading, time
from converters.cli import convert

def wait():
    while threading.main_thread().is_alive():
        time.sleep(0.01)
    print("waited for", flush=True)
    time.sleep(600)

threading.Thread(target=wait).start()
convert()
"""


def test_ctrl_c_at_the_end_waits_for_no_thread():
    command = [sys.executable, "-c", WAITED_FOR, "--list", "BiT-digits"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() != "waited for\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")


def test_what_cannot_be_written_at_the_end_is_no_success():
    command = "from converters.cli import convert; print(end='lost'); convert()"
    with open("/dev/full", "wb") as full:
        result = subprocess.run([sys.executable, "-c", command, "--list", "BiT-digits"], stdout=full)
    assert result.returncode != 0


def test_a_command_that_is_called_leaves_the_callers_process_as_it_is():
    before = gc.get_threshold()
    with pytest.raises(SystemExit):
        convert(["--list", "BiT-digits"])
    assert gc.get_threshold() == before
