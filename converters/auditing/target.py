"""A converted folder as the target of an audit: what it stores, what it must store, and who reads it.

folder, source → Folder → verify.audit
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from converters.auditing.effective_values import effective
from converters.auditing.inspection import inspect_folder
from converters.auditing.inspection.fates import Notes
from converters.catalogue.variants import Variant
from converters.errors import UsageError
from converters.file_changes import FileChanges, loaded_files
from converters.files import CONFIG, WEIGHTS, model_files, read_json, sha256
from converters.folder.plan import Plan
from converters.folder.stored_weights import Weights, open_weights
from converters.mapping.dtypes import DTYPES, widened
from converters.mapping.layouts import LAYOUTS, NPZ, STANDARDIZATION_EPSILON, TRANSFORMERS, Exact, Layout
from converters.mapping.names import GOOGLE, Parameter, TensorKind, nearest, parameters
from converters.mapping.storage import Storage
from converters.placing import temporary_folder
from converters.sources import GoogleView
from converters.sources.declared import said_by
from verify.precision import DEFAULT, Computing
from verify.protocols import Correspondence, Expectation, Inspected, PoolPadding, Reader, Source
from verify.reader_apart import BitRefApart, ReaderProcess
from verify.readers import STOCK_EPSILON, BitRefReader, TimmReader, TransformersReader

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]

STOCK: dict[str, type[TransformersReader | TimmReader]] = {"transformers": TransformersReader, "timm": TimmReader}
"""Layout → the library that loads it by itself."""

LEAST_FLOAT16_SPREAD = 2.5e-4
"""Standard deviation of kernels below which a run in float16 is not judged: PyTorch rounds the mean of each kernel to
float16, whose numbers near zero lie 2⁻²⁴ apart, so that it is off by a quarter of float16's own rounding or more."""


