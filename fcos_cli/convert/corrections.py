"""Corrections: what renaming alone does not make right. Each takes tensors by our names and changes them in place."""

from __future__ import annotations

import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]

_TOWER_CONV = re.compile(r"(head\.\w+_head\.conv\.\d+)\.weight")


def give_towers_a_bias(weights: Weights) -> bool:
    """Zeros for the bias of the towers' convolutions, where none of them has one (mmdetection before a norm).
    Returns whether they lacked it."""
    convs = [found[1] for key in weights if (found := _TOWER_CONV.fullmatch(key)) and weights[key].ndim == 4]
    if not convs or any(f"{conv}.bias" in weights for conv in convs):
        return False
    for conv in convs:
        weights[f"{conv}.bias"] = torch.zeros(weights[f"{conv}.weight"].shape[0])
    return True


def give_scales_a_shape(weights: Weights) -> None:
    """Factors per level as [1], which mmdetection stores as []."""
    for key, value in weights.items():
        if key.startswith("head.regression_head.scales.") and value.ndim == 0:
            weights[key] = value.reshape(1)


def take_eps_from_variance(weights: Weights, eps: float) -> None:
    """Make variance + eps, by which our frozen BatchNorm divides, the variance that the file's divides by alone."""
    for key, value in weights.items():
        if key.startswith("backbone.body.") and key.endswith(".running_var"):
            weights[key] = (value.double() - eps).float()


def turn_channels_round(weights: Weights) -> None:
    """Let a network that saw blue first see red first: our pixels are RGB."""
    key = "backbone.body.conv1.weight"
    weights[key] = weights[key].flip(1)


def gather_classes(weights: Weights, rows: list[int]) -> None:
    """Keep these rows of the class layer, in this order."""
    for part in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{part}"
        weights[key] = weights[key][rows]
