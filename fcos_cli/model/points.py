"""Points: one location per cell of each level, in pixels of network input. Traceable, float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fcos_cli.model.conventions import Conventions


class Grid(NamedTuple):
    """The points of one level: height × width cells, `spacing` = (down, across) pixels of network input apart.

    offset: position of a point in its cell, in spacings. stride: the level's nominal stride.
    """

    height: int
    width: int
    spacing: tuple[int, int]
    offset: float
    stride: int

    def xy(self, *, device: torch.device | None = None) -> Tensor:
        """The points, float32 [height·width, 2] (x, y) = (cell + offset) · spacing, row by row.

        Always float32: in bf16 a coordinate above 256 px would be off by a pixel or more.
        """
        ys = (torch.arange(self.height, dtype=torch.float32, device=device) + self.offset) * self.spacing[0]
        xs = (torch.arange(self.width, dtype=torch.float32, device=device) + self.offset) * self.spacing[1]
        x, y = xs.expand(self.height, self.width), ys[:, None].expand(self.height, self.width)
        return torch.stack((x, y), dim=-1).reshape(-1, 2)


class Points(NamedTuple):
    """All points of all levels, finest level first, row by row within a level.

    xy: float32 [P, 2], pixels of network input. stride: float32 [P], nominal stride of the point's level.
    level: int64 [P], index of the level. grids: the same by level, where they form grids.
    """

    xy: Tensor
    stride: Tensor
    level: Tensor
    grids: tuple[Grid, ...] = ()


def make_grids(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    conventions: Conventions,
    input_size: tuple[int, int] | None = None,
) -> tuple[Grid, ...]:
    """Grids for feature maps of `sizes` (height, width). input_size: of the padded network input.

    Raises ValueError if the spacing depends on the input size and it is not given.
    """
    if conventions.stride_rule == "nominal":
        spacings = [(stride, stride) for stride in strides]
    elif input_size is None:
        raise ValueError("the spacing of these points depends on the size of the input: pass it")
    else:
        spacings = [(input_size[0] // height, input_size[1] // width) for height, width in sizes]
    return tuple(
        Grid(height, width, spacing, conventions.point_offset, stride)
        for (height, width), spacing, stride in zip(sizes, spacings, strides, strict=True)
    )


def all_points(grids: Sequence[Grid], *, device: torch.device | None = None) -> Points:
    """Points of every level."""
    levels = [grid.xy(device=device) for grid in grids]
    counts = torch.tensor([len(points) for points in levels], device=device)
    level = torch.repeat_interleave(torch.arange(len(levels), device=device), counts)
    stride = torch.tensor([grid.stride for grid in grids], dtype=torch.float32, device=device)[level]
    return Points(torch.cat(levels), stride, level, tuple(grids))
