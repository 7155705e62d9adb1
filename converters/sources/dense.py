"""The head of a fine-tuned network: the one Dense layer, or 1×1 convolution, beside the rest of BiT.

what is left beside the trunk → kernel and bias of the head, or CheckpointError that names what does not belong
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from converters.amounts import some
from converters.errors import CheckpointError
from converters.mapping.names import UNIT, ends, in_words
from converters.sources.base import Shape

Found = tuple[str, dict[str, str], dict[str, str], dict[str, Shape]]
"""Scheme; tensor → name in the table, or its own; name → why it is left out; name → shape, of what is made as zeros."""
LEAST = len(UNIT) - 1
"""Tensors that make a BiT worth the name: those of a unit."""
KERNEL_WORDS = frozenset({"kernel", "kernels", "weight", "weights", "w"})
BIAS_WORDS = frozenset({"bias", "biases", "b"})
MADE = {"the head's bias": "the file has none: zeros stand for it"}
"""Said among what is left out."""


@dataclass(frozen=True)
class Dense:
    """The tensors of a head; ``bias`` is None where it has none."""

    kernel: str
    bias: str | None
    classes: int

    def named(self, scheme: str) -> tuple[dict[str, str], dict[str, Shape]]:
        """Tensor → name in the table; name → shape of a bias that is made as zeros."""
        _, kernel, bias = ends(scheme)
        if self.bias is None:
            return {self.kernel: kernel}, {bias: (self.classes,)}
        return {self.kernel: kernel, self.bias: bias}, {}


def recognised(
    scheme: str,
    trunk: Mapping[str, str],
    shapes: Mapping[str, Shape],
    dropped: Mapping[str, str],
    shown: Mapping[str, str],
    words: Mapping[str, Set[str]],
    where: str,
) -> Found:
    """Tells what a file's tensors are, given those below the head (tensor → name in the table) and those left out.

    ``shown`` is what tensors are called in messages. Raises CheckpointError for a tensor that BiT has not.
    """
    why = {shown[key]: reason for key, reason in dropped.items()}
    features = features_of(trunk, shapes, scheme)
    rest = {key: shape for key, shape in shapes.items() if key not in trunk and key not in dropped}
    head = None if features is None else head_among(rest, words, features, where, shown)
    names, made = head.named(scheme) if head else ({}, {})
    return scheme, {**shown, **trunk, **names}, why | (MADE if made else {}), made


def features_of(trunk: Mapping[str, str], shapes: Mapping[str, Shape], scheme: str) -> int | None:
    """The features of a network by its last norm; None where too little of it is there."""
    norm, *_ = ends(scheme)
    last = next((shapes[key] for key, name in trunk.items() if name == norm), ())
    return last[0] if len(trunk) >= LEAST and len(last) == 1 else None


def head_among(
    rest: Mapping[str, Shape], words: Mapping[str, Set[str]], features: int, where: str, shown: Mapping[str, str]
) -> Dense | None:
    """The head, of the tensors beside the trunk, whose ``words`` are the last ones of their names; None without any.

    ``shown`` are the names for messages. Raises CheckpointError for anything else than one Dense layer on the features.
    """
    if not rest:
        return None
    kernels = [name for name, shape in rest.items() if is_kernel(shape) and _is_called(words.get(name), KERNEL_WORDS)]
    others = [name for name in rest if name not in kernels]
    dense = [kernel for kernel in kernels if rest[kernel][-2] == features]
    if len(kernels) == 1 and len(dense) == 1 and len(others) <= 1:
        bias = next(iter(others), None)
        if bias is None or (len(rest[bias]) == 1 and _is_called(words.get(bias), BIAS_WORDS)):
            return Dense(dense[0], bias, rest[dense[0]][-1])
    names = some([f"{shown[name]} ({in_words(shape)})" for name, shape in rest.items()], 4)
    what = "more than one Dense layer" if len(kernels) > 1 else "weights that BiT has not"
    raise CheckpointError(
        f"{where}: {what} beside a BiT of {features} features: {names}.\n"
        "Only BiT with one Dense head on its features can be converted: save that part alone."
    )


def is_kernel(shape: Shape) -> bool:
    """Whether a Dense layer's kernel, or that of a 1×1 convolution, has such a shape."""
    return len(shape) == 2 or (len(shape) == 4 and shape[:2] == (1, 1))


def _is_called(words: Set[str] | None, wanted: Set[str]) -> bool:
    """Whether one of its names has such a part (``head_w``, ``kernel_matrix``), or it has none."""
    return not words or any(part in wanted for word in words for part in word.lower().split("_"))
