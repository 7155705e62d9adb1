"""Read Google's BiT checkpoints, remap them, write and verify Hub repositories, publish them.

    from converters import audit, convert, publish

    conversion = convert("BiT-digits", output="models")
    report = audit(conversion.folder, against="BiT-digits")
    publication = publish(conversion, repo_id="me/BiT-digits", hub="hub")

``convert`` makes a folder of a checkpoint and proves it, ``audit`` judges any folder, ``publish`` takes a conversion to
a hub; ``open_checkpoint`` reads tensors, ``variants`` lists what Google released. Every error is a ``BitConvertError``.
They print nothing, and may be called from several threads. Everything heavy is imported when first asked for.

The way of the data: ``catalogue`` knows what Google released, ``download`` fetches it, ``sources`` reads named
tensors lazily, ``mapping`` gives each its canonical parameter and its stored form, ``writers`` write it, ``folder`` is
what lies beside the weights, ``auditing`` has ``verify`` judge all of it, ``hub`` publishes. ``conversion.py`` is the
one way through, ``release`` takes many models that way; ``api.py`` and ``cli`` are its two doors, and hold no logic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.api import Checkpoint as Checkpoint
    from converters.api import audit as audit
    from converters.api import convert as convert
    from converters.api import open_checkpoint as open_checkpoint
    from converters.api import publish as publish
    from converters.api import variants as variants
    from converters.catalogue.variants import Variant as Variant
    from converters.conversion import Conversion as Conversion
    from converters.errors import BitConvertError as BitConvertError
    from converters.errors import CheckpointError as CheckpointError
    from converters.errors import HubError as HubError
    from converters.errors import ParityError as ParityError
    from converters.errors import UsageError as UsageError
    from converters.hub.guard import Publication as Publication
    from verify.report.parity import Report as Report

    __version__: str

_EXPORTED = {
    "converters.api": ("Checkpoint", "audit", "convert", "open_checkpoint", "publish", "variants"),
    "converters.catalogue.variants": ("Variant",),
    "converters.conversion": ("Conversion",),
    "converters.errors": ("BitConvertError", "CheckpointError", "HubError", "ParityError", "UsageError"),
    "converters.hub.guard": ("Publication",),
    "verify.report.parity": ("Report",),
}
_HOME = {name: module for module, names in _EXPORTED.items() for name in names}

__all__ = ["__version__", *sorted(_HOME.keys() - {"Report"})]  # verify's name, documented there


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bit-convert")
    if name not in _HOME:
        raise AttributeError(f"module 'converters' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
