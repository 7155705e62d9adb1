"""The Hub's token of one command, as an option."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from converters.errors import UsageError

VARIABLE = "HF_TOKEN"
"""Read by huggingface_hub, also in the processes that a run starts."""


@contextmanager
def used(token: str | None) -> Iterator[None]:
    """Inside, the Hub is asked with ``token``, which nothing that is printed or written shows; None changes nothing.

    Raises UsageError for what can be no token.
    """
    if token is None:
        yield
        return
    from converters.redaction import remember_secret

    remember_secret(token)
    if not token.isascii() or not token.isprintable() or not token.strip() or " " in token:
        raise UsageError(f"--token has characters that no token has. Give the token itself, or set {VARIABLE}.")
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = token
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
