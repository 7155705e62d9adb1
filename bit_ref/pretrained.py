"""BitPreTrainedModel: models from and to folders in the transformers layout, by safetensors alone.

config.json → the model without values (meta device) → names and shapes
model.safetensors, or the shards of its index → tensors → checked against them, all misfits in one error → assigned
"""

from __future__ import annotations

import copy
import logging
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypedDict, overload

import torch
from torch import Tensor, nn

from bit_ref.config import CONFIG_FILE, BitConfig
from bit_ref.hub import Place, PushToHub, make_folder, read_json, write_text

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

TENSORS_OF_A_UNIT = 9

logger = logging.getLogger(__name__)


class LoadingInfo(TypedDict):
    """The result of loading: keys that did not fit; a mismatched one with the stored and the model's shape."""

    missing_keys: set[str]
    unexpected_keys: set[str]
    mismatched_keys: set[tuple[str, torch.Size, torch.Size]]
    error_msgs: list[str]


class BitPreTrainedModel(nn.Module, PushToHub):
    """Base of the three models: loading and saving."""

    config_class: ClassVar[type[BitConfig]] = BitConfig
    base_model_prefix: ClassVar[str] = "bit"
    head_prefix: ClassVar[str] = "classifier."
    main_input_name: ClassVar[str] = "pixel_values"

    def __init__(self, config: BitConfig) -> None:
        if not isinstance(config, BitConfig):
            raise ValueError(f"{type(self).__name__} wants a BitConfig of bit_ref, not {type(config)}")
        super().__init__()
        self.config = config

    @property
    def name_or_path(self) -> str:
        return self.config.name_or_path

    @property
    def base_model(self) -> nn.Module:
        """The model without its head."""
        base: nn.Module = getattr(self, self.base_model_prefix, self)
        return base

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def _wants_hidden_states(self, asked: bool | None) -> bool:
        return self.config.output_hidden_states if asked is None else asked

    def _wants_dict(self, asked: bool | None) -> bool:
        return self.config.return_dict if asked is None else asked

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, LoadingInfo]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        output_loading_info: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: BitConfig | str | os.PathLike[str] | None = None,
        dtype: str | torch.dtype | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        device_map: str | int | torch.device | None = None,
        **kwargs: Any,
    ) -> Self | tuple[Self, LoadingInfo]:
        """A model in evaluation mode, from a folder or a repository of the Hub.

        ``cache_dir``, ``force_download``, ``local_files_only``, ``token``, ``revision`` and ``subfolder`` say where
        from, as in transformers; other keyword arguments replace keys of the config. ``dtype`` is that of the model:
        None or "auto" for the config's, or else the file's. ``device_map`` is the device to move to, "auto" for the GPU
        where there is one.

        Every tensor has to fit. A head in the folder of a model without one is left out; where the folder has no head
        at all, it is initialised at random, with a warning; so are, with ``ignore_mismatched_sizes``, tensors of
        another shape. Raises RuntimeError naming every tensor that does not fit, OSError where there are no readable
        safetensors, TypeError for a keyword argument that no config has.
        """
        if use_safetensors is False:
            raise ValueError("use_safetensors=False: bit_ref reads safetensors only, never a pickle")
        place = Place.take(pretrained_model_name_or_path, kwargs)
        for nothing_to_do in ("low_cpu_mem_usage", "trust_remote_code", "weights_only"):
            kwargs.pop(nothing_to_do, None)
        dtype = kwargs.pop("torch_dtype", None) if dtype is None else dtype
        if config is None:
            file = place.find(CONFIG_FILE)
            place = place.pinned(file)
            content = {**read_json(file), "name_or_path": place.name}
            config, kwargs = BitConfig.from_dict(content, return_unused_kwargs=True, **kwargs)
        elif not isinstance(config, BitConfig):
            config = BitConfig.from_pretrained(config)
        if kwargs:
            raise TypeError(f"{cls.__name__}.from_pretrained got unexpected arguments: {', '.join(sorted(kwargs))}")

        config = copy.deepcopy(config)
        stored = _read_weights(place)
        if TENSORS_OF_A_UNIT * sum(config.depths) > len(stored):  # before as many are built
            raise RuntimeError(f"{place} has {len(stored)} tensors, too few for depths={config.depths} of its config")
        config.dtype = _choose_dtype(dtype, config, stored)
        with torch.device("meta"):
            model = cls(config)
        info = model._assign(stored, str(place), ignore_mismatched_sizes)
        model.eval()
        if device_map is not None:
            gpu = "cuda" if torch.cuda.is_available() else "cpu"
            model.to(gpu if device_map == "auto" else device_map)
        return (model, info) if output_loading_info else model

    def _assign(self, stored: Mapping[str, Tensor], place: str, ignore_mismatched_sizes: bool) -> LoadingInfo:
        """Give a model on the meta device the tensors of a folder, or random ones where that is allowed."""
        own = self.state_dict()
        stored = self._renamed(stored)
        missing, unexpected = own.keys() - stored.keys(), stored.keys() - own.keys()
        mismatched = {name for name in own.keys() & stored.keys() if own[name].shape != stored[name].shape}
        head = {name for name in own if name.startswith(self.head_prefix)}

        misfits = []
        if head != missing and missing:
            misfits.append(f"missing: {_listed(missing)}")
        if wrong := {name for name in unexpected if head or not name.startswith(self.head_prefix)}:
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

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        self.load_state_dict(tensors, strict=False, assign=True)

    def _renamed(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a model with a head under the names of one without, and the other way round."""
        prefix = self.base_model_prefix + "."
        has_prefix = any(name.startswith(prefix) for name in stored)
        wants_prefix = hasattr(self, self.base_model_prefix)
        if has_prefix and not wants_prefix:
            return {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
        if wants_prefix and not has_prefix:
            return {n if n.startswith(self.head_prefix) else prefix + n: tensor for n, tensor in stored.items()}
        return dict(stored)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> None:
        """Write ``model.safetensors`` (or shards and their index) and ``config.json``, which transformers loads.

        ``state_dict`` replaces the model's own; where this is not the main process of several, nothing is done. Each
        file appears whole or not at all, ``config.json`` last; weights of an earlier save are gone.
        """
        if not is_main_process:
            return
        folder = make_folder(save_directory)
        _write_weights(folder, self.state_dict() if state_dict is None else state_dict, max_shard_size)
        config = copy.deepcopy(self.config)
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype
        write_text(folder / CONFIG_FILE, config.to_json_string())
        self._saved(folder, push_to_hub, repo_id, hub_options)


def _read_weights(place: Place) -> dict[str, Tensor]:
    """Name → tensor, on the CPU, mapped from the file until it is used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    first = place.find(WEIGHTS_FILE, INDEX_FILE)
    stored: dict[str, Tensor] = {}
    for file in [first] if first.name == WEIGHTS_FILE else _shards(place, first):
        try:
            stored.update(load_file(file))
        except (SafetensorError, ValueError) as error:
            raise OSError(f"{file.name} of {place} is not readable, fetch it again: {error}") from error
    return stored


def _shards(place: Place, index: Path) -> list[Path]:
    """The files that an index names, each in the same folder as the index."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise OSError(f"{index.name} of {place} names no file of weights")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise OSError(f"{index.name} of {place} names {name!r}, which is no safetensors file beside it")
    return [place.find(name) for name in sorted(set(names.values()))]


def _write_weights(folder: Path, tensors: Mapping[str, Tensor], max_shard_size: int | str) -> None:
    from huggingface_hub import save_torch_state_dict

    with tempfile.TemporaryDirectory(prefix=".weights-", dir=folder) as temporary:
        save_torch_state_dict(dict(tensors), temporary, max_shard_size=max_shard_size)
        new = sorted(Path(temporary).iterdir(), key=lambda file: file.name == INDEX_FILE)
        mode = _usual_mode(Path(temporary))
        for file in new:
            file.chmod(mode)
            file.replace(folder / file.name)
    old = {folder / WEIGHTS_FILE, folder / INDEX_FILE, *folder.glob("model-*-of-*.safetensors")}
    for file in old - {folder / file.name for file in new}:
        file.unlink(missing_ok=True)


def _usual_mode(folder: Path) -> int:
    """The permissions of a new file as the umask leaves them: safetensors makes its own for the owner alone."""
    probe = folder / "probe"
    probe.touch(exist_ok=False)
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    return mode


def _choose_dtype(asked: str | torch.dtype | None, config: BitConfig, stored: Mapping[str, Tensor]) -> torch.dtype:
    if isinstance(asked, torch.dtype):
        return asked
    if asked is not None and asked != "auto":
        named = getattr(torch, asked, None)
        if not isinstance(named, torch.dtype):
            raise ValueError(f"dtype={asked} is neither auto nor a data type of PyTorch")
        return named
    floating = (tensor.dtype for tensor in stored.values() if tensor.is_floating_point())
    return config.dtype or next(floating, torch.get_default_dtype())


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"
