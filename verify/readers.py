"""Readers of a folder: bit_ref, stock transformers, stock timm.

Each names its modules in one way, so one set of hooks takes the trunk's tensors from any. A model is loaded at the
first image and let go by ``close``. A stock library is run as a user runs it: it is given the folder and nothing else,
never runs code that lies in it, and asks the network for nothing and the user for nothing.

    folder → library's own from_pretrained → hooks → {"root", "block1/unit01", …, "norm", "features", "logits"}
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.precision import DEFAULT, Computing
from verify.protocols import Expectation

if TYPE_CHECKING:
    import torch

    from verify.protocols import Array, Image

STOCK_EPSILON = 1e-8
"""The epsilon that transformers and timm hard-code when they standardise BiT's kernels."""


class _TorchReader:
    """A reader of a PyTorch model.

    ``trunk`` names its modules: stem, what is before the number of a stage and of a unit, last norm, pooling. The model
    is a trunk of its own, or has it under ``bit.``.
    """

    trunk = ("embedder", "encoder.stages.", ".layers.", "norm", "pooler")

    modules: tuple[str, ...] = ("torch", "bit_ref.model")
    """The modules that take long to import."""

    stock = False
    epsilon: float | None = None

    def __init__(
        self, folder: str | Path, name: str, computing: Computing = DEFAULT, has_head: bool | None = None
    ) -> None:
        self.folder = Path(folder)
        self.computing = computing
        self._name = name
        self._knows_head = has_head
        self._model: torch.nn.Module | None = None

    @property
    def name(self) -> str:
        return f"{self._name}{self.computing}"

    @property
    def unit(self) -> float:
        return self.computing.unit

    @property
    def largest(self) -> float:
        return self.computing.largest

    @property
    def effective(self) -> Sequence[Expectation]:
        return ()

    def prepare(self) -> None:
        """Imports PyTorch, and the library."""
        for module in self.modules:
            import_module(module)

    def run(self, images: Image) -> Mapping[str, Array]:
        """One image or a batch through the model, contiguous NCHW."""
        with self._running() as model, _tapped(model, self.trunk) as taken:
            output = model(self._tensor(images))
            if self._has_head:
                taken["logits"] = _logits(output)
        return taken

    def logits(self, images: Image) -> Array:
        """The logits of a batch, (n, classes), of a model with a head."""
        with self._running() as model:
            return _logits(model(self._tensor(images)))

    @contextmanager
    def _running(self) -> Iterator[torch.nn.Module]:
        """The model, which is loaded where it is not yet, with the settings that it computes by."""
        import torch

        with ALONE if self.stock else nullcontext():
            if self._model is None:
                self._model = self._load().to(self.computing.device, self.computing.dtype).eval()
            with torch.inference_mode(), self.computing.applied():
                yield self._model

    def _tensor(self, images: Image) -> torch.Tensor:
        import torch

        return torch.from_numpy(images.copy()).to(self.computing.device, self.computing.dtype)

    def close(self) -> None:
        self._model = None

    def _load(self) -> torch.nn.Module:
        raise NotImplementedError

    @cached_property
    def _has_head(self) -> bool:
        """Whether the model gives logits: known from elsewhere, or as config.json has it."""
        return self._declares_head() if self._knows_head is None else self._knows_head

    def _declares_head(self) -> bool:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return "BitModel" not in (config.get("architectures") or [])


class BitRefReader(_TorchReader):
    """bit_ref on a folder.

    ``epsilon_override`` makes it standardise with another epsilon than config.json declares, and pad the max-pool
    with zeros: with ``STOCK_EPSILON`` it computes what stock transformers and timm compute, where they are not
    installed.
    """

    def __init__(
        self,
        folder: str | Path,
        epsilon_override: float | None = None,
        computing: Computing = DEFAULT,
        has_head: bool | None = None,
    ) -> None:
        name = "bit_ref" if epsilon_override is None else "bit_ref with transformers' arithmetic"
        super().__init__(folder, name, computing, has_head)
        self.epsilon = epsilon_override

    def run(self, images: Image) -> Mapping[str, Array]:
        with self._running() as model, _without_kept_kernels(model):
            return super().run(images)

    def _load(self) -> torch.nn.Module:
        import torch

        from bit_ref import BitForImageClassification, BitModel

        model = BitForImageClassification if self._has_head else BitModel
        loaded: torch.nn.Module = model.from_pretrained(self.folder, dtype=torch.float32, **self._overrides)
        return loaded

    @property
    def _overrides(self) -> dict[str, Any]:
        """Keys of the config that have another value than config.json says."""
        return {} if self.epsilon is None else {"weight_standardization_eps": self.epsilon, "pool_padding": "zeros"}


