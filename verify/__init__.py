"""Parity: is this converted model the checkpoint's model?

``audit(target, source)`` compares what a folder stores and what a library computes from it with oracles that run
straight on the source's tensors, and returns a frozen ``Report``, truthy when passed. The package judges what it is
handed through the small protocols of ``protocols.py``: it knows neither how a checkpoint is read nor how a folder is
made. Everything heavy is imported when first asked for.

    source, target  →  auditing (weights; readers, oracles in forward)  →  compare (the rules)  →  report, verdict
    parity.json     →  checking (does it follow from its own figures?)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verify.auditing import AuditSettings as AuditSettings
    from verify.auditing import audit as audit
    from verify.faults import Fault as Fault
    from verify.images import default_images as default_images
    from verify.images import thorough_images as thorough_images
    from verify.oracles.numpy import NumpyOracle as NumpyOracle
    from verify.protocols import Correspondence as Correspondence
    from verify.protocols import Expectation as Expectation
    from verify.protocols import Oracle as Oracle
    from verify.protocols import Reader as Reader
    from verify.protocols import Source as Source
    from verify.protocols import Target as Target
    from verify.readers import BitRefReader as BitRefReader
    from verify.readers import TimmReader as TimmReader
    from verify.readers import TransformersReader as TransformersReader
    from verify.report.parity import Report as Report

    __version__: str

_EXPORTED = {
    "verify.auditing": ("AuditSettings", "audit"),
    "verify.faults": ("Fault",),
    "verify.images": ("default_images", "thorough_images"),
    "verify.oracles.numpy": ("NumpyOracle",),
    "verify.protocols": ("Correspondence", "Expectation", "Oracle", "Reader", "Source", "Target"),
    "verify.readers": ("BitRefReader", "TimmReader", "TransformersReader"),
    "verify.report.parity": ("Report",),
}
_HOME = {name: module for module, names in _EXPORTED.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bit-convert")
    if name not in _HOME:
        raise AttributeError(f"module 'verify' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
