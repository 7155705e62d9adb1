"""What holds for all tests: libraries in an order that they survive, one thread each, no deadline for an example."""

import os
from contextlib import suppress

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # or several processes fight for the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

with suppress(ImportError):
    import triton  # noqa: F401 - TensorFlow 2.21, then Triton 3.8 (which torch._dynamo loads), dies

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
