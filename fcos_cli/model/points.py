"""Points: one location per cell of each level, in pixels of network input. Traceable, float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """All points of all levels, P3 first, row by row within a level.

    xy: float32 [P, 2], pixels of network input. stride: float32 [P], stride of the point's level.
    level: int64 [P], index of the level.
    """

    xy: Tensor
    stride: Tensor
    level: Tensor


def grid(height: int, width: int, *, stride: int, offset: float, device: torch.device | None = None) -> Tensor:
    """Points of one level, float32 [height·width, 2] (x, y) = (cell + offset) · stride, row by row.

    float32 whatever the network runs in: in bf16 a coordinate above 256 px would be off by a pixel or more.
    """
    ys = (torch.arange(height, dtype=torch.float32, device=device) + offset) * stride
    xs = (torch.arange(width, dtype=torch.float32, device=device) + offset) * stride
    x, y = xs.expand(height, width), ys[:, None].expand(height, width)
    return torch.stack((x, y), dim=-1).reshape(-1, 2)


def all_points(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], *, offset: float, device: torch.device | None = None
) -> Points:
    """Points of every level: `sizes` are (height, width) of the feature maps, `strides` theirs in input pixels."""
    levels = [grid(h, w, stride=s, offset=offset, device=device) for (h, w), s in zip(sizes, strides, strict=True)]
    counts = torch.tensor([len(points) for points in levels], device=device)
    level = torch.repeat_interleave(torch.arange(len(levels), device=device), counts)
    stride = torch.tensor(strides, dtype=torch.float32, device=device)[level]
    return Points(torch.cat(levels), stride, level)
