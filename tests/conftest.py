"""What holds for all tests: libraries in an order that they survive, one thread each, no deadline for an example."""

import os
import signal
from contextlib import suppress

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # or several processes fight for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

with suppress(ImportError):
    import triton  # noqa: F401 - TensorFlow 2.21, then Triton 3.8 (which torch._dynamo loads), dies

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
