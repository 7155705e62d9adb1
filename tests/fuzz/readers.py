"""The readers, each with good inputs of one small network, how these are changed, and how they are read."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints import make_checkpoint
from tests.fuzz import mutations
from tests.fuzz.mutations import Bytes

Files = Mapping[str, bytes]
"""Name in the folder → content."""
UNITS, WIDTH, MIDS, CLASSES = (1,), 32, (32,), 2


@dataclass(frozen=True)
class Reader:
    """What is fuzzed. ``seeds`` are good inputs; ``changes`` say which of their files are changed, and how, by the last
    letters of their names; ``read`` reads all of a folder with such files; ``covers`` are the modules that do it."""

    seeds: Callable[[], list[Files]]
    changes: Mapping[str, Bytes]
    read: Callable[[Path], None]
    covers: tuple[str, ...]
    also: tuple[type[Exception], ...] = ()
    """Errors of other layers that this boundary may raise by contract."""
    heavy: bool = field(default=False)
    """Whether it imports TensorFlow, or starts processes."""
    end: Callable[[], object] = lambda: None
    """Ends the processes that it reads in."""


@cache
def tensors() -> dict[str, np.ndarray]:
    return make_checkpoint(UNITS, WIDTH, CLASSES, seed=5, mids=MIDS)


def read_checkpoint(folder: Path) -> None:
    """As a conversion reads it: the one entry of the folder, or the folder."""
    from converters.sources import open_checkpoint

    entries = list(folder.iterdir())
    with open_checkpoint(entries[0] if len(entries) == 1 and entries[0].is_file() else folder) as source:
        for name in source.shapes:
            source.read(name)


def read_tiles(folder: Path) -> None:
    """As a stream reads it, beside its check; half of the inputs."""
    from converters.sources import open_checkpoint

    read_checkpoint(folder)
    with open_checkpoint(next(folder.iterdir())) as source, source.checking():
        for name, shape in source.shapes.items():
            for _ in source.tiles(name, 16) if len(shape) == 4 else ():
                pass


# -- npz


def npz_seeds() -> list[Files]:
    stored, packed = io.BytesIO(), io.BytesIO()
    np.savez(stored, **tensors())
    np.savez_compressed(packed, **tensors(), step=np.int64(3))
    return [{"x.npz": stored.getvalue()}, {"x.npz": packed.getvalue()}]


# -- safetensors and torch


def state() -> dict[str, np.ndarray]:
    from tests.converters.sources.writers import torch_names

    return torch_names(tensors(), "transformers")


def safetensors_seeds() -> list[Files]:
    from safetensors.numpy import save

    halves = dict(list(state().items())[::2]), dict(list(state().items())[1::2])
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {key: name for name, half in zip(names, halves, strict=True) for key in half},
    }
    shards = {name: save(half) for name, half in zip(names, halves, strict=True)}
    return [
        {"model.safetensors": save(state(), {"format": "pt"})},
        {**shards, "model.safetensors.index.json": json.dumps(index).encode()},
    ]


def bin_seeds() -> list[Files]:
    import torch

    def saved(content: Any, zipped: bool = True) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        return buffer.getvalue()

    values = {name: torch.from_numpy(value) for name, value in state().items()}
    training = {
        "epoch": 3,
        "model": values,
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    return [
        {"pytorch_model.bin": saved(values)},
        {"x.pth.tar": saved(training)},
        {"x.pth": saved(values, zipped=False)},
    ]


def torch_file(content: bytes, random: Any) -> bytes:
    if content[:2] == b"PK":
        return mutations.zipped(
            lambda data, r: mutations.pickled(data, r) if data[:1] == b"\x80" else mutations.some_bytes(data, r)
        )(content, random)
    return mutations.legacy_torch(content, random)


# -- HDF5


def read_h5(folder: Path) -> None:
    """One file of ``apart.WHOLE`` as a conversion reads it, the others without a process for each."""
    from tests.fuzz import apart

    (path,) = folder.iterdir()
    if next(_h5_files) % apart.WHOLE == 0:
        read_checkpoint(folder)
    else:
        _h5_apart().read(path)


_h5_files = itertools.count()


@cache
def _h5_apart() -> Any:
    """Imports what its processes need before they are forked."""
    import h5py  # noqa: F401

    import converters.sources.keras  # noqa: F401
    from tests.fuzz.apart import ReaderApart

    return ReaderApart()


def h5_seeds() -> list[Files]:
    """Files of ``save_weights`` and of both later formats, which number the variables of a layer."""
    packed = {"compression": "gzip", "shuffle": True, "fletcher32": True}
    later = _h5_written(_numbered, {})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": []}}))
        members.writestr("model.weights.h5", later)
    first = [{"x.h5": _h5_written(_layered, options)} for options in ({}, packed)]
    return [*first, {"x.weights.h5": later}, {"x.keras": archive.getvalue()}]


def _h5_written(write: Callable[[Any, dict[str, np.ndarray], dict[str, Any]], None], options: dict[str, Any]) -> bytes:
    import h5py

    from converters.mapping.names import infer, parameters

    rows = parameters(infer({name: value.shape for name, value in tensors().items()}, "npz", ""))
    values = {}
    for parameter in sorted(rows, key=_place):
        name, value = parameter.names["keras"], tensors()[parameter.names["npz"]]
        values[name] = value[0, 0] if "dense/kernel" in name else value
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write(file, values, options)
    return buffer.getvalue()


def _layered(file: Any, values: dict[str, np.ndarray], options: dict[str, Any]) -> None:
    layers: dict[str, list[str]] = {}
    for name in values:
        layers.setdefault(name.rpartition("/")[0], []).append(name)
    file.attrs["layer_names"] = [layer.encode() for layer in layers]
    for layer, names in layers.items():
        group = file.create_group(layer)
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name in names:
            group.create_dataset(name, data=values[name], **options)


def _numbered(file: Any, values: dict[str, np.ndarray], options: dict[str, Any]) -> None:
    for layer, is_head in (("keras_layer", False), ("dense", True)):
        variables = file.create_group(f"layers/{layer}/vars")
        for number, value in enumerate(value for name, value in values.items() if ("dense" in name) == is_head):
            variables.create_dataset(str(number), data=value, **options)


def _place(row: Any) -> int:
    """Keras's order: root, unit, end; in the only unit the projection last."""
    if "/unit" not in row.canonical:
        return 0 if "root" in row.canonical else 3
    return 2 if "/proj/" in row.canonical else 1


