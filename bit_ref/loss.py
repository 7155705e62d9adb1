"""The loss of a classifier, by the kind of its labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bit_ref.config import BitConfig


def classification_loss(labels: Tensor, logits: Tensor, config: BitConfig, **kwargs: Any) -> Tensor:
    """Mean squared error, cross-entropy or binary cross-entropy, as ``config.problem_type`` says; a scalar.

    Where it says nothing, the first labels decide and the config keeps it: one label is a regression, integer labels
    are single labels (N,), others are multiple labels (N, classes). Raises RuntimeError for another problem type.
    """
    labels = labels.to(logits.device)
    if config.problem_type is None:
        if config.num_labels == 1:
            config.problem_type = "regression"
        elif labels.dtype in (torch.long, torch.int):
            config.problem_type = "single_label_classification"
        else:
            config.problem_type = "multi_label_classification"
    if config.problem_type == "regression":
        if config.num_labels == 1:
            return functional.mse_loss(logits.squeeze(), labels.squeeze())
        return functional.mse_loss(logits, labels)
    if config.problem_type == "single_label_classification":
        return functional.cross_entropy(logits.view(-1, config.num_labels), labels.view(-1))
    if config.problem_type == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    raise RuntimeError(f"Invalid problem type: {config.problem_type}")
