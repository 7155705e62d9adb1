"""Files of weights: one safetensors file, or shards and their index, with the names that transformers gives them.

    place → model.safetensors, or model.safetensors.index.json and its shards → name → tensor
    name → tensor → the same files, each whole or not at all

A variant, such as "fp16", is another set of weights in the same folder: ``model.fp16.safetensors``.
"""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from bit_ref.hub import Place, read_json

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def read_weights(place: Place, variant: str | None = None) -> dict[str, Tensor]:
    """Name → tensor, on the CPU, mapped from the file until it is used. Raises OSError for unreadable files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    whole = _named(WEIGHTS_FILE, variant)
    first = place.find(whole, _named(INDEX_FILE, variant))
    stored: dict[str, Tensor] = {}
    for file in [first] if first.name == whole else _shards(place.pinned(first), first):
        try:
            tensors = load_file(file)
        except (SafetensorError, ValueError) as error:
            raise OSError(f"{file.name} of {place} is not readable, fetch it again: {error}") from error
        if twice := sorted(stored.keys() & tensors.keys()):
            raise OSError(f"{file.name} of {place} has {', '.join(twice)}, which another file of weights has, too")
        stored.update(tensors)
    return stored


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], max_shard_size: int | str, variant: str | None = None
) -> None:
    """Each file appears whole or not at all; those of an earlier save of the same variant are gone afterwards."""
    from huggingface_hub import save_torch_state_dict

    pattern = _named("model{suffix}.safetensors", variant)
    with tempfile.TemporaryDirectory(prefix=".weights-", dir=folder) as temporary:
        save_torch_state_dict(dict(tensors), temporary, filename_pattern=pattern, max_shard_size=max_shard_size)
        for index in Path(temporary).glob("*.index.json"):
            index.rename(index.with_name(_named(INDEX_FILE, variant)))
        new = sorted(Path(temporary).iterdir(), key=lambda file: file.name.endswith(".json"))
        mode = _usual_mode(Path(temporary))
        for file in new:
            file.chmod(mode)
            file.replace(folder / file.name)
    shards = folder.glob(pattern.format(suffix="-*-of-*"))
    old = {folder / _named(WEIGHTS_FILE, variant), folder / _named(INDEX_FILE, variant), *shards}
    for file in old - {folder / file.name for file in new}:
        file.unlink(missing_ok=True)


def _named(name: str, variant: str | None) -> str:
    """The name of that file for a variant, which comes before the last ending."""
    if variant is None:
        return name
    if not variant or not all(letter.isalnum() or letter in "-_" for letter in variant):
        raise ValueError(f"variant={variant!r} is no part of a file's name: letters, digits, - and _ are")
    stem, dot, ending = name.rpartition(".")
    if "{suffix}" in stem:
        return stem.replace("{suffix}", f".{variant}{{suffix}}") + dot + ending
    return f"{stem}.{variant}.{ending}"


def _shards(place: Place, index: Path) -> list[Path]:
    """The files that an index names, each in the same folder as the index."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise OSError(f"{index.name} of {place} names no file of weights")
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise OSError(f"{index.name} of {place} names {name!r}, which is no safetensors file beside it")
    return [place.find(name) for name in sorted(set(names.values()))]


def _usual_mode(folder: Path) -> int:
    """The permissions of a new file as the umask leaves them: safetensors makes its own for the owner alone."""
    probe = folder / "probe"
    probe.touch(exist_ok=False)
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    return mode