def h5_bytes(content: bytes, random: Any) -> bytes:
    """Anywhere but in the values: HDF5's structures lie between them."""
    place = random.choice(_h5_places(content)) if random.random() < 0.9 else random.randrange(len(content))
    piece = content[place : place + 256]
    changed = mutations.some_bytes(piece, random)
    return (
        content[:place]
        + (changed[: len(piece)].ljust(len(piece), b"\0") if random.random() < 0.8 else changed)
        + content[place + 256 :]
    )


def h5_or_json(content: bytes, random: Any) -> bytes:
    """A member of a ``.keras`` archive."""
    return h5_bytes(content, random) if content[:4] == H5_MARKS[0] else mutations.json_text(content, random)


@cache
def _h5_places(content: bytes) -> list[int]:
    return [place for place in range(0, len(content), 8) if content[place : place + 4] in H5_MARKS] or [0]


H5_MARKS = (
    b"\x89HDF",
    b"TREE",
    b"HEAP",
    b"SNOD",
    b"OHDR",
    b"OCHK",
    b"GCOL",
    b"FRHP",
    b"BTHD",
    b"\x01\x00\x04\x00",
    b"\x01\x00\x08\x00",
    b"\x01\x00\x02\x00",
)


# -- TensorFlow


def tf_seeds() -> list[Files]:
    """A checkpoint of TensorFlow 1, written without TensorFlow."""
    data, entries = b"", []
    for name, value in sorted(tensors().items()):
        raw = value.tobytes()
        shape = b"".join(_text(2, _number(1, size)) for size in value.shape)
        masked = _masked(mutations.crc32c(raw))
        record = (
            _number(1, 1)
            + _text(2, shape)
            + _number(4, len(data))
            + _number(5, len(raw))
            + b"\x35"
            + struct.pack("<I", masked)
        )
        entries.append((name.encode(), record))
        data += raw
    header = _number(1, 1) + _text(3, _number(1, 1))
    return [{"x.ckpt.index": mutations.table_of([(b"", header), *entries]), "x.ckpt.data-00000-of-00001": data}]


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _number(tag: int, value: int) -> bytes:
    return mutations.varint(tag << 3) + mutations.varint(value)


