"""ConfigFiles: what a config has in common with every config of transformers: keys that change, JSON, files.

config.json ⇄ the keys of a config, which ``to_dict`` and ``from_dict`` of ``BitConfig`` define
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from bit_ref.hub import Place, PushToHub, make_folder, read_json, require_hub_options, to_json, write_text

CONFIG_FILE = "config.json"


class ConfigFiles(PushToHub):
    """The base of ``BitConfig``."""

    attribute_map: ClassVar[dict[str, str]] = {}
    is_composition: ClassVar[bool] = False

    name_or_path: str
    return_dict: bool

    def to_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def to_diff_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        raise NotImplementedError

    @property
    def use_return_dict(self) -> bool:
        return self.return_dict

    @property
    def _name_or_path(self) -> str:
        return self.name_or_path

    @_name_or_path.setter
    def _name_or_path(self, name: str) -> None:
        self.name_or_path = name

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def get_text_config(self, *arguments: Any, **options: Any) -> Self:
        """Returns itself: there is no config of a text model inside."""
        return self

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set keys, known ones and others. Raises ValueError for the name of a method."""
        for key, value in config_dict.items():
            self._require_no_method(key)
            setattr(self, key, value)

    def update_from_string(self, update_str: str) -> None:
        """Set keys from a text, ``"num_groups=16,note=new"``, each of the kind that its value has.

        Raises ValueError for a key that is not there, or a text that is no such value; TypeError for a key whose
        value is no text, number or truth value.
        """
        for assignment in update_str.split(","):
            key, _, text = assignment.partition("=")
            if not hasattr(self, key):
                raise ValueError(f"key {key} isn't in the original config dict")
            setattr(self, key, _of_kind(getattr(self, key), key, text))

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of ``config.json``; with ``use_diff=False`` also the keys that have the value of every config."""
        return to_json(self.to_diff_dict() if use_diff else self.to_dict())

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        write_text(Path(json_file_path), self.to_json_string(use_diff))

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        config: Self = cls.from_dict(read_json(Path(json_file)))
        return config

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a ``config.json``, and the arguments that do not say where it is."""
        place = Place.take(pretrained_model_name_or_path, kwargs)
        file = Path(place.name) if Path(place.name).is_file() else place.find(CONFIG_FILE)
        return read_json(file), kwargs

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub_options: Any,
    ) -> None:
        """Write ``config.json`` into the folder, which is made where needed."""
        require_hub_options(hub_options)
        folder = make_folder(save_directory)
        write_text(folder / CONFIG_FILE, self.to_json_string())
        self._saved(folder, push_to_hub, repo_id, hub_options)

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    @classmethod
    def _require_no_method(cls, key: str) -> None:
        if callable(getattr(cls, key, None)):
            raise ValueError(f"{key} cannot be a key of {CONFIG_FILE}: {cls.__name__} has a method of that name")


def _of_kind(old: Any, key: str, text: str) -> Any:
    if isinstance(old, bool):
        if (word := text.lower()) not in ("true", "1", "y", "yes", "false", "0", "n", "no"):
            raise ValueError(f"can't derive true or false from {text} (key {key})")
        return word in ("true", "1", "y", "yes")
    if not isinstance(old, (int, float, str)):
        raise TypeError(
            f"You can only update int, float, bool or string values in the config, got {text} for key {key}"
        )
    return type(old)(text)
