"""ModelInterface: what code written for transformers' models asks of a model, beyond running, loading and saving it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bit_ref.config import BitConfig
from bit_ref.recomputation import ActivationCheckpointing


class ModelInterface(ActivationCheckpointing):
    """Attributes and methods of transformers' ``PreTrainedModel``, as far as a network of convolutions has them."""

    config: BitConfig
    config_class: ClassVar[type[BitConfig]] = BitConfig
    base_model_prefix: ClassVar[str] = "bit"
    main_input_name: ClassVar[str] = "pixel_values"
    input_modalities: ClassVar[tuple[str, ...]] = ("image",)
    model_tags: list[str] | None = None

    _no_split_modules: ClassVar[list[str]] = ["BitEmbeddings", "BitUnit"]
    """accelerate keeps each of these on one device: the root, and a unit with its shortcut."""
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None
    _tied_weights_keys: ClassVar[dict[str, str] | None] = None

    _gradient_hooks: tuple[RemovableHandle, ...] = ()

    @property
    def base_model(self) -> nn.Module:
        """The model without its head."""
        base: nn.Module = getattr(self, self.base_model_prefix, self)
        return base

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    @property
    def framework(self) -> str:
        return "pt"

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """An input that the model takes, for tools that have to run it once; (3, channels, 64, 64)."""
        pixels = torch.zeros(3, self.config.num_channels, 64, 64, device=self.device, dtype=self.dtype)
        return {self.main_input_name: pixels}

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of parameters; ``exclude_embeddings`` changes nothing, since BiT has none."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters and, where asked for, of the buffers."""
        buffers = self.buffers() if return_buffers else ()
        return sum(tensor.nbytes for tensors in (self.parameters(), buffers) for tensor in tensors)

    def get_input_embeddings(self) -> nn.Module:
        raise NotImplementedError(f"{type(self).__name__} has no input embeddings: its input are pixels")

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.get_input_embeddings()

    def get_output_embeddings(self) -> None:
        """None, as for every model that writes no text."""

    def get_parameter_or_buffer(self, target: str) -> Any:
        """The tensor of that name in the state dict, itself and no copy. Raises KeyError where there is none."""
        return self.state_dict(keep_vars=True)[target]

    def tie_weights(self, *arguments: Any, **options: Any) -> None:
        """Nothing: no two layers of BiT share a weight."""

    def init_weights(self) -> None:
        """Start at random, as a new model does."""
        for module in self.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()

    def post_init(self) -> None:
        """Nothing: layers initialise themselves as they are made."""

    @classmethod
    def can_generate(cls) -> bool:
        return False

    def add_model_tags(self, tags: str | Iterable[str]) -> None:
        """Remember tags, each once, for those who write the model card."""
        known = self.model_tags or []
        self.model_tags = list(dict.fromkeys([*known, *([tags] if isinstance(tags, str) else tags)]))

    def enable_input_require_grads(self) -> None:
        """Let gradients reach what follows the root even where the root itself is frozen.

        Activation checkpointing with ``use_reentrant=True`` needs that: it differentiates nothing whose input asks
        for no gradient.
        """
        self.disable_input_require_grads()
        root: nn.Module = self.base_model.get_submodule("embedder")
        self._gradient_hooks = (root.register_forward_hook(_ask_for_gradient),)

    def disable_input_require_grads(self) -> None:
        for hook in self._gradient_hooks:
            hook.remove()
        self._gradient_hooks = ()


def _ask_for_gradient(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_()
