"""Whether a GPU computes in TF32: rounds the factors of products and convolutions in float32 to 11 bits.

PyTorch has two settings for it, and refuses to say what the older one is to a program that has made use of the newer.

    whether it may → ``products()``, ``convolutions()`` → contexts
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

_SETTINGS = threading.RLock()
"""Held while a setting may be another: it is the whole process's, and of two threads one would have the other's."""


def products(allowed: bool) -> AbstractContextManager[None]:
    """Returns a context for products of matrices."""
    import torch

    settings = torch.backends.cuda.matmul
    return _allowed(settings, settings, allowed)


def convolutions(allowed: bool) -> AbstractContextManager[None]:
    """Returns a context for convolutions."""
    import torch

    settings = torch.backends.cudnn
    return _allowed(settings, getattr(settings, "conv", None), allowed)


def _allowed(older: Any, newer: Any, allowed: bool) -> AbstractContextManager[None]:
    try:
        older.allow_tf32  # noqa: B018
    except RuntimeError:
        return setting(newer, "fp32_precision", "tf32" if allowed else "ieee")
    return setting(older, "allow_tf32", allowed)


@contextmanager
def setting(settings: Any, name: str, value: bool | str) -> Iterator[None]:
    """A context in which one of PyTorch's settings has this value."""
    with _SETTINGS:
        before = getattr(settings, name)
        setattr(settings, name, value)
        try:
            yield
        finally:
            setattr(settings, name, before)
