"""Stock models of transformers and timm, given the epsilon that a folder's config.json declares.

Both libraries keep the epsilon of each weight-standardised convolution in its attribute ``eps`` and set it to 1e-8 for
BiT; Google's is 1e-10. With the declared one they compute what bit_ref computes, on the same stored values.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from bit_ref.config import BitConfig, is_epsilon
from bit_ref.config_files import CONFIG_FILE
from bit_ref.hub import Place, read_json

if TYPE_CHECKING:
    from torch import nn

M = TypeVar("M", bound="nn.Module")
_KEY = "weight_standardization_eps"
_COMPUTED: dict[str, Any] = {_KEY: 1e-8, "pool_padding": "zeros"}
"""The arithmetic of every BiT of a stock library, which no key of a config changes."""

logger = logging.getLogger(__name__)
_warned: set[str] = set()


def use_config_epsilon(model: M, folder: str | os.PathLike[str] | None = None, **options: Any) -> M:
    """Set the declared epsilon on each weight-standardised convolution of a stock model, and return the model.

        model = use_config_epsilon(AutoModelForImageClassification.from_pretrained(folder))
        model = use_config_epsilon(timm.create_model(f"local-dir:{folder}", pretrained=True), folder)

    The epsilon is that of the model's own config, or of config.json in ``folder``, which is a path or the name of a
    repository on the Hub: timm keeps no config, so it needs one. ``options`` are those of ``from_pretrained`` that
    choose a file: ``revision``, ``subfolder``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.
    The stored values do not change, and neither do learning rates. Models of bit_ref follow their config already.

    Raises OSError where ``folder`` has no readable config.json, and ValueError where no epsilon is declared, or none
    that can be, where the model has no such convolution, or where the config pads the max-pool with -inf, which stock
    libraries cannot do.
    """
    if folder is None and _is_of_bit_ref(model):
        return model
    declared = _declared(model) if folder is None else _read(folder, options)
    if _KEY not in declared:
        where = f"The config of this {type(model).__name__}" if folder is None else f"{CONFIG_FILE} of {folder}"
        remedy = "; give its folder as the second argument" if folder is None else ""
        raise ValueError(f"{where} declares no {_KEY}{remedy}")
    if not is_epsilon(declared[_KEY]):
        raise ValueError(f"{_KEY}={declared[_KEY]!r:.80} is negative, infinite, or no number")
    if declared.get("pool_padding", "zeros") != "zeros":
        raise ValueError("Its max-pool is padded with -inf, which no stock library does: use bit_ref")
    convolutions = standardised_convolutions(model)
    if not convolutions:
        raise ValueError(f"{type(model).__name__} has no weight-standardised convolution with an attribute eps")
    for convolution in convolutions:
        convolution.eps = declared[_KEY]
    return model


def warn_of_stock_training(content: Mapping[str, Any], place: str, given: Mapping[str, Any]) -> None:
    """Say once of a place that its values may belong to another arithmetic than its config.json declares.

    transformers copies the declaration of the folder that it was given, whatever it computed with, and writes its
    version beside it. ``given`` are the arguments that replace keys of the config, and so settle the question.
    """
    doubtful = {key: value for key, value in _COMPUTED.items() if content.get(key, value) != value and key not in given}
    if "transformers_version" not in content or not doubtful or place in _warned:
        return
    _warned.add(place)
    theirs, declared = (
        ", ".join(f"{key}={value!r}" for key, value in values.items())
        for values in (doubtful, {key: content[key] for key in doubtful})
    )
    logger.warning(
        "%s was saved by transformers, which trains with %s whatever config.json declares. If it was trained so, load "
        "it with from_pretrained(…, %s); if not, with from_pretrained(…, %s): either ends this warning",
        *(place, theirs, theirs, declared),
    )


def standardised_convolutions(model: nn.Module) -> list[Any]:
    """The convolutions of a stock model that standardise their kernels: those with an epsilon of their own."""
    from torch import nn

    return [module for module in model.modules() if isinstance(module, nn.Conv2d) and hasattr(module, "eps")]


def _is_of_bit_ref(model: nn.Module) -> bool:
    return isinstance(getattr(model, "config", None), BitConfig)


def _declared(model: nn.Module) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    return config.to_dict() if hasattr(config, "to_dict") else {}


def _read(folder: str | os.PathLike[str], options: dict[str, Any]) -> dict[str, Any]:
    place = Place.take(folder, options)
    if options:
        raise TypeError(f"use_config_epsilon got unexpected arguments: {', '.join(sorted(options))}")
    return read_json(place.find(CONFIG_FILE))
