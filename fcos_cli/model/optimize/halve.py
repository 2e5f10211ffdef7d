"""Half precision for the network, where it does no harm."""

from __future__ import annotations

import torch
from torch import nn

from fcos_cli.model.fcos import FCOS


def halve(model: FCOS, kind: torch.dtype) -> None:
    """Let backbone and head compute in `kind`, float16 or bfloat16, in place. Everything else stays in float32.

    That includes the learned scales of the head: they multiply distances, which are float32.
    """
    regression = model.head.regression_head
    scales, regression.scales = regression.scales, nn.ParameterList()
    model.backbone.to(kind)
    model.head.to(kind)
    regression.scales = scales
