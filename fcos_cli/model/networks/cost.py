"""Size and work of a network, from its settings alone."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.networks.deformable import deform_flops


class Cost(NamedTuple):
    """parameters: numbers in the state dict, BatchNorm statistics included, as `fcos info` counts them in a file.

    macs: multiplications of all convolutions for one image, each with an addition. Normalization, activations, decoding
    and NMS are not counted.
    """

    parameters: int
    macs: int


@cache
def network_cost(config: ModelConfig, *, classes: int, size: tuple[int, int]) -> Cost:
    """The cost of a network for one image of `size` = (height, width) input pixels.

    Only shapes are computed, and no random numbers are drawn from torch's generator. Raises RuntimeError for a backbone
    that cannot be built without values.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = FCOS(config, classes=classes).eval()
        counted = {torch.ops.torchvision.deform_conv2d: deform_flops}
        with FlopCounterMode(display=False, custom_mapping=counted) as counter, torch.no_grad():
            model(torch.zeros(1, 3, *size))
    return Cost(sum(tensor.numel() for tensor in model.state_dict().values()), counter.get_total_flops() // 2)
