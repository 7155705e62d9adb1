"""BitPreTrainedModel: models from and to folders in the transformers layout, by safetensors alone.

config.json → the model without values (meta device) → names and shapes
model.safetensors, or the shards of its index → tensors → checked against them, all misfits in one error → assigned
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypedDict, overload

import torch
from torch import Tensor

from bit_ref.arguments import SAVING, SAVING_WITHOUT_EFFECT, chosen_device, renamed, settle
from bit_ref.config import BitConfig
from bit_ref.config_files import CONFIG_FILE
from bit_ref.hub import Place, PushToHub, make_folder, read_json, require_hub_options, write_text
from bit_ref.interface import ModelInterface
from bit_ref.kernel_cache import serve_compiled
from bit_ref.stock import warn_of_stock_training
from bit_ref.weights import read_weights, write_weights

TENSORS_OF_A_UNIT = 9

logger = logging.getLogger(__name__)


class LoadingInfo(TypedDict):
    """The result of loading: keys that did not fit; a mismatched one with the stored and the model's shape."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, torch.Size, torch.Size]]
    error_msgs: list[str]


class BitPreTrainedModel(ModelInterface, PushToHub):
    """Base of the three models: loading and saving."""

    head_prefix: ClassVar[str] = "classifier."

    def __init__(self, config: BitConfig) -> None:
        if not isinstance(config, BitConfig):
            raise ValueError(f"{type(self).__name__} wants a BitConfig of bit_ref, not {type(config)}")
        config.require_possible()
        super().__init__()
        self.config = config
        self.name_or_path = config.name_or_path
        serve_compiled(self)

    @classmethod
    def _from_config(cls, config: BitConfig, *, dtype: str | torch.dtype | None = None, **kwargs: Any) -> Self:
        """A new model of a copy of ``config``, initialised at random, of ``dtype``, or else of the config's."""
        settle(kwargs)
        if kwargs:
            raise TypeError(f"{cls.__name__}._from_config got unexpected arguments: {', '.join(sorted(kwargs))}")
        model = cls(copy.deepcopy(config))
        model.config.dtype = _choose_dtype(dtype, model.config, {})
        return model.to(model.config.dtype)

    def _wants_hidden_states(self, asked: bool | None) -> bool:
        return self.config.output_hidden_states if asked is None else asked

    def _wants_dict(self, asked: bool | None) -> bool:
        return self.config.return_dict if asked is None else asked

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, LoadingInfo]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *,
        config: BitConfig | str | os.PathLike[str] | None = None,
        dtype: str | torch.dtype | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        device_map: str | int | torch.device | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self | tuple[Self, LoadingInfo]:
        """A model in evaluation mode, from a folder or a repository of the Hub.

        ``cache_dir``, ``force_download``, ``local_files_only``, ``token``, ``revision`` and ``subfolder`` say where
        from, as in transformers; ``variant`` which of several files of weights. With None for the place, the model is
        that of ``config`` and the tensors a copy of those in ``state_dict``. ``key_mapping`` renames stored tensors:
        the first of its regular expressions that is found is replaced. ``dtype`` is that of the model: None or "auto"
        for the config's, or else the file's. ``device_map`` is the device to move to, "auto" for a GPU where there is
        one, within the limits of ``max_memory``; without it, PyTorch's default device is. Other keyword arguments
        replace keys of the config, or are settled in ``bit_ref.arguments``: without effect, or refused.

        Every tensor has to fit. A head in the folder of a model without one is left out; where the folder has no head
        at all, it is initialised at random, with a warning, and so is what a subclass adds to the network; so are, with
        ``ignore_mismatched_sizes``, tensors of another shape. Raises RuntimeError naming every tensor that does not
        fit, OSError where there are no readable safetensors, ValueError for an argument that cannot be honoured,
        TypeError for one that no config has.
        """
        settle(kwargs)
        default_device = torch.get_default_device()
        if default_device.type == "meta":
            raise RuntimeError("from_pretrained reads values, which the meta device has none of: leave its context")
        source = _Stored.take(pretrained_model_name_or_path, kwargs)
        max_memory = kwargs.pop("max_memory", None)
        dtype = kwargs.pop("torch_dtype", None) if dtype is None else dtype
        if isinstance(config, BitConfig):
            config = copy.deepcopy(config)
        else:
            config, kwargs = source.read_config(config, kwargs)
        if kwargs:
            raise TypeError(f"{cls.__name__}.from_pretrained got unexpected arguments: {', '.join(sorted(kwargs))}")

        stored = source.read()
        if TENSORS_OF_A_UNIT * sum(config.depths) > len(stored):  # before as many are built
            raise RuntimeError(f"{source} has {len(stored)} tensors, too few for depths={config.depths} of its config")
        config.dtype = _choose_dtype(dtype, config, stored)
        with torch.device("meta"):
            model = cls(config)
        info = model._assign(stored, str(source), ignore_mismatched_sizes)
        model.eval()
        if device_map is not None:
            default_device = chosen_device(device_map, max_memory, model.get_memory_footprint())
        model.to(default_device)
        return (model, info) if output_loading_info else model

    def _assign(self, stored: Mapping[str, Tensor], place: str, ignore_mismatched_sizes: bool) -> LoadingInfo:
        """Give a model on the meta device the tensors of a folder, or random ones where that is allowed."""
        own = self.state_dict()
        stored = self._renamed(stored, place)
        missing, unexpected = own.keys() - stored.keys(), stored.keys() - own.keys()
        mismatched = {name for name in own.keys() & stored.keys() if own[name].shape != stored[name].shape}
        has_head = any(name.startswith(self.head_prefix) for name in own)
        prefix = self.base_model_prefix + "."
        added = {name for name in own if self._has_base() and not name.startswith(prefix)}

        misfits = []
        if added != missing and missing:
            misfits.append(f"missing: {_listed(missing)}")
        if wrong := {name for name in unexpected if has_head or not name.startswith(self.head_prefix)}:
            misfits.append(f"unexpected: {_listed(wrong)}")
        if wrong := {name for name in own.keys() & stored.keys() if not stored[name].is_floating_point()}:
            misfits.append(f"not of floating point: {_listed(wrong)}")
        if mismatched and not ignore_mismatched_sizes:
            shapes = (f"{n} is {_shape(stored[n])}, the model's {_shape(own[n])}" for n in sorted(mismatched))
            misfits.append(f"of another shape (ignore_mismatched_sizes=True initialises them): {', '.join(shapes)}")
        if misfits:
            raise RuntimeError(f"the tensors of {place} do not fit {type(self).__name__}: {'; '.join(misfits)}")

        dtype = self.config.dtype
        fresh = missing | mismatched
        self._load({name: torch.empty(own[name].shape, dtype=dtype) for name in fresh})
        for module in {name.rpartition(".")[0] for name in fresh}:
            if not hasattr(self.get_submodule(module), "reset_parameters"):
                raise RuntimeError(f"{module or type(self).__name__} has no reset_parameters() to start at random with")
            self.get_submodule(module).reset_parameters()  # type: ignore[operator]  # the rest of it is on meta
        self._load({name: stored[name].to(dtype) for name in own.keys() - fresh})
        if fresh:
            logger.warning(
                "%s of %s start at random, since %s has none that fit: train the model before it is used",
                _listed(fresh),
                type(self).__name__,
                place,
            )
        return {
            "missing_keys": missing,
            "unexpected_keys": unexpected,
            "mismatched_keys": {(name, stored[name].shape, own[name].shape) for name in mismatched},
            "error_msgs": [],
        }

    def _has_base(self) -> bool:
        """Whether the network is a part of this model, with something on top."""
        return hasattr(self, self.base_model_prefix)

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        self.load_state_dict(tensors, strict=False, assign=True)

    def _renamed(self, stored: Mapping[str, Tensor], place: str) -> Mapping[str, Tensor]:
        """The tensors of a model with a head under the names of one without, and the other way round."""
        prefix = self.base_model_prefix + "."
        has_prefix = any(name.startswith(prefix) for name in stored)
        wants_prefix = self._has_base()
        if has_prefix and not wants_prefix:
            return _under_new_names(stored, lambda name: name.removeprefix(prefix), place)
        if wants_prefix and not has_prefix:
            return {n if n.startswith(self.head_prefix) else prefix + n: tensor for n, tensor in stored.items()}
        return stored

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        variant: str | None = None,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> None:
        """Write ``model.safetensors`` (or shards and their index) and ``config.json``, which transformers loads.

        ``state_dict`` replaces the model's own; where this is not the main process of several, nothing is done. Each
        file appears whole or not at all, ``config.json`` last; weights of an earlier save are gone. ``variant`` is
        part of the names of the files of weights. ``repo_id``, ``token`` and the other arguments of ``push_to_hub``
        are for ``push_to_hub=True``.
        """
        settle(hub_options, SAVING, SAVING_WITHOUT_EFFECT)
        require_hub_options(hub_options)
        if not is_main_process:
            return
        folder = make_folder(save_directory)
        state_dict = self.state_dict() if state_dict is None else state_dict
        write_weights(folder, state_dict, max_shard_size, variant)
        write_text(folder / CONFIG_FILE, self.config_to_save().to_json_string())
        weights = {"state_dict": state_dict, "max_shard_size": max_shard_size, "variant": variant}
        self._saved(folder, push_to_hub, repo_id, hub_options, **weights)

    def config_to_save(self) -> BitConfig:
        """A copy of the config that says what the model is: its class and its dtype."""
        config = copy.deepcopy(self.config)
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype
        return config


