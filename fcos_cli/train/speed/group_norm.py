"""GroupNorm for training on a CPU, in the layout that is faster for each size of feature map.

torch's kernels for channels last are up to fifteen times slower than those for channels first, more than the two
conversions cost.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcos_cli.model.head import GroupNorm
from fcos_cli.train.speed.convolution import Method


class TunedGroupNorm(GroupNorm):
    """A GroupNorm whose layout is chosen by size.

    layouts: by (height, width), `default` (that of the input) or `nchw` (channels first, and back). Other sizes use the
    default.
    """

    layouts: dict[tuple[int, int], Method]

    @classmethod
    def wrap(cls, norm: nn.GroupNorm) -> TunedGroupNorm:
        """A tuned norm that shares the parameters of `norm`."""
        tuned = cls.__new__(cls)
        tuned.__dict__.update(norm.__dict__)
        tuned.layouts = {}
        return tuned

    def forward(self, x: Tensor) -> Tensor:
        layout = self.layouts.get((x.shape[-2], x.shape[-1]), "default")
        if layout == "default" or not torch.is_grad_enabled():
            return super().forward(x)
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps, layout)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, layout: Method) -> Tensor:
    """GroupNorm of `x` [B, C, H, W], computed in a layout. The result is channels last."""
    inputs = x.contiguous() if layout == "nchw" else x
    return torch.group_norm(inputs, groups, weight, bias, eps).contiguous(memory_format=torch.channels_last)
