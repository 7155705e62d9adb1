"""TensorFlow as both sources and oracles need it: imported in the one order that works; how large a graph may be."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

MAX_GRAPH = 512 << 20
"""Bytes of a saved_model.pb that are parsed; protobuf allows 2 GB."""


def import_tensorflow() -> Any:
    """TensorFlow, without its notes on stderr. Raises ImportError where it is not installed.

    Triton, which comes with PyTorch on Linux, must be loaded before: TensorFlow 2.21 and Triton 3.8 each bring an LLVM,
    and the process dies when a part of PyTorch loads Triton's after TensorFlow's.
    """
    if "tensorflow" not in sys.modules:
        with suppress(ImportError):
            import triton  # noqa: F401
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # nothing about the processor, or a missing GPU, on stderr
    import tensorflow

    return tensorflow