class Folder:
    """A folder in any layout that is written, held against a source. Open with ``with``.

    ``choose_readers`` gives the libraries that run it, the declared one first. ``variant`` and ``pool_padding`` are
    what is known of the source beside its tensors. ``digests`` are the sha256 of files, as far as they are known.
    ``as_loaded`` compares what the installed library gets from the folder, too: labels and prepared images.
    ``verify_key`` is a PEM file with the public key that the folder must be signed by.
    Raises CheckpointError where config.json or the weights cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        source: GoogleView,
        choose_readers: Callable[[Folder], Sequence[Reader]],
        *,
        variant: Variant | None = None,
        pool_padding: PoolPadding | None = None,
        digests: Mapping[str, str] = MappingProxyType({}),
        as_loaded: bool = False,
        verify_key: Path | None = None,
    ) -> None:
        self.folder, self.path, self.source = folder, str(folder), source
        self._file_changes = FileChanges(lambda: loaded_files(folder))
        self._variant, self._pool_padding, self._as_loaded = variant, pool_padding, as_loaded
        self._verify_key = verify_key
        self._digests, self._choose_readers = digests, choose_readers
        self._copy = ExitStack()
        self._wanted = parameters(source.architecture)
        self.weights: Weights = open_weights(folder)
        self.parameters = self.weights.shapes
        self.form = self._recognise()
        self.layout = self.form.name
        needed = self.form.name in STOCK or (folder / CONFIG).is_file()
        self.config = read_json(folder / CONFIG) if needed else {}
        self.dtype = self.weights.dtype

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.weights.close()
        self._copy.close()

    @cached_property
    def storage(self) -> Storage:
        """The storage of a conversion with this folder's declarations."""
        return Storage(self.layout, self.exact, self.dtype)

    @cached_property
    def plan(self) -> Plan:
        """The plan of a conversion of the source into this folder's layout and dtype."""
        return Plan.of(self.source, self._variant, self.storage, self._pool_padding)

    @cached_property
    def inspection(self) -> Notes:
        """The files' fields, compared with that plan."""

        def digest(path: Path) -> str:
            return self.files.get(path.name) or sha256(path)

        return inspect_folder(self.folder, self.plan, self.weights, self.source.sha256, self._verify_key, digest)

    @cached_property
    def judged_by(self) -> Source:
        """The source as this folder's dtype rounds it."""
        return self.source if self.dtype == "float32" else RoundedSource(self.source, self.storage)

    @cached_property
    def kernel_spread(self) -> float:
        """The least standard deviation of a stored kernel, each tensor's being that of its median output channel."""

        def spread(name: str) -> float:
            values = widened(self.weights.read(name), self.dtype)
            return float(np.median(values.reshape(len(values), -1).std(axis=1)))

        kernels = (self.form.parameter_name(p) for p in self._wanted if p.kind is TensorKind.KERNEL)
        return min((spread(name) for name in kernels if name in self.weights.shapes), default=0.0)

    @cached_property
    def for_libraries(self) -> Path:
        """The folder that libraries are given: this one, or where its weights are a pickle, which they would load by
        themselves, a copy that holds what was read of it; gone when this is closed."""
        if self.misleading or self.weights.file_names[0].endswith(".safetensors"):
            return self.folder
        from ml_dtypes import bfloat16
        from safetensors.numpy import save_file

        copy = self._copy.enter_context(temporary_folder("bit-verify-"))
        for path in self.folder.glob("*.json"):
            if path.is_file() and not path.name.endswith(".index.json"):
                shutil.copy(path, copy)
        stored = {name: self.weights.read(name) for name in self.weights.shapes}
        bits = DTYPES["bfloat16"].storage
        tensors = {name: values.view(bfloat16) if values.dtype == bits else values for name, values in stored.items()}
        save_file(tensors, copy / WEIGHTS, metadata={"format": "pt"})
        return copy

    @cached_property
    def readers(self) -> Sequence[Reader]:
        """Chosen when they are first asked for: by then the folder has been inspected."""
        return self._choose_readers(self)

    @property
    def expectations(self) -> Sequence[Expectation]:
        """The expected values of the files' fields, and of what the library gets from them."""
        return [*self.inspection.expectations, *self._effective]

    @cached_property
    def _effective(self) -> Sequence[Expectation]:
        if not self._as_loaded or self.misleading or self.inspection.unmet:
            return ()
        return effective(self.for_libraries, self.plan)

    @property
    def inspected(self) -> Sequence[Inspected]:
        return self.inspection.inspected

    @property
    def misleading(self) -> str:
        """A config.json that is not as it must be is no library's business either: who knows what it makes of it."""
        return self.inspection.misleading or (f"{CONFIG} is not as it must be" if self.inspection.wrong(CONFIG) else "")

    @cached_property
    def exact(self) -> Exact:
        """The folder's exactness: ``logits`` where config.json declares it, otherwise ``bits``.

        Libraries drop the declaration when they save a model: then ten times larger kernels beside the epsilon that
        they act upon say the same.
        """
        said = said_by(self.config, self.folder / CONFIG).exact
        declares = "exact" in self.config or self.epsilon != STANDARDIZATION_EPSILON["logits"]
        return said if declares or not self._holds_larger_kernels() else "logits"

    @property
    def epsilon(self) -> Any:
        """The epsilon of standardisation: the declared one, or the one that is hard-coded where the layout is from:
        in its library, or of layouts that no library loads, in Google's code."""
        undeclared = STOCK_EPSILON if self.layout in STOCK else STANDARDIZATION_EPSILON["bits"]
        return self.config.get("weight_standardization_eps", undeclared)

    def _holds_larger_kernels(self) -> bool:
        """Whether the first kernel is stored as ``logits`` would have it, and not as the source has it."""
        row = next(parameter for parameter in self._wanted if parameter.kind is TensorKind.KERNEL)
        name, values = self.form.parameter_name(row), self.source.read(row.names[GOOGLE])
        if name not in self.weights.shapes:
            return False
        stored, same = self.weights.read(name), Storage(self.layout, "bits", self.dtype)
        larger = replace(same, exact="logits").values(row, values)
        return np.array_equal(stored, larger) and not np.array_equal(stored, same.values(row, values))

    @cached_property
    def correspondences(self) -> Sequence[Correspondence]:
        return [self._correspondence(parameter) for parameter in self._wanted]

    @cached_property
    def files(self) -> Mapping[str, str]:
        """The digests before anything runs; ``changes()`` finds later differences. The source is read meanwhile, for
        its own."""
        with self.source.hashing():
            return {
                name: self._digests.get(name) or self._file_changes.digest(name) or sha256(self.folder / name)
                for name in model_files(self.folder)
            }

    def changes(self) -> dict[str, str]:
        """Files that are not what they were when the folder was opened, and what happened to each."""
        return self._file_changes.changes()

    @property
    def loads_itself(self) -> bool:
        """Whether bit_ref may load the folder: it has safetensors, and a config.json that is as it must be."""
        return not self.misleading and self.weights.file_names[0].endswith(".safetensors")

    @property
    def has_head(self) -> bool:
        """Whether the source has one; that the folder says and holds the same is examined by itself."""
        return self.source.architecture.classes is not None

    def bit_ref_config(self) -> dict[str, Any]:
        """The fields of bit_ref's config for this folder."""
        architecture = self.source.architecture
        return {
            "embedding_size": architecture.root_width,
            "hidden_sizes": [4 * width for width in architecture.widths],
            "depths": list(architecture.units),
            "num_labels": architecture.classes or 0,
            "weight_standardization_eps": self.epsilon,
            "pool_padding": self.config.get("pool_padding", "zeros"),
        }

    def bit_ref_state(self) -> dict[str, Tensor]:
        """The stored values, in float32, under bit_ref's names. Raises KeyError for a tensor that is not there."""
        import torch

        def value(parameter: Parameter) -> Array:
            stored = widened(self.weights.read(self.form.parameter_name(parameter)), self.dtype)
            return TRANSFORMERS.store(parameter, self.form.restore(parameter.kind, stored), "bits")

        return {TRANSFORMERS.parameter_name(p): torch.from_numpy(value(p).copy()) for p in self._wanted}

    def _recognise(self) -> Layout:
        if self.weights.is_npz:
            return NPZ
        return LAYOUTS[nearest(self.weights.shapes, [name for name in LAYOUTS if name != NPZ.name])]

    def _correspondence(self, parameter: Parameter) -> Correspondence:
        name, target = parameter.names[GOOGLE], self.form.parameter_name(parameter)

        def expected() -> Array:
            return self.storage.values(parameter, self.source.read(name))

        def holds(stored: Array) -> bool:
            return self.storage.holds(parameter, self.source, stored)

        return Correspondence(name, target, expected, lambda: self.weights.read(target), holds)


