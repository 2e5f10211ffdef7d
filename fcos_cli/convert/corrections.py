"""Changes that are needed beyond renaming. Each function modifies tensors by native name in place."""

from __future__ import annotations

import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]

_TOWER_CONV = re.compile(r"(head\.\w+_head\.conv\.\d+)\.weight")


def add_tower_biases(weights: Weights) -> bool:
    """Add zero biases to the tower convolutions if none has one, as in mmdetection before a norm.

    Returns True if biases were added.
    """
    convs = [match[1] for key in weights if (match := _TOWER_CONV.fullmatch(key)) and weights[key].ndim == 4]
    if not convs or any(f"{conv}.bias" in weights for conv in convs):
        return False
    for conv in convs:
        weights[f"{conv}.bias"] = torch.zeros(weights[f"{conv}.weight"].shape[0])
    return True


def reshape_scales(weights: Weights) -> None:
    """Reshape the scales per level from [], as mmdetection stores them, to [1]."""
    for key, value in weights.items():
        if key.startswith("head.regression_head.scales.") and value.ndim == 0:
            weights[key] = value.reshape(1)


def subtract_eps_from_variances(weights: Weights, eps: float) -> None:
    """Subtract `eps` from the variances of the backbone's frozen BatchNorm.

    The file's BatchNorm divides by √variance and ours by √(variance + eps), so both divide by the same number.
    """
    for key, value in weights.items():
        if key.startswith("backbone.body.") and key.endswith(".running_var"):
            weights[key] = (value.double() - eps).float()


def add_counters(weights: Weights) -> None:
    """Add the step counters of the head's BatchNorms, which nothing reads and not every file has."""
    for key in list(weights):
        if key.startswith("head.") and key.endswith(".running_var"):
            weights[f"{key.removesuffix('running_var')}num_batches_tracked"] = torch.tensor(0)


def reverse_input_channels(weights: Weights, stem: str) -> None:
    """Convert the backbone's first convolution from BGR to RGB input."""
    key = f"backbone.body.{stem}.weight"
    weights[key] = weights[key].flip(1)


def select_class_rows(weights: Weights, rows: list[int]) -> None:
    """Keep these rows of the class layer, in this order."""
    for part in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{part}"
        weights[key] = weights[key][rows]
