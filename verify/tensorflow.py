"""TensorFlow as both sources and oracles need it: imported in the one order that works; how large a graph may be."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

MAX_GRAPH = 512 << 20
"""Bytes of a saved_model.pb that are read; protobuf allows 2 GB."""
MAX_MESSAGES = 1 << 21
"""Messages and texts of one; each takes some hundred bytes of memory, and two of the file."""
LENGTH_DELIMITED, WIRE_TYPE = 2, 7
"""The bits of the first byte that tell the kinds apart, and their values
(https://protobuf.dev/programming-guides/encoding/)."""


def read_graph(file: Path) -> Any:
    """The SavedModel message in a saved_model.pb. Raises ValueError for more than any BiT's graph has, before it is
    parsed; protobuf's DecodeError for anything else."""
    if file.stat().st_size > MAX_GRAPH:
        raise ValueError(f"it is larger than {MAX_GRAPH >> 20} MB")
    content = file.read_bytes()
    at_most = np.count_nonzero((np.frombuffer(content, np.uint8) & WIRE_TYPE) == LENGTH_DELIMITED)
    if at_most > MAX_MESSAGES:
        raise ValueError("it has more parts than the graph of any BiT")
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    return SavedModel.FromString(content)


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
