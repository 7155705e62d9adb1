"""SaveConfigCallback: transformers' Trainer saves the weights alone of models of others; this adds config.json."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from bit_ref.pretrained import BitPreTrainedModel


class SaveConfigCallback:
    """A callback with which each checkpoint of transformers' Trainer is a folder that ``from_pretrained`` loads.

        trainer = Trainer(model, arguments, callbacks=[SaveConfigCallback()], …)

    ``config.json`` is written into each checkpoint, and at the end of a training into ``output_dir``, where
    ``trainer.save_model()`` puts the weights. For another folder, ``model.save_pretrained(folder)`` writes both. Of a
    model that peft has wrapped nothing is added: its checkpoints hold the adapter.
    """

    def on_save(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any) -> None:
        _save_config(model, state, Path(args.output_dir, f"checkpoint-{state.global_step}"))

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any) -> None:
        _save_config(model, state, args.output_dir)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """No other event of a training asks for anything."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _save_config(model: nn.Module | None, state: Any, folder: str | os.PathLike[str]) -> None:
    model = getattr(model, "_orig_mod", model)  # which torch.compile has wrapped
    if isinstance(model, BitPreTrainedModel) and state.is_world_process_zero:
        model.config_to_save().save_pretrained(folder)
