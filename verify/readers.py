"""Readers of a folder in the transformers layout: bit_ref, and stock transformers.

Both name their modules alike, so one set of hooks takes the trunk's tensors from either. A model is loaded at the
first image and let go by ``close``.

    folder → library's own from_pretrained → hooks → {"root", "block1/unit01", …, "norm", "features", "logits"}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from verify.protocols import Array, Image

STOCK_EPSILON = 1e-8
"""What transformers and timm hard-code when they standardise BiT's kernels."""


class _TorchReader:
    """A reader of a PyTorch model whose modules have transformers' names."""

    def __init__(self, folder: str | Path, name: str) -> None:
        self.folder = Path(folder)
        self._name = name
        self._model: torch.nn.Module | None = None

    @property
    def name(self) -> str:
        return self._name

    def run(self, image: Image) -> Mapping[str, Array]:
        """One image through the model, in float32 on the CPU, contiguous NCHW."""
        import torch

        if self._model is None:
            self._model = self._load().eval()
        with torch.inference_mode(), _tapped(self._model) as taken:
            output = self._model(torch.from_numpy(image.copy()))
            if hasattr(output, "logits"):
                taken["logits"] = _values(output.logits)
        return taken

    def close(self) -> None:
        self._model = None

    def _load(self) -> torch.nn.Module:
        raise NotImplementedError

    def _has_head(self) -> bool:
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return "BitModel" not in (config.get("architectures") or [])


class BitRefReader(_TorchReader):
    """bit_ref on a folder.

    ``epsilon_override`` makes it standardise with another epsilon than config.json declares, and pad the max-pool
    with zeros: with ``STOCK_EPSILON`` it computes what stock transformers and timm compute, where they are not
    installed.
    """

    def __init__(self, folder: str | Path, epsilon_override: float | None = None) -> None:
        super().__init__(folder, "bit_ref" if epsilon_override is None else "bit_ref with transformers' arithmetic")
        self.epsilon_override = epsilon_override

    def _load(self) -> torch.nn.Module:
        from bit_ref import BitConfig, BitForImageClassification, BitModel

        config = BitConfig.from_pretrained(self.folder)
        if self.epsilon_override is not None:
            config.weight_standardization_eps = self.epsilon_override
            config.pool_padding = "zeros"
        model = BitForImageClassification if self._has_head() else BitModel
        loaded: torch.nn.Module = model.from_pretrained(self.folder, config=config)
        return loaded


class TransformersReader(_TorchReader):
    """Stock transformers on a folder; ``version`` is the one installed."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, "transformers")

    @staticmethod
    def available() -> bool:
        return find_spec("transformers") is not None and find_spec("torch") is not None

    @property
    def version(self) -> str:
        import transformers

        return str(transformers.__version__)

    def _load(self) -> torch.nn.Module:
        import torch
        from transformers import AutoModel, AutoModelForImageClassification

        loader = AutoModelForImageClassification if self._has_head() else AutoModel
        with _quiet():
            model, loading = loader.from_pretrained(
                self.folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        wrong = {kind: sorted(map(str, keys)) for kind, keys in loading.items() if keys}
        if wrong:
            raise ValueError("; ".join(f"{kind}: {', '.join(keys[:3])}" for kind, keys in wrong.items()))
        loaded: torch.nn.Module = model
        return loaded


@contextmanager
def _quiet() -> Iterator[None]:
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
def _tapped(model: torch.nn.Module) -> Iterator[dict[str, Array]]:
    """A dictionary that fills with the trunk's tensors while the model runs."""
    taken: dict[str, Array] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            taken[name] = _values(output)

        return hook

    modules = dict(model.named_modules())
    hooks = [modules[path].register_forward_hook(keep(name)) for path, name in _trunk_modules(modules)]
    try:
        yield taken
    finally:
        for handle in hooks:
            handle.remove()


def _trunk_modules(modules: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Module path → name of the tensor it gives, for a model with a head and without."""
    prefix = "bit." if "bit.embedder" in modules else ""
    yield prefix + "embedder", "root"
    stages = f"{prefix}encoder.stages."
    for path in modules:
        stage, layers, layer = path.removeprefix(stages).partition(".layers.")
        if path.startswith(stages) and layers and layer.isdecimal():
            yield path, f"block{int(stage) + 1}/unit{int(layer) + 1:02d}"
    yield prefix + "norm", "norm"
    yield prefix + "pooler", "features"


def _values(tensor: torch.Tensor) -> Array:
    """A copy: a later module may work in place."""
    values: Array = tensor.detach().to("cpu").float().numpy().copy()
    return values