class RoundedSource:
    """A source whose values are what a folder of another dtype stores of them: what that folder is judged by."""

    def __init__(self, source: GoogleView, storage: Storage) -> None:
        self._source, self._storage = source, storage
        self._parameters = {row.names[GOOGLE]: row for row in parameters(source.architecture)}
        self.path, self.location, self.format = source.path, source.location, source.format
        self.sha256, self.shapes = source.sha256, source.shapes

    def read(self, name: str) -> Array:
        """As ``Storage.kept`` has it."""
        return self._storage.kept(self._parameters[name], self._source.read(name))


class RemappedReader(BitRefReader):
    """bit_ref on a folder in a layout that it does not load by itself."""

    def __init__(self, target: Folder, epsilon: float | None, computing: Computing) -> None:
        super().__init__(target.folder, epsilon, computing, target.has_head)
        self._target = target

    def _load(self) -> Any:
        import torch

        from bit_ref import BitConfig, BitForImageClassification, BitModel

        config = BitConfig(**self._target.bit_ref_config() | self._overrides)
        with torch.device("meta"):
            model = (BitForImageClassification if config.num_labels else BitModel)(config)
        model.load_state_dict(self._target.bit_ref_state(), assign=True)
        return model


def own_readers(folder: Folder, process: ReaderProcess | None = None) -> list[Reader]:
    """Returns the readers of a conversion: bit_ref, or of ``logits`` the stock library; and the other beside it.

    Stock arithmetic is bit_ref's imitation, which computes what transformers and timm do: so the figures that are
    published do not depend on what is installed. They compute in ``process``, where one is given and they can.
    """
    if folder.layout not in STOCK:
        return [_bit_ref(folder)]
    readers = [_bit_ref(folder, epsilon, process=process) for epsilon in (None, STOCK_EPSILON)]
    return readers if folder.exact == "bits" else readers[::-1]


