"""The network in a training's checkpoint, found by what it holds, not by what it is called.

plain values and tensors, nested → ``state_dict()`` → name → tensor of the one BiT, and what stands beside it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.errors import CheckpointError
from converters.mapping.names import nearest
from converters.sources.base import MAX_TENSORS
from converters.sources.google import understand
from converters.sources.torch_pickle import Tensor

FEWEST = 12
"""Tensors of the smallest network, which has one unit and no head, are one more."""
MOST = 64
"""Dicts of that many tensors in one file: network, averages of it, and what optimisers that go by name have."""
DEEPEST = 16
"""Keys that may lead to the network."""
OPTIMISERS = ("optim", "opt_")
"""The beginnings of an optimiser's names, whose state may have a tensor for each of the network's."""
BESIDE = "training state: not the network's weights"


@dataclass(frozen=True)
class _Candidate:
    """A dict of tensors, and the keys that lead to it."""

    keys: tuple[str | int, ...]
    content: Mapping[Any, Any]

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.content.items() if isinstance(value, Tensor)}

    @property
    def is_optimisers(self) -> bool:
        return any(str(key).lower() == "opt" or str(key).lower().startswith(OPTIMISERS) for key in self.keys)

    def __str__(self) -> str:
        return "".join(f"[{key!r}]" for key in self.keys)[:160]

    def is_whole(self, schemes: tuple[str, ...]) -> bool:
        """Whether it is one whole BiT in one of these naming schemes."""
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        try:
            understand(shapes, nearest(shapes, schemes), "")
        except CheckpointError:
            return False
        return True


def state_dict(content: Any, schemes: tuple[str, ...], path: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The network's tensors, and what is left out, with why.

    Where no part is a whole network, the one that has the most tensors, whose misfits are then said. Raises
    CheckpointError where more than one is, ValueError where nothing is a state dict.
    """
    candidates = list(_candidates(content))
    if len(candidates) > MOST:
        raise ValueError(f"it has {len(candidates)} dicts of tensors, more than any training")
    if sum(len(candidate.tensors) for candidate in candidates) > MAX_TENSORS:
        raise ValueError(f"it has more than {MAX_TENSORS} named tensors, more than any training")
    networks = [candidate for candidate in candidates if not candidate.is_optimisers] or candidates
    whole = [candidate for candidate in networks if candidate.is_whole(schemes)]
    if len(whole) > 1:
        raise CheckpointError(
            f"{path}: holds {len(whole)} whole networks, {' and '.join(map(str, whole[:3]))}.\n"
            f"Save the one that is meant alone: torch.save(checkpoint{whole[0]}, FILE)."
        )
    if not networks:
        if isinstance(content, dict) and any(isinstance(value, Tensor) for value in content.values()):
            networks = [_Candidate((), content)]  # of too few tensors, which are then named
        else:
            raise ValueError("no state dict of a network is in it: save the model's state_dict() alone")
    chosen = whole[0] if whole else max(networks, key=lambda candidate: len(candidate.tensors))
    return chosen.tensors, dict(_beside(content, chosen))


def _candidates(content: Any) -> Iterator[_Candidate]:
    """Every dict that has tensors under names, the outermost first."""
    seen = set()
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), content)]
    for keys, value in waiting:  # grows while it is read
        if id(value) in seen or len(keys) > DEEPEST or not isinstance(value, dict | list | tuple):
            continue
        seen.add(id(value))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        waiting += [((*keys, key), inner) for key, inner in items if isinstance(inner, dict | list | tuple)]
        if isinstance(value, dict):
            candidate = _Candidate(keys, value)
            tensors = candidate.tensors
            if len(tensors) > FEWEST and all(isinstance(name, str) for name in tensors):
                yield candidate


def _beside(content: Any, chosen: _Candidate) -> Iterator[tuple[str, str]]:
    """Yields what lies beside the way to the network, and beside its tensors."""
    value = content
    for depth, key in enumerate(chosen.keys):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        yield from ((".".join(map(str, (*chosen.keys[:depth], other))), BESIDE) for other, _ in items if other != key)
        value = value[key]
    for name, inner in chosen.content.items():
        if not isinstance(inner, Tensor):
            yield ".".join(map(str, (*chosen.keys, name))), BESIDE
