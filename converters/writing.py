"""The weights of a folder: one safetensors file, shards with an index, or an npz in Google's layout.

source, Plan → tensors of the layout, one at a time → model.safetensors | model-00001-of-00002.safetensors … | NAME.npz
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.blocks import Room, store
from converters.dtypes import DTYPES
from converters.files import INDEX, WEIGHTS, write_json
from converters.layouts import LAYOUTS
from converters.names import GOOGLE, Parameter, parameters
from converters.plan import Plan
from converters.sources import GoogleView
from converters.stream import write_safetensors
from verify.protocols import Progress

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member of an npz: what is written depends on the source alone."""


def write_weights(folder: Path, source: GoogleView, plan: Plan, step: Progress, hashed: bool) -> dict[str, str]:
    """Writes the weights into an empty folder, tensor by tensor; ``step`` is called with the name of each.

    Returns file → sha256 if ``hashed``, of safetensors files alone.
    """
    layout, wanted = LAYOUTS[plan.layout], parameters(plan.architecture)
    progress = _Counter(step, len(wanted))
    by_name = {layout.parameter_name(parameter): parameter for parameter in wanted}
    shapes = {name: layout.shape(parameter) for name, parameter in by_name.items()}

    def fill(name: str, room: Room) -> None:
        progress(by_name[name].names[GOOGLE])
        store(source, by_name[name], layout, plan.exact, plan.dtype, room)

    homes = weight_files(plan)
    with source.checking():
        if layout.name == GOOGLE:
            for file, names in homes.items():
                _write_npz(folder / file, {name: by_name[name] for name in names}, source, progress)
            return {}
        digests = {
            file: write_safetensors(folder / file, {name: shapes[name] for name in names}, fill, plan.dtype, hashed)
            for file, names in homes.items()
        }
    if len(homes) > 1:
        total = sum(_bytes(shape, DTYPES[plan.dtype].storage.itemsize) for shape in shapes.values())
        weight_map = {name: file for file, names in homes.items() for name in names}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return digests if hashed else {}


def weight_files(plan: Plan) -> dict[str, list[str]]:
    """File → names of its tensors, in order: what a folder's weights are to be kept in, without an index."""
    layout = LAYOUTS[plan.layout]
    shapes = {layout.parameter_name(p): layout.shape(p) for p in parameters(plan.architecture)}
    if layout.name == GOOGLE:
        return {f"{plan.name}.npz": list(shapes)}
    return split(shapes, DTYPES[plan.dtype].storage.itemsize, plan.max_shard_bytes)


def split(shapes: Mapping[str, tuple[int, ...]], itemsize: int, limit: int) -> dict[str, list[str]]:
    """File → names of its tensors, in order, so that no file's tensors take more than ``limit`` bytes unless alone."""
    groups: list[list[str]] = [[]]
    room = limit
    for name, shape in shapes.items():
        size = _bytes(shape, itemsize)
        if groups[-1] and size > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    stem = WEIGHTS.removesuffix(".safetensors")
    return {f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, start=1)}


def _bytes(shape: tuple[int, ...], itemsize: int) -> int:
    return int(np.prod(shape, dtype=np.int64)) * itemsize


def _write_npz(path: Path, wanted: Mapping[str, Parameter], source: GoogleView, progress: _Counter) -> None:
    """Stored members under 128-byte npy headers, as the released files have them."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, parameter in wanted.items():
            progress(name)
            tensor = LAYOUTS[GOOGLE].store(parameter, source.read(name), "bits")
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.external_attr = 0o600 << 16
            info.file_size = tensor.nbytes
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, tensor, version=(1, 0), allow_pickle=False)


class _Counter:
    def __init__(self, step: Progress, total: int) -> None:
        self.step, self.total, self.done = step, total, 0

    def __call__(self, name: str) -> None:
        self.step(f"writing {name}", self.done, self.total)
        self.done += 1
