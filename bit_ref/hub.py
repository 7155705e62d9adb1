"""Files are read from and written to a local folder, or a repository of the Hub through huggingface_hub.

Nothing here knows what is in a file, and nothing needs PyTorch.

    name or path → Place → the path of one file
    object with save_pretrained → temporary folder → create_repo, upload_folder
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


MAX_JSON = 16 << 20
"""Bytes of a JSON file; a config.json with 21,843 labels has 2.5 MB."""


HUB_OPTIONS = {"commit_description", "commit_message", "create_pr", "private", "revision", "token"}
"""Arguments of ``push_to_hub``, which say nothing where nothing is published."""


class _Missing(Exception):
    """A place has no such file; the message names both."""


@dataclass(frozen=True)
class Place:
    """A folder of this machine, or else a repository of the Hub at one revision; arguments as transformers has."""

    name: str
    subfolder: str = ""
    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False
    token: str | bool | None = None
    revision: str | None = None

    @classmethod
    def take(cls, name: str | os.PathLike[str], options: dict[str, Any]) -> Place:
        """The place that ``options`` describe, whose own keys are taken out of it.

        Raises ValueError for ``proxies`` where they would be needed, since huggingface_hub takes none.
        """
        own = {key: options.pop(key) for key in cls.__dataclass_fields__ if key != "name" and key in options}
        place = cls(os.fspath(name), **{key: value for key, value in own.items() if value is not None})
        if options.pop("proxies", None) and not place.is_local:
            raise ValueError("proxies= is not followed by huggingface_hub: set HTTPS_PROXY in the environment instead")
        return place

    @property
    def is_local(self) -> bool:
        return Path(self.name).is_dir()

    def __str__(self) -> str:
        return str(Path(self.name, self.subfolder)) if self.is_local else self.name

    def find(self, *names: str) -> Path:
        """The first of the files that is there. Raises OSError where none is, or the place cannot be read."""
        missing: _Missing | None = None
        for name in names:
            try:
                return self._find(name)
            except _Missing as error:
                missing = error
        why = f"{self} has no {' or '.join(names)}{missing}"
        if self.is_local and Path(self.name, self.subfolder, "pytorch_model.bin").exists():
            why += ": it holds pytorch_model.bin, a pickle, which is never read; save the model as safetensors first"
        raise OSError(why) from missing

    def pinned(self, file: Path) -> Place:
        """The same place at the very commit that ``file`` was found in, so that all files are of one commit."""
        commits = re.findall(r"[\\/]snapshots[\\/]([0-9a-f]{40})[\\/]", os.fspath(file))
        return self if self.is_local or not commits else replace(self, revision=commits[-1])

    def _find(self, name: str) -> Path:
        if self.is_local:
            file = Path(self.name, self.subfolder, name)
            if not file.is_file():
                raise _Missing("")
            return file

        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(
                hf_hub_download(
                    self.name,
                    name,
                    subfolder=self.subfolder or None,
                    cache_dir=self.cache_dir,
                    force_download=self.force_download,
                    local_files_only=self.local_files_only,
                    token=self.token,
                    revision=self.revision,
                )
            )
        except LocalEntryNotFoundError as error:
            raise _Missing(" in the cache, and the Hub was not to be asked, or could not be") from error
        except EntryNotFoundError as error:
            raise _Missing("") from error
        except HFValidationError as error:
            raise OSError(f"{self.name} is neither a folder nor the name of a repository on the Hub") from error


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises OSError, naming the file, for anything else."""
    if file.stat().st_size > MAX_JSON:
        raise OSError(f"{file.name} is larger than that of any model")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(f"{file.name} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise OSError(f"{file.name} holds no JSON object")
    return content


def to_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True, default=_of_numpy) + "\n"


def _of_numpy(value: Any) -> Any:
    """The number or the lists that a number or an array of NumPy is in JSON."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"{value!r:.80} cannot be written as JSON")
    return value.tolist()


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made where it is not there yet. Raises NotADirectoryError where a file is in the way."""
    folder = Path(path)
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file; save_pretrained wants a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def require_hub_options(options: Mapping[str, Any]) -> None:
    """Raises TypeError for an argument of ``save_pretrained`` that is none, before anything is written."""
    if unknown := options.keys() - HUB_OPTIONS:
        raise TypeError(f"save_pretrained got unexpected arguments: {', '.join(sorted(unknown))}")


def write_text(file: Path, text: str) -> None:
    """The file appears whole or not at all."""
    temporary = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


class PushToHub:
    """Publishing for everything that can be saved in a folder."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> Any:
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **save_options: Any,
    ) -> CommitInfo:
        """Save into a repository of the Hub, which is made where it is not there yet; one commit.

        ``revision`` is a branch, made as well; ``save_options`` go to ``save_pretrained``.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **save_options)
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None and not revision.startswith("refs/pr/"):
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
            )

    def _saved(
        self, folder: Path, push_to_hub: bool, repo_id: str | None, hub_options: dict[str, Any], **save_options: Any
    ) -> None:
        """The end of every ``save_pretrained``: published as well, where asked for, with the same ``save_options``."""
        if push_to_hub:
            self.push_to_hub(repo_id or folder.resolve().name, **hub_options, **save_options)
