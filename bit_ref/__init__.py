"""The reference BiT in PyTorch, with the interface of the classes of the same names in transformers.

    from bit_ref import BitForImageClassification, BitImageProcessor

    processor = BitImageProcessor.from_pretrained(folder)
    model = BitForImageClassification.from_pretrained(folder)
    logits = model(**processor(image, return_tensors="pt")).logits

Nothing heavy is imported before it is asked for: a config needs no PyTorch, an image processor only NumPy and Pillow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bit_ref.config import BitConfig
    from bit_ref.image_processor import BatchFeature, BitImageProcessor
    from bit_ref.model import BitBackbone, BitForImageClassification, BitModel
    from bit_ref.pictures import load_image
    from bit_ref.pretrained import BitPreTrainedModel
    from bit_ref.stock import use_config_epsilon
    from bit_ref.training import SaveConfigCallback

    __version__: str

__all__ = [
    "BatchFeature",
    "BitBackbone",
    "BitConfig",
    "BitForImageClassification",
    "BitImageProcessor",
    "BitModel",
    "BitPreTrainedModel",
    "SaveConfigCallback",
    "__version__",
    "load_image",
    "use_config_epsilon",
]

_MODULES = {
    "BatchFeature": "image_processor",
    "BitConfig": "config",
    "BitImageProcessor": "image_processor",
    "BitPreTrainedModel": "pretrained",
    "SaveConfigCallback": "training",
    "load_image": "pictures",
    "use_config_epsilon": "stock",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("bit-convert")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'model')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
