"""Deformable convolution, version 2 (Zhu et al., 2019, arXiv:1811.11168), as in the model zoos' DCNv2 models."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from fcos_cli.errors import UsageError


class DeformConv2d(nn.Conv2d):
    """A convolution that decides for every output where each of its taps looks, and how much the tap counts.

    `offset`, a convolution of the same size, stride and padding, gives 3·k² channels: how far each tap moves down and
    to the right (y, x of the first tap, y, x of the second, …; taps row by row) in pixels of the input map, and then
    the logit of each tap's weight. A tap between pixels is interpolated bilinearly; outside the map everything is 0.
    All channels share the offsets (one deformable group), as in every published model.

    Untrained, it is an ordinary convolution times ½: nothing moves and every weight is ½.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, **geometry: Any) -> None:
        """geometry: stride, padding, dilation, groups and bias, as for nn.Conv2d."""
        super().__init__(in_channels, out_channels, kernel_size, **geometry)
        same: Any = (self.kernel_size, self.stride, self.padding, self.dilation)
        self.offset = nn.Conv2d(in_channels, 3 * prod(self.kernel_size), *same)
        self.reset_offset()

    @classmethod
    def replacing(cls, conv: nn.Conv2d) -> DeformConv2d:
        """One with the geometry and the weights of `conv`."""
        geometry = {name: getattr(conv, name) for name in ("stride", "padding", "dilation", "groups")}
        new = cls(conv.in_channels, conv.out_channels, conv.kernel_size, bias=conv.bias is not None, **geometry)
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def reset_offset(self) -> None:
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(cast("Tensor", self.offset.bias))

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, H, W] → [B, out, H', W']. The moved taps are always computed in float32 or better.

        Half precision is too coarse for positions, and torchvision's operator needs all its inputs in one type.
        """
        dtype = torch.promote_types(input.dtype, torch.float32)
        taps = prod(self.kernel_size)
        moves, weights = self.offset(input).to(dtype).split([2 * taps, taps], dim=1)
        geometry: Any = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        out = deform_conv2d(
            input.to(dtype),
            moves,
            self.weight.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            mask=weights.sigmoid(),
            **geometry,
        )
        return cast("Tensor", out.to(input.dtype))


def deform_stages(body: nn.Module, stages: Sequence[int], *, backbone: str) -> None:
    """Make the 3×3 convolution `conv2` of every block in these stages of a ResNet deformable, in place.

    stages: numbers of timm's `layer1` … `layer4`. Raises UsageError if the backbone has no such blocks.
    """
    for stage in stages:
        found = [
            name
            for name, module in body.named_modules()
            if name.startswith(f"layer{stage}.") and name.endswith(".conv2") and _is_plain(module)
        ]
        if not found:
            raise UsageError(
                f"backbone {backbone} has no blocks with a 3x3 convolution in stage {stage}",
                where="model.deformable_stages",
                remedy="set it to []; it is for timm's resnet50 and its relatives",
            )
        for name in found:
            body.set_submodule(name, DeformConv2d.replacing(cast("nn.Conv2d", body.get_submodule(name))))


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Conv2d and module.kernel_size == (3, 3)


def deform_flops(_input: Any, weight: Any, *_rest: Any, out_shape: Any, **_options: Any) -> int:
    """For torch's FlopCounterMode: the same as for an ordinary convolution. The interpolation is not counted."""
    return int(2 * prod(out_shape) * prod(weight[1:]))
