"""The files that make a converted folder a model, beside its report and card.

source, Plan → ``write()`` → config.json, preprocessor_config.json; and the weights, one tensor at a time:
model.safetensors, model-00001-of-00002.safetensors … with an index, or in Google's layout NAME.npz
"""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from converters.files import INDEX, WEIGHTS, write_json
from converters.folder.config import json_files
from converters.folder.plan import Plan
from converters.mapping.names import GOOGLE, parameters
from converters.sources import GoogleView
from converters.writers.safetensors import TensorToWrite, write_safetensors
from verify.protocols import Progress
from verify.steps import Steps

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member of an npz: what is written depends on the source alone."""


def write(folder: Path, source: GoogleView, plan: Plan, step: Progress) -> dict[str, str]:
    """Writes all files into an empty folder, the weights tensor by tensor; ``step`` is called with the name of each.

    Returns file → sha256 of safetensors files, computed from what is written while it is. Raises UsageError where the
    layout cannot hold them.
    """
    contents, tensors = json_files(plan), _tensors(source, plan)
    steps = Steps(lambda name, done, total: step(f"writing {name}", done, total), len(tensors))
    homes = weight_files(plan)
    digests: dict[str, str] = {}
    with source.checking():
        for file, names in homes.items():
            of_file = [tensors[name] for name in names]
            if plan.layout == GOOGLE:
                write_npz(folder / file, of_file, steps)
            else:
                digests[file] = write_safetensors(folder / file, of_file, plan.storage.dtype, steps)
    if len(homes) > 1:
        total = sum(math.prod(tensor.shape) for tensor in tensors.values()) * plan.storage.itemsize
        weight_map = {name: file for file, names in homes.items() for name in names}
        contents[INDEX] = {"metadata": {"total_size": total}, "weight_map": weight_map}
    for name, content in contents.items():
        write_json(folder / name, content)
    return digests


def _tensors(source: GoogleView, plan: Plan) -> dict[str, TensorToWrite]:
    """Name → tensor of the folder, in order."""
    storage = plan.storage
    return {
        storage.name(row): TensorToWrite(storage.name(row), storage.shape(row), partial(storage.pieces, row, source))
        for row in parameters(plan.architecture)
    }


def weight_files(plan: Plan) -> dict[str, list[str]]:
    """File → names of its tensors, in order: what a folder's weights are to be kept in, without an index."""
    shapes = {plan.storage.name(p): plan.storage.shape(p) for p in parameters(plan.architecture)}
    if plan.layout == GOOGLE:
        return {f"{plan.name}.npz": list(shapes)}
    return split(shapes, plan.storage.itemsize, plan.storage.max_shard_size or sys.maxsize)


def split(shapes: Mapping[str, tuple[int, ...]], itemsize: int, limit: int) -> dict[str, list[str]]:
    """File → names of its tensors, in order, so that no file's tensors take more than ``limit`` bytes unless alone."""
    groups: list[list[str]] = [[]]
    left = limit
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if groups[-1] and size > left:
            groups.append([])
            left = limit
        groups[-1].append(name)
        left -= size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    stem = WEIGHTS.removesuffix(".safetensors")
    return {f"{stem}-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, start=1)}


def write_npz(path: Path, tensors: Sequence[TensorToWrite], step: Callable[[str], None] = lambda name: None) -> None:
    """Writes float32 tensors as stored members under 128-byte npy headers, as the released files have them."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for tensor in tensors:
            step(tensor.name)
            info = zipfile.ZipInfo(f"{tensor.name}.npy", EPOCH)
            info.external_attr = 0o600 << 16
            info.file_size = 4 * math.prod(tensor.shape)
            header = {"descr": "<f4", "fortran_order": False, "shape": tensor.shape}
            with archive.open(info, "w") as member:
                np.lib.format.write_array_header_1_0(member, header)
                for piece in tensor.pieces(tensor.shape[0]):
                    values = np.empty((piece.rows.stop - piece.rows.start, *tensor.shape[1:]), "<f4")
                    piece.put(values)
                    member.write(values.data)
