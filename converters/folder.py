"""A converted folder as the target of an audit: what it stores, what it must store, and who reads it.

folder, source → Folder → verify.audit
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from converters.errors import CheckpointError
from converters.files import CONFIG, VERIFIED, WEIGHTS, read_json, sha256
from converters.layouts import TRANSFORMERS, Exact, Layout
from converters.names import GOOGLE, Parameter, infer, parameters
from verify.protocols import Correspondence, Reader, Source
from verify.readers import STOCK_EPSILON, BitRefReader, TransformersReader

Array = npt.NDArray[Any]


class Folder:
    """A folder in the transformers layout, held against a source. Open with ``with``.

    ``choose_readers`` gives the libraries that run it, the declared one first. Raises CheckpointError where config.json
    or the weights cannot be read.
    """

    layout: Layout = TRANSFORMERS

    def __init__(self, folder: Path, source: Source, choose_readers: Callable[[Folder], Sequence[Reader]]) -> None:
        self.folder = folder
        self.source = source
        self.config = read_json(folder / CONFIG)
        self.readers = choose_readers(self)
        self._weights = _open_safetensors(folder / WEIGHTS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._weights

    @property
    def path(self) -> str:
        return str(self.folder)

    @property
    def exact(self) -> Exact:
        """What the folder says it keeps: ``logits`` where config.json declares it, otherwise the source's bits."""
        return "logits" if self.config.get("exact") == "logits" else "bits"

    @cached_property
    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        names = self._weights.keys()
        return {name: tuple(self._weights.get_slice(name).get_shape()) for name in names}

    @cached_property
    def correspondences(self) -> Sequence[Correspondence]:
        architecture = infer(self.source.shapes, GOOGLE, self.source.path)
        return [self._correspondence(parameter) for parameter in parameters(architecture)]

    @cached_property
    def files(self) -> Mapping[str, str]:
        return {name: sha256(self.folder / name) for name in VERIFIED if (self.folder / name).is_file()}

    def _correspondence(self, parameter: Parameter) -> Correspondence:
        name, target = parameter.names[GOOGLE], self.layout.parameter_name(parameter)

        def expected() -> Array:
            return self.layout.store(parameter, self.source.read(name), self.exact)

        def stored() -> Array:
            values: Array = self._weights.get_tensor(target)
            return values

        return Correspondence(name, target, expected, stored)


def own_readers(folder: Folder) -> list[Reader]:
    """Who judges a conversion: bit_ref, or of ``logits`` the stock library; and the other's arithmetic beside it.

    Stock arithmetic is bit_ref's imitation, which computes what transformers and timm do and is the same wherever it
    runs; only a verdict needs the library itself.
    """
    own = BitRefReader(folder.folder)
    if folder.exact == "bits":
        return [own, BitRefReader(folder.folder, epsilon_override=STOCK_EPSILON)]
    return [_stock_reader(folder), own]


def audit_readers(folder: Folder) -> list[Reader]:
    """Who judges a folder of unknown origin: its declared reader, then every other library that is installed.

    A folder that declares no epsilon is judged as its stock library reads it.
    """
    own = BitRefReader(folder.folder)
    stock = _stock_reader(folder)
    declares_bits = folder.exact == "bits" and "weight_standardization_eps" in folder.config
    return [own, stock] if declares_bits else [stock, own]


def _stock_reader(folder: Folder) -> Reader:
    if TransformersReader.available():
        return TransformersReader(folder.folder)
    return BitRefReader(folder.folder, epsilon_override=STOCK_EPSILON)


def _open_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}. Convert the model anew.") from error
