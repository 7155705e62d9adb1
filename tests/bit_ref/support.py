"""The same small network twice, in bit_ref and in stock transformers, and checkpoints as bit_ref models."""

from __future__ import annotations

import numpy as np
import torch

import bit_ref
from tests.verify.folders import transformers_name, transformers_value

SMALL = {"embedding_size": 32, "hidden_sizes": [128, 256], "depths": [1, 2], "num_labels": 5}


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Values that are all different, norms included."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.copy_(1 + noise / 5 if "norm" in name and name.endswith("weight") else noise / 10)


def twins(kind: str = "BitForImageClassification", **options):
    """(ours, theirs) in float64 and evaluation mode: the same config and, by a strict load, the same weights."""
    import transformers

    options = {**SMALL, **options}
    ours = getattr(bit_ref, kind)(bit_ref.BitConfig(**options)).double().eval()
    theirs = getattr(transformers, kind)(transformers.BitConfig(**options)).double().eval()
    randomize(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def images(batch: int = 2, channels: int = 3, height: int = 64, width: int = 48, seed: int = 1) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.standard_normal((batch, channels, height, width)))


def assert_same(ours, theirs) -> None:
    """Outputs of the two libraries: the same keys and, to the rounding of float64, the same values."""
    assert type(ours).__name__ == type(theirs).__name__
    if isinstance(theirs, torch.Tensor):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        return
    if isinstance(theirs, dict):
        assert list(ours.keys()) == list(theirs.keys())
        ours, theirs = ours.to_tuple(), theirs.to_tuple()
    assert len(ours) == len(theirs)
    for our_value, their_value in zip(ours, theirs, strict=True):
        assert_same(our_value, their_value)


def model_of(tensors: dict[str, np.ndarray], factor: int = 1, **options) -> bit_ref.BitForImageClassification:
    """A checkpoint under Google's names as a bit_ref model; kernels ``factor`` times as large."""
    stages = sorted({name.split("/")[1] for name in tensors if "/unit" in name})
    with torch.device("meta"):
        model = bit_ref.BitForImageClassification(
            bit_ref.BitConfig(
                embedding_size=tensors["resnet/root_block/standardized_conv2d/kernel"].shape[-1],
                hidden_sizes=[tensors[f"resnet/{s}/unit01/c/standardized_conv2d/kernel"].shape[-1] for s in stages],
                depths=[sum(f"/{s}/" in n and "/b/standard" in n for n in tensors) for s in stages],
                num_labels=tensors["resnet/head/conv2d/kernel"].shape[-1],
                **options,
            )
        )
    stored = {transformers_name(n, False): transformers_value(n, t, factor) for n, t in tensors.items()}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()}, assign=True)
    return model.eval()