def audit_readers(folder: Folder, runners: Sequence[str] = (), computing: Computing = DEFAULT) -> list[Reader]:
    """Returns the readers of a folder of unknown origin: the declared one, and the ``runners`` that were asked for.

    A folder that declares no epsilon is judged as its stock library reads it. Without ``runners``, the stock library is
    beside a declared bit_ref, or bit_ref beside a declared library. Raises UsageError for a runner that is installed
    and does not load folders in this layout.
    """
    readers = _default_readers(folder, computing)
    if not runners:
        return readers
    for name in runners:
        if name in STOCK and name != folder.layout and STOCK[name].available():
            raise UsageError(f"{folder.folder}: {name} does not load the {folder.layout} layout. Leave out --runner.")
    asked = [RUNNERS[name](folder, computing) for name in dict.fromkeys(runners)]
    return [readers[0], *(reader for reader in asked if reader.name != readers[0].name)]


def _default_readers(folder: Folder, computing: Computing) -> list[Reader]:
    own = _bit_ref(folder, computing=computing)
    if folder.layout not in STOCK:
        return [own]
    declares = "weight_standardization_eps" in folder.config
    stock = _stock(folder, computing)
    readers = [own, *stock] if folder.exact == "bits" and declares else [*stock, own]
    return [*readers, *_half(folder, computing)]


def _half(folder: Folder, computing: Computing) -> list[Reader]:
    """transformers loads what is stored in a half precision to compute in it, unless the folder says otherwise."""
    declared = folder.config.get("dtype", folder.config.get("torch_dtype", folder.dtype))
    library = STOCK[folder.layout]
    loads_half = library is TransformersReader and declared == folder.dtype != "float32" and library.available()
    if not loads_half or folder.misleading or computing.precision != "float32":
        return []
    if folder.dtype == "float16" and folder.kernel_spread < LEAST_FLOAT16_SPREAD:
        return []
    return [_library(library, folder, Computing(folder.dtype, computing.device))]


def _bit_ref(
    folder: Folder,
    epsilon: float | None = None,
    computing: Computing = DEFAULT,
    process: ReaderProcess | None = None,
) -> Reader:
    """``process`` computes in float32 on the CPU alone."""
    if folder.layout != TRANSFORMERS.name or not folder.loads_itself:
        return RemappedReader(folder, epsilon, computing)
    if process is not None:
        return BitRefApart(process, folder.folder, epsilon, folder.has_head)
    return BitRefReader(folder.folder, epsilon, computing, folder.has_head)


def _stock(folder: Folder, computing: Computing = DEFAULT) -> list[Reader]:
    """The library that loads the folder, where it is installed, or else bit_ref's imitation; both where it may not be
    given the folder."""
    library = STOCK[folder.layout]
    imitation = _bit_ref(folder, STOCK_EPSILON, computing)
    if not library.available():
        return [imitation]
    reader = _library(library, folder, computing)
    return [imitation, reader] if folder.misleading else [reader]


def _library(library: type[TransformersReader | TimmReader], folder: Folder, computing: Computing) -> Reader:
    return library(folder.for_libraries, computing, folder.has_head, folder.dtype)


RUNNERS: Mapping[str, Callable[[Folder, Computing], Reader]] = {
    "bit_ref": lambda folder, computing: _bit_ref(folder, None, computing),
    "stock-arithmetic": lambda folder, computing: _bit_ref(folder, STOCK_EPSILON, computing),
    "transformers": lambda folder, computing: _library(TransformersReader, folder, computing),
    "timm": lambda folder, computing: _library(TimmReader, folder, computing),
}
"""The libraries that an audit can be asked to run, by name."""
