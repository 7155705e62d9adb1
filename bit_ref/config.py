"""BitConfig: the shape of a BiT network and its arithmetic, as ``config.json`` keeps them.

Keys, defaults and rules are those of transformers, and two more, which stock libraries keep and ignore:
``weight_standardization_eps`` and ``pool_padding``. Keys it does not know are kept and written back.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, overload

from bit_ref.config_files import CONFIG_FILE, ConfigFiles
from bit_ref.hub import Place, read_json

if TYPE_CHECKING:
    import torch

_SHARED_DEFAULTS: dict[str, Any] = {
    "architectures": None,
    "chunk_size_feed_forward": 0,
    "dtype": None,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "output_attentions": False,
    "output_hidden_states": False,
    "problem_type": None,
    "return_dict": True,
}
"""The keys that every config of transformers has; ``config.json`` omits those that have these values."""

_NOT_KEPT = ("_commit_hash", "_name_or_path", "model_type", "stage_names", "transformers_version")
"""Keys of a ``config.json`` that follow from the rest, or say who wrote it."""


LARGEST, MOST_UNITS = 1 << 20, 1000
"""Channels of a layer, or labels, and units, beyond those of any network: nothing is built before they are compared."""


class BitConfig(ConfigFiles):
    """A BiT network.

    ``embedding_size`` are the root's channels, ``hidden_sizes`` the output channels of each stage (four times a
    unit's inner width), ``depths`` the units of each. ``global_padding`` None is BiT's fixed padding; "same" pads as
    TensorFlow does, "valid" not at all. ``weight_standardization_eps`` is added to a kernel's variance: Google's is
    1e-10; a ``config.json`` that declares none is read with the 1e-8 of stock libraries. ``pool_padding``, "zeros" or
    "-inf", is what surrounds the root's output before max-pooling: zeros in all of big_transfer.
    ``out_features`` and ``out_indices`` choose the stages of a ``BitBackbone``.

    Raises ValueError for values that no BiT network can have.
    """

    model_type: ClassVar[str] = "bit"
    layer_types: ClassVar[list[str]] = ["preactivation", "bottleneck"]
    supported_padding: ClassVar[list[str | None]] = [None, "SAME", "VALID"]

    def __init__(
        self,
        *,
        num_channels: int = 3,
        embedding_size: int = 64,
        hidden_sizes: Sequence[int] = (256, 512, 1024, 2048),
        depths: Sequence[int] = (3, 4, 6, 3),
        layer_type: str = "preactivation",
        hidden_act: str = "relu",
        global_padding: str | None = None,
        num_groups: int = 32,
        drop_path_rate: float = 0.0,
        embedding_dynamic_padding: bool = False,
        output_stride: int = 32,
        width_factor: int = 1,
        weight_standardization_eps: float = 1e-8,
        pool_padding: str = "zeros",
        out_features: list[str] | None = None,
        out_indices: Sequence[int] | None = None,
        num_labels: int | None = None,
        id2label: Mapping[Any, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None,
        dtype: str | torch.dtype | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
        **others: Any,
    ) -> None:
        _require_sizes(num_channels=num_channels, embedding_size=embedding_size, num_groups=num_groups)
        _require_sizes(output_stride=output_stride, width_factor=width_factor)
        _require_sizes(hidden_sizes=hidden_sizes, depths=depths)
        _require("num_labels", num_labels, num_labels is None or _is_size(num_labels, least=0))
        _require("hidden_act", hidden_act, isinstance(hidden_act, str))
        _require("drop_path_rate", drop_path_rate, isinstance(drop_path_rate, Real) and 0 <= drop_path_rate <= 1)
        _require("id2label", id2label, id2label is None or _are_labels(id2label))
        _require("label2id", label2id, isinstance(label2id, Mapping | None))
        self.num_channels = num_channels
        self.embedding_size = embedding_size
        self.hidden_sizes = list(hidden_sizes)
        self.depths = list(depths)
        self.layer_type = layer_type
        self.hidden_act = hidden_act
        self.global_padding = global_padding
        self.num_groups = num_groups
        self.drop_path_rate = drop_path_rate
        self.embedding_dynamic_padding = embedding_dynamic_padding
        self.output_stride = output_stride
        self.width_factor = width_factor
        self.weight_standardization_eps = weight_standardization_eps
        self.pool_padding = pool_padding

        self.stage_names = ["stem", *(f"stage{number}" for number in range(1, len(self.depths) + 1))]
        self._choose(out_features, out_indices)

        self.architectures: list[str] | None = None
        self.problem_type = problem_type
        self.output_hidden_states = output_hidden_states
        self.return_dict = return_dict
        older_dtype = others.pop("torch_dtype", None)
        self.dtype = dtype if dtype is not None else older_dtype
        self.id2label: dict[int, str]
        self.label2id: dict[str, int] | None
        if id2label is None or num_labels not in (None, len(id2label)):
            self.id2label, self.label2id = _numbered(2 if num_labels is None else num_labels)
        else:
            self.id2label = {int(index): label for index, label in id2label.items()}
            self.label2id = None if label2id is None else dict(label2id)

        self.name_or_path = str(others.pop("name_or_path", ""))
        for key, default in _SHARED_DEFAULTS.items():
            if key not in self.__dict__:
                setattr(self, key, others.pop(key, default))
        for key, value in others.items():
            if key in _NOT_KEPT:
                continue
            if hasattr(BitConfig, key):
                raise ValueError(f"{key} cannot be a key of {CONFIG_FILE}: BitConfig has a method of that name")
            setattr(self, key, value)
        self.require_possible()

    def require_possible(self) -> None:
        """Raises ValueError for values that no BiT network can have, which may have been set since."""
        if self.layer_type not in self.layer_types:
            raise ValueError(f"layer_type={self.layer_type} is not one of {','.join(self.layer_types)}")
        if self.global_padding not in self.supported_padding:
            raise ValueError(f"Padding strategy {self.global_padding} not supported")
        if self.pool_padding not in ("zeros", "-inf"):
            raise ValueError(f"pool_padding={self.pool_padding} is neither zeros nor -inf")
        for key in ("embedding_dynamic_padding", "output_hidden_states", "return_dict"):
            value = getattr(self, key)
            _require(key, value, isinstance(value, bool) or (value is None and key != "embedding_dynamic_padding"))
        epsilon = self.weight_standardization_eps
        if not is_epsilon(epsilon):
            raise ValueError(f"weight_standardization_eps={_short(epsilon)} is negative, infinite, or no number")
        if not self.depths or len(self.depths) != len(self.hidden_sizes):
            raise ValueError(f"depths={self.depths} and hidden_sizes={self.hidden_sizes} must have a value per stage")
        if sum(self.depths) > MOST_UNITS:
            raise ValueError(f"depths={_short(self.depths)} are more units than any network has")
        if self.problem_type == "single_label_classification" and self.num_labels == 1:
            raise ValueError("problem_type=single_label_classification needs two labels; for one, use regression")

    @property
    def num_labels(self) -> int:
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        _require("num_labels", num_labels, _is_size(num_labels, least=0))
        if num_labels != len(self.id2label):
            self.id2label, self.label2id = _numbered(num_labels)

    @property
    def global_padding(self) -> str | None:
        """None or, in capitals whatever was given, "SAME" or "VALID"."""
        padding: str | None = self.__dict__["global_padding"]
        return padding

    @global_padding.setter
    def global_padding(self, padding: str | None) -> None:
        _require("global_padding", padding, isinstance(padding, str | None))
        self.__dict__["global_padding"] = None if padding is None else padding.upper()

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the stored weights, by its name, so that a config needs no PyTorch."""
        name = self.__dict__["dtype"]
        if name is None:
            return None
        import torch

        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"dtype={name} is no data type of PyTorch")
        return dtype

    @dtype.setter
    def dtype(self, dtype: str | torch.dtype | None) -> None:
        self.__dict__["dtype"] = None if dtype is None else str(dtype).removeprefix("torch.")

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The older name of ``dtype``."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, dtype: str | torch.dtype | None) -> None:
        self.dtype = dtype

    @property
    def out_features(self) -> list[str]:
        features: list[str] = self.__dict__["out_features"]
        return features

    @out_features.setter
    def out_features(self, out_features: list[str] | None) -> None:
        self._choose(out_features, None)

    @property
    def out_indices(self) -> list[int]:
        indices: list[int] = self.__dict__["out_indices"]
        return indices

    @out_indices.setter
    def out_indices(self, out_indices: Sequence[int] | None) -> None:
        self._choose(None, out_indices)

    def _choose(self, features: list[str] | None, indices: Sequence[int] | None) -> None:
        """The stages of a backbone, by name and by index (negative ones stay so); the last one by default."""
        names = self.stage_names
        if features is not None and not isinstance(features, list):
            raise ValueError(f"out_features must be a list got {type(features)}")
        if indices is not None and not isinstance(indices, (list, tuple)):
            raise ValueError(f"out_indices must be a list, got {type(indices)}")
        if not all(isinstance(each, str) for each in features or []) or not all(map(_is_whole, indices or [])):
            raise ValueError(f"out_features={_short(features)} or out_indices={_short(indices)} name no stages")
        if features is None and indices is None:
            indices = [len(names) - 1]
        if indices is None and features is not None:
            if not set(features) <= set(names):
                raise ValueError(f"out_features must be a subset of stage_names: {names} got {features}")
            indices = [names.index(feature) for feature in features]
        indices = list(indices or [])
        if not all(-len(names) <= index < len(names) for index in indices):
            raise ValueError(f"out_indices must be valid indices for stage_names {names}, got {indices}")
        places = [index % len(names) for index in indices]
        if places != sorted(set(places)):
            asked = f"out_features={features}" if features is not None else f"out_indices={indices}"
            raise ValueError(f"{asked} must be in the same order as stage_names {names}, without any duplicates")
        if features is not None and features != [names[place] for place in places]:
            raise ValueError(f"out_features={features} and out_indices={indices} should correspond to the same stages")
        self.__dict__["out_features"] = [names[place] for place in places]
        self.__dict__["out_indices"] = indices

    def to_dict(self) -> dict[str, Any]:
        """Every key, as JSON has them but for the integer keys of ``id2label``; where it came from is none of them."""
        content = copy.deepcopy(self.__dict__)
        del content["name_or_path"]
        return {**content, "model_type": self.model_type}

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns the content of ``config.json``: keys that every model has only where they differ from the default."""
        return {k: v for k, v in self.to_dict().items() if k not in _SHARED_DEFAULTS or v != _SHARED_DEFAULTS[k]}

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **kwargs: Any
    ) -> Self: ...

    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """A config of ``config_dict`` in which ``kwargs`` replace what they name.

        With ``return_unused_kwargs=True``, also the ``kwargs`` that no config has; otherwise they are ignored.
        Raises ValueError for the config of another kind of model.
        """
        kind = config_dict.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(f"the config is of a model of type {kind}, not {cls.model_type}")
        known = {*cls().__dict__, *config_dict, "num_labels", "torch_dtype"}
        changes = {key: kwargs.pop(key) for key in [*kwargs] if key in known}
        if "id2label" in changes:
            _require("id2label", changes["id2label"], _are_labels(changes["id2label"]))
            changes.setdefault("label2id", {label: int(index) for index, label in changes["id2label"].items()})
        content = {key: value for key, value in config_dict.items() if key not in _replaced_by(changes)}
        config = cls(**{**content, **changes})
        return (config, kwargs) if return_unused_kwargs else config

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Reads a config from a folder, a JSON file or a repository of the Hub.

        ``cache_dir``, ``force_download``, ``local_files_only``, ``token``, ``revision`` and ``subfolder`` say where
        from, as in transformers; the rest is for ``from_dict``. Raises OSError where there is no readable file.
        """
        place = Place.take(pretrained_model_name_or_path, kwargs)
        file = Path(place.name) if Path(place.name).is_file() else place.find(CONFIG_FILE)
        config, unused = cls.from_dict(
            {**read_json(file), "name_or_path": place.name}, return_unused_kwargs=True, **kwargs
        )
        return (config, unused) if return_unused_kwargs else config

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def is_epsilon(value: Any) -> bool:
    """Whether a value can be added to a kernel's variance: a finite number of 0 or more."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value < math.inf  # type: ignore[operator]


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_size(value: Any, least: int = 1) -> bool:
    return _is_whole(value) and least <= value <= LARGEST


def _are_labels(names: Any) -> bool:
    if not isinstance(names, Mapping) or len(names) > LARGEST:
        return False
    return all(_is_whole(key) or (isinstance(key, str) and key.isdecimal() and len(key) < 10) for key in names)


def _require_sizes(**fields: Any) -> None:
    for name, value in fields.items():
        listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= MOST_UNITS
        in_list = name in ("hidden_sizes", "depths")
        _require(name, value, listed and all(map(_is_size, value)) if in_list else _is_size(value))


def _require(name: str, value: Any, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{name}={_short(value)} is not what a BiT network has there")


def _short(value: Any) -> str:
    """A value of unknown origin for a message."""
    return repr(value)[:80]


def _numbered(count: int) -> tuple[dict[int, str], dict[str, int]]:
    """Labels of classes that have no names, both ways."""
    id2label = {index: f"LABEL_{index}" for index in range(count)}
    return id2label, {label: index for index, label in id2label.items()}


def _replaced_by(changes: Mapping[str, Any]) -> set[str]:
    """The keys of a ``config.json`` that given arguments make void."""
    void = set()
    if "id2label" in changes:
        void |= {"id2label", "label2id", "num_labels"}
    if "out_features" in changes or "out_indices" in changes:
        void |= {"out_features", "out_indices"}
    if "dtype" in changes or "torch_dtype" in changes:
        void |= {"dtype", "torch_dtype"}
    return void