@dataclass
class _Stored:
    """The source that ``from_pretrained`` is given: a place that holds config and tensors, or a state dict."""

    place: Place | None
    tensors: Mapping[str, Tensor] | None
    variant: str | None
    key_mapping: Mapping[str, str]

    @classmethod
    def take(cls, name: str | os.PathLike[str] | None, options: dict[str, Any]) -> _Stored:
        """Takes its own keys out of ``options``. Raises ValueError for no source of tensors, or for two."""
        tensors, variant = options.pop("state_dict", None), options.pop("variant", None)
        key_mapping = options.pop("key_mapping", None) or {}
        if (name is None) == (tensors is None):
            raise ValueError("from_pretrained wants a name or path, or else None, config= and state_dict=")
        place = Place.take("" if name is None else name, options)
        return cls(None if name is None else place, tensors, variant, key_mapping)

    def __str__(self) -> str:
        return "state_dict" if self.place is None else str(self.place)

    def read_config(
        self, config: str | os.PathLike[str] | None, changes: dict[str, Any]
    ) -> tuple[BitConfig, dict[str, Any]]:
        """The config with ``changes``, and those of them that no config has."""
        if config is not None:
            return BitConfig.from_pretrained(config, return_unused_kwargs=True, **changes)
        if self.place is None:
            raise ValueError("from_pretrained(None, state_dict=…) wants config=, too")
        file = self.place.find(CONFIG_FILE)
        self.place = self.place.pinned(file)
        content = read_json(file)
        warn_of_stock_training(content, str(self.place), changes)
        return BitConfig.from_dict({**content, "name_or_path": self.place.name}, return_unused_kwargs=True, **changes)

    def read(self) -> dict[str, Tensor]:
        """Name → tensor, which no other model has."""
        if self.tensors is not None:
            stored = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        else:
            assert self.place is not None
            stored = read_weights(self.place, self.variant)
        return _under_new_names(stored, lambda name: renamed(name, self.key_mapping), str(self))


def _under_new_names(stored: Mapping[str, Tensor], rename: Callable[[str], str], place: str) -> dict[str, Tensor]:
    """Raises RuntimeError where two tensors would have one name, of which one would be lost."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        new = rename(name)
        if new in tensors:
            raise RuntimeError(f"more than one tensor of {place} is named {new}")
        tensors[new] = tensor
    return tensors


def _choose_dtype(asked: str | torch.dtype | None, config: BitConfig, stored: Mapping[str, Tensor]) -> torch.dtype:
    """Raises ValueError for a data type that no model can have."""
    if isinstance(asked, torch.dtype):
        dtype = asked
    elif asked is not None and asked != "auto":
        named = getattr(torch, asked, None)
        if not isinstance(named, torch.dtype):
            raise ValueError(f"dtype={asked} is neither auto nor a data type of PyTorch")
        dtype = named
    else:
        floating = (tensor.dtype for tensor in stored.values() if tensor.is_floating_point())
        dtype = config.dtype or next(floating, torch.get_default_dtype())
    if not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype}: a model computes in floating point, such as torch.float32")
    return dtype


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
