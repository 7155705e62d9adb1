"""TensorFlow as both sources and oracles need it: imported in the one order that works; how large a graph may be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

MAX_GRAPH = 512 << 20
"""Bytes of a saved_model.pb that are read; protobuf allows 2 GB."""
MAX_MESSAGES = 1 << 21
"""Messages and texts of one; each takes some hundred bytes of memory, and two of the file."""
VARINT, LENGTH_DELIMITED, WIRE_TYPE = 0, 2, 7
FIXED = {1: 8, 5: 4}
"""The bits of the first byte that tell the kinds apart, and their values
(https://protobuf.dev/programming-guides/encoding/)."""


def read_graph(file: Path) -> Any:
    """The SavedModel message in a saved_model.pb. Raises ValueError for more than any BiT's graph has, before it is
    parsed; protobuf's DecodeError for anything else."""
    if file.stat().st_size > MAX_GRAPH:
        raise ValueError(f"it is larger than {MAX_GRAPH >> 20} MB")
    content = file.read_bytes()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    at_most = np.count_nonzero((np.frombuffer(content, np.uint8) & WIRE_TYPE) == LENGTH_DELIMITED)
    if at_most > MAX_MESSAGES and _has_more_parts(content, SavedModel.DESCRIPTOR):
        raise ValueError("it has more parts than the graph of any BiT")
    return SavedModel.FromString(content)


def _has_more_parts(content: bytes, kind: Any) -> bool:
    """Whether a message has more messages and texts than MAX_MESSAGES; values of tensors in it are passed over."""
    count, pending = 0, [(0, len(content), kind)]
    fields: dict[str, dict[int, Any]] = {}
    while pending:
        at, end, kind = pending.pop()
        if kind.full_name not in fields:
            fields[kind.full_name] = {field.number: field.message_type for field in kind.fields}
        known = fields[kind.full_name]
        while at < end:
            tag, at = read_varint(content, at)
            if tag & WIRE_TYPE == LENGTH_DELIMITED:
                size, at = read_varint(content, at)
                count += 1
                if count > MAX_MESSAGES:
                    return True
                if known.get(tag >> 3) is not None:
                    pending.append((at, min(at + size, end), known[tag >> 3]))
                at += size
            elif tag & WIRE_TYPE == VARINT:
                _, at = read_varint(content, at)
            elif tag & WIRE_TYPE in FIXED:
                at += FIXED[tag & WIRE_TYPE]
            else:
                raise ValueError("it has fields of a kind that TensorFlow does not write")
    return False


def read_varint(content: bytes, place: int) -> tuple[int, int]:
    """Returns a number of seven bits a byte, the lowest first, and where it ends. Raises ValueError where it is cut."""
    number = 0
    for shift, byte in enumerate(content[place : place + 10]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, place + shift + 1
    raise ValueError("a number of it is cut short")


def import_tensorflow() -> Any:
    """TensorFlow, without its notes on stderr. Raises ImportError where it is not installed.

    Triton, which comes with PyTorch on Linux, must be loaded before: TensorFlow 2.21 and Triton 3.8 each bring an LLVM,
    and the process dies when a part of PyTorch loads Triton's after TensorFlow's.
    """
    if "tensorflow" not in sys.modules:
        with suppress(ImportError):
            import triton  # noqa: F401
    with by_default("TF_CPP_MIN_LOG_LEVEL", "3"):  # nothing about the processor, or a missing GPU, on stderr
        import tensorflow

    return tensorflow


@contextmanager
def by_default(variable: str, value: str) -> Iterator[None]:
    """Inside, a variable of the environment has this value, unless it has one: for a library that reads it once."""
    if variable in os.environ:
        yield
        return
    os.environ[variable] = value
    try:
        yield
    finally:
        os.environ.pop(variable, None)