class _StockReader(_TorchReader):
    """A library made elsewhere, with an epsilon of its own.

    ``has_head`` is whether the checkpoint has one, ``stored`` what the folder's values are stored in.
    """

    library = ""
    stock = True
    epsilon = STOCK_EPSILON

    def __init__(
        self,
        folder: str | Path,
        computing: Computing = DEFAULT,
        has_head: bool | None = None,
        stored: str = "float32",
    ) -> None:
        super().__init__(folder, self.library, computing, has_head)
        self.stored = stored
        self._found = ""

    @classmethod
    def available(cls) -> bool:
        return all(_found(library) for library in (cls.library, "torch"))

    @property
    def version(self) -> str:
        return str(import_module(self.library).__version__)

    @property
    def effective(self) -> Sequence[Expectation]:
        """The dtype of a plain load: that of the stored values, or float32, which holds all of them."""
        if not self._found:
            return ()
        expected = self._found if self._found in ("float32", self.stored) else self.stored
        return [Expectation(f"{self.library}: dtype of a plain load", expected, self._found)]

    def _load(self) -> torch.nn.Module:
        model = self._plain()
        self._found = str(next(model.parameters()).dtype).removeprefix("torch.")
        return model

    def _plain(self) -> torch.nn.Module:
        """The model as a user gets it."""
        raise NotImplementedError


class TransformersReader(_StockReader):
    """Stock transformers on a folder; ``version`` is the one installed."""

    library = "transformers"
    modules = ("torch", "transformers.models.bit.modeling_bit")

    def _plain(self) -> torch.nn.Module:
        from transformers import AutoModel, AutoModelForImageClassification

        loader = AutoModelForImageClassification if self._has_head else AutoModel
        with quiet():
            model, loading = loader.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
        wrong = {kind: sorted(map(str, keys)) for kind, keys in loading.items() if keys}
        if wrong:
            raise ValueError("; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in wrong.items()))
        loaded: torch.nn.Module = model
        return loaded


class TimmReader(_StockReader):
    """Stock timm on a folder in its layout."""

    library = "timm"
    modules = ("torch", "timm")
    trunk = ("stem", "stages.", ".blocks.", "norm", "head.global_pool")

    def _plain(self) -> torch.nn.Module:
        import timm

        loaded: torch.nn.Module = timm.create_model(f"local-dir:{self.folder}", pretrained=True)
        return loaded

    def _declares_head(self) -> bool:
        return bool(json.loads((self.folder / "config.json").read_text(encoding="utf-8")).get("num_classes"))


def _found(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


ALONE = threading.RLock()
"""Held while a stock library works: it changes settings of the process while it loads a model, as ``quiet`` does."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bar and load report on stderr."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def _tapped(model: torch.nn.Module, trunk: tuple[str, str, str, str, str]) -> Iterator[dict[str, Array]]:
    """A dictionary that fills with the trunk's tensors while the model runs."""
    taken: dict[str, Array] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            taken[name] = _values(output)

        return hook

    modules = dict(model.named_modules())
    hooks = [modules[path].register_forward_hook(keep(name)) for path, name in _trunk_modules(modules, trunk)]
    try:
        yield taken
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def _without_kept_kernels(model: torch.nn.Module) -> Iterator[None]:
    """Inside, each standardised kernel is computed when it is used, to the same bits, and dropped: kept, they would
    take as much memory as the weights. To a convolution alone, the mode means nothing else."""
    from bit_ref.kernel_cache import CachedKernel

    layers = [module for module in model.modules() if isinstance(module, CachedKernel)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


def _trunk_modules(modules: Mapping[str, Any], trunk: tuple[str, str, str, str, str]) -> Iterator[tuple[str, str]]:
    """Module path → name of the tensor it gives, for a model with a head and without."""
    stem, stages, units, norm, pooling = trunk
    prefix = "bit." if f"bit.{stem}" in modules else ""
    yield prefix + stem, "root"
    for path in modules:
        stage, found, unit = path.removeprefix(prefix + stages).partition(units)
        if path.startswith(prefix + stages) and found and unit.isdecimal():
            yield path, f"block{int(stage) + 1}/unit{int(unit) + 1:02d}"
    yield prefix + norm, "norm"
    yield prefix + pooling, "features"


def _logits(output: Any) -> Array:
    return _values(output.logits if hasattr(output, "logits") else output)


def _values(tensor: torch.Tensor) -> Array:
    """A copy: a later module may work in place."""
    values: Array = tensor.detach().to("cpu").float().numpy().copy()
    return values