def _text(tag: int, value: bytes) -> bytes:
    return mutations.varint(tag << 3 | 2) + mutations.varint(len(value)) + value


def graph_seeds() -> list[Files]:
    """A SavedModel of TensorFlow 1: its graph is the network."""
    from tempfile import TemporaryDirectory

    from tests.converters.sources.writers import tf1_hub_module

    with TemporaryDirectory() as place:
        folder = tf1_hub_module(tensors(), Path(place) / "module", True)
        return [{str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}]


def read_graph(folder: Path) -> None:
    from converters.sources import open_checkpoint
    from verify.oracles.graph import GraphOracle

    with open_checkpoint(folder) as source:
        for _ in GraphOracle(source).layers([np.zeros((1, 3, 33, 33), np.float32)]):
            pass


# -- archives


def archive_seeds() -> list[Files]:
    def packed(format_: int, gz: bool) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=format_) as archive:
            for name, content in (
                *safetensors_seeds()[0].items(),
                ("config.json", b"{}"),
                ("a" * 120 + "/README", b"x"),
            ):
                member = tarfile.TarInfo("module/" + name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return gzip.compress(buffer.getvalue(), 1, mtime=0) if gz else buffer.getvalue()

    return [{"x.tar.gz": packed(tarfile.PAX_FORMAT, True)}, {"x.tar": packed(tarfile.GNU_FORMAT, False)}]


# -- JSON of folders


def folder_seeds() -> list[Files]:
    from converters.folder.config import model_config, preprocessor_config, timm_config

    plan = _plan()
    config = json.loads(json.dumps(model_config(plan)))
    weights = safetensors_seeds()[0]["model.safetensors"]
    beside = json.dumps(preprocessor_config(plan.preprocessing)).encode()
    timm = json.dumps(timm_config(_plan("timm"))).encode()
    return [
        {"model.safetensors": weights, "config.json": json.dumps(config).encode(), "preprocessor_config.json": beside},
        {
            "model.safetensors": weights,
            "config.json": timm,
            "processor_config.json": json.dumps({"image_processor": json.loads(beside)}).encode(),
        },
    ]


@cache
def _plan(layout: str = "transformers") -> Any:
    from converters.folder.plan import Plan
    from converters.mapping.architecture import Architecture
    from converters.mapping.storage import Storage

    network = Architecture(UNITS, WIDTH, MIDS, CLASSES)
    return Plan("tiny", network if layout != "timm" else Architecture.released("R50x1", CLASSES), None, Storage(layout))


def read_folder(folder: Path) -> None:
    """As an audit reads what lies beside the weights, and as bit_ref builds a model of it."""
    from bit_ref import BitForImageClassification
    from converters.auditing.inspection import inspect_folder
    from converters.folder.stored_weights import open_weights
    from converters.sources.declared import declared

    weights = open_weights(folder)
    declared(folder)
    for plan in (_plan(), _plan("timm")):
        inspect_folder(folder, plan, weights)
    with suppress_documented():
        BitForImageClassification.from_pretrained(folder)


def suppress_documented() -> Any:
    """What bit_ref's from_pretrained says that it raises."""
    from contextlib import suppress

    return suppress(OSError, ValueError, RuntimeError, KeyError)


# -- reports and server answers


def report_seeds() -> list[Files]:
    """The report of a folder on its own checkpoint."""
    from tempfile import TemporaryDirectory

    from converters import audit
    from tests.verify.folders import write_folder

    with TemporaryDirectory() as place:
        np.savez(Path(place) / "tiny.npz", **tensors())
        folder = write_folder(Path(place) / "folder", tensors())
        audit(folder, against=Path(place) / "tiny.npz", runners=("bit_ref",), report=Path(place) / "parity")
        return [{"parity.json": (Path(place) / "parity" / "parity.json").read_bytes()}]


def read_report(folder: Path) -> None:
    from converters.auditing.report_check import read_report

    read_report(folder / "parity.json")


def answer_seeds() -> list[Files]:
    headers = {
        "ETag": '"0123456789abcdef"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT", "Content-Length": "1234",
        "Content-Range": "bytes 10-1233/1234", "x-goog-hash": "crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg==",
        "Date": "Wed, 21 Oct 2025 07:28:00 GMT", "Retry-After": "3", "RateLimit": '"api";r=0;t=3',
        "Content-Disposition": 'attachment; filename="x.npz"', "status": "206", "body": "{}",
    }  # fmt: skip
    record = {"etag": '"a"', "modified": None, "validator": '"a"', "total": 5, "md5": None}
    entry = {"sha256": "0" * 64, "size": 1, "mtime_ns": 1, "etag": None, "modified": None, "origin": ""}
    return [
        {
            "answer.json": json.dumps(headers).encode(),
            "partial.json": json.dumps(record).encode(),
            "entry.json": json.dumps(entry).encode(),
        }
    ]


def read_answer(folder: Path) -> None:
    import httpx

    from converters import files
    from converters.download import cache, http, retry

    try:
        said = json.loads((folder / "answer.json").read_bytes())
        headers = [
            (str(k).encode("utf-8", "replace"), str(v).encode("utf-8", "replace")) for k, v in dict(said).items()
        ]
    except (ValueError, TypeError, RecursionError):  # of our own wrapping
        headers = []
    status = 206 if len(headers) % 2 else 200
    response = httpx.Response(status, headers=headers, content=b"", request=httpx.Request("GET", "https://host/x.npz"))
    version = http._version(response)
    http._continued(response, version, 10)
    retry.asked_wait(response.headers)
    for kind, name in ((cache.Version, "partial.json"), (cache.CacheEntry, "entry.json")):
        files.read_record(folder / name, kind)


def errors_of_oracles() -> tuple[type[Exception], ...]:
    from verify.protocols import OracleError

    return (OracleError,)


SOURCES = "converters/sources/"
READERS: dict[str, Reader] = {
    "npz": Reader(npz_seeds, {".npz": mutations.zipped(mutations.npy)}, read_tiles, (SOURCES + "npz.py",
        SOURCES + "zips.py")),
    "h5": Reader(
        h5_seeds,
        {".h5": h5_bytes, ".keras": mutations.zipped(h5_or_json)},
        read_h5,
        (SOURCES + "keras.py", SOURCES + "dense.py"),
        heavy=True,
        end=lambda: _h5_apart().stop(),
    ),
    "safetensors": Reader(
        safetensors_seeds,
        {".safetensors": mutations.safetensors, ".json": mutations.json_text},
        read_checkpoint,
        (SOURCES + "safetensors.py", SOURCES + "shards.py"),
    ),
    "bin": Reader(
        bin_seeds,
        {".bin": torch_file, ".tar": torch_file, ".pth": torch_file},
        read_checkpoint,
        (SOURCES + "torch_bin.py", SOURCES + "torch_pickle.py", SOURCES + "training.py"),
    ),
    "tf": Reader(
        tf_seeds,
        {".index": mutations.table, "-00001": mutations.some_bytes},
        read_checkpoint,
        (SOURCES + "tf_checkpoint.py",),
        heavy=True,
    ),
    "graph": Reader(
        graph_seeds,
        {"saved_model.pb": mutations.message, "tfhub_module.pb": mutations.some_bytes},
        read_graph,
        (SOURCES + "saved_model.py", "verify/oracles/graph/program.py", "verify/oracles/graph/machine.py"),
        also=errors_of_oracles(),
        heavy=True,
    ),
    "archive": Reader(archive_seeds, {".gz": mutations.tar, ".tar": mutations.tar}, read_checkpoint,
        (SOURCES + "archive.py",)),
    "folder": Reader(
        folder_seeds,
        {".json": mutations.json_text},
        read_folder,
        ("converters/files.py", "converters/auditing/inspection/*", "bit_ref/config.py", "bit_ref/pretrained.py"),
    ),
    "report": Reader(report_seeds, {".json": mutations.json_text}, read_report, ("verify/report/parity.py",
        "verify/report/schema.py")),
    "answers": Reader(
        answer_seeds,
        {".json": mutations.json_text},
        read_answer,
        ("converters/download/answers.py", "converters/download/cache.py", "converters/download/retry.py"),
    ),
}  # fmt: skip


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
