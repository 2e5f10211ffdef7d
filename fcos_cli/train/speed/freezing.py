"""Backbone stages that are not trained: no gradients are computed for them, which saves time and memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fcos_cli.model.fcos import FCOS


def freeze_stages(model: FCOS, stages: int) -> list[str]:
    """Stop training the first `stages` stages of the backbone; stage n ends at the feature map with stride 2ⁿ.

    Works for any timm backbone: a parameter belongs to a stage if the stage's feature map depends on it. Returns the
    names of the frozen parameters.
    """
    body = model.backbone.body
    maps = [index for index, stride in enumerate(body.feature_info.reduction()) if stride <= 2**stages]  # type: ignore[union-attr, operator]
    if not stages or not maps:
        return []
    parameters = {name: parameter for name, parameter in body.named_parameters() if parameter.requires_grad}
    training = body.training
    feature = body.eval()(torch.zeros(1, 3, 64, 64, device=next(body.parameters()).device))[maps[-1]]
    body.train(training)
    gradients = torch.autograd.grad(feature.sum(), list(parameters.values()), allow_unused=True)
    frozen = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    for name in frozen:
        parameters[name].requires_grad_(False)
    return [f"backbone.body.{name}" for name in frozen]


def keep_frozen_norms(model: nn.Module) -> None:
    """Put BatchNorms whose weights are frozen in eval mode: their statistics stay as they are as well."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.requires_grad:
            module.eval()
