"""Targets: what each point should predict. Whole batch and all levels in one pass (FCOS §3.1–3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Grid, Points


class Truth(NamedTuple):
    """The boxes of a batch, padded to M per picture.

    boxes: float32 [B, M, 4], xyxy in pixels of network input, ending as the conventions have it (`to_box_ends`).
    classes: int64 [B, M], 0…C-1, and -1 where padded. ignore: bool [B, M], crowd or difficult boxes, which nothing is
    learned from.
    """

    boxes: Tensor
    classes: Tensor
    ignore: Tensor


def to_box_ends(truth: Truth, conventions: Conventions) -> Truth:
    """Truth whose boxes end behind their last pixel, as data sets are read → as the conventions have it.

    Inclusive boxes lose a pixel of network input; their first implementation took one of the picture, before resizing.
    """
    if conventions.box_ends == "exclusive":
        return truth
    return truth._replace(boxes=truth.boxes - truth.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]))


class Targets(NamedTuple):
    """What every point of a batch should say.

    classes: int64 [B, P], the class index, or -1 for background. ltrb: float32 [B, P, 4], distances in pixels of
    network input (0 at background). centerness: float32 [B, P], 0…1. box: int64 [B, P], index into the picture's
    truth, or -1. ignored: bool [B, P], background points inside an ignored box: no class loss there.
    """

    classes: Tensor
    ltrb: Tensor
    centerness: Tensor
    box: Tensor
    ignored: Tensor


def centerness(ltrb: Tensor) -> Tensor:
    """sqrt(min(l,r)/max(l,r) · min(t,b)/max(t,b)) of distances [..., 4] > 0; 1 at the centre, 0 on an edge."""
    sides, ends = ltrb[..., 0::2], ltrb[..., 1::2]
    ratio = sides.amin(-1) * ends.amin(-1) / (sides.amax(-1) * ends.amax(-1)).clamp(min=1e-12)
    return ratio.clamp(min=0).sqrt()


def level_ranges(points: Points, ranges: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Lower and upper end [P] of the longest distance that a point's level takes: (0, r0), (r0, r1) … (r3, inf)."""
    ends = torch.tensor([0.0, *ranges, float("inf")], device=points.xy.device)
    return ends[points.level], ends[points.level + 1]


def assign_targets(points: Points, truth: Truth, *, ranges: Sequence[float], conventions: Conventions) -> Targets:
    """Each point learns the smallest box that it lies in, is near enough the centre of, and whose size is its level's.

    A point is inside when all four distances are > 0. Equal areas: the first box wins. A box that holds no point of
    its level (smaller than a cell) has no positive point. Source: FCOS §3.1–3.2; center sampling as in the authors'
    improvements, where `radius` strides around the centre count.
    """
    smallest = _smallest_first(truth, conventions)
    if truth.boxes.shape[1] == 0:
        winner = torch.zeros((len(truth.boxes), len(points.xy)), dtype=torch.int64, device=points.xy.device)
    elif conventions.radius > 0 and points.grids:
        winner = _near_centres(points, truth, smallest.argsort(dim=1), ranges, conventions)
    else:
        winner = _anywhere(points, truth, smallest.argsort(dim=1), ranges, conventions)
    positive = winner < truth.boxes.shape[1]
    box = smallest.gather(1, winner.clamp(max=max(truth.boxes.shape[1] - 1, 0))) if smallest.numel() else winner
    return _gather(points, truth, box, positive, ignored=_inside_ignored(points, truth) & ~positive)


def _smallest_first(truth: Truth, conventions: Conventions) -> Tensor:
    """Indices [B, M] of each picture's boxes by area, equal ones in their order."""
    sides = truth.boxes[..., 2:] - truth.boxes[..., :2]
    if conventions.area == "plus-one":
        sides = sides + 1
    area = sides[..., 0] * sides[..., 1]
    if conventions.area == "float32":
        area = -(1e8 - area)
    return area.argsort(dim=1, stable=True)


def _takes(xy: Tensor, stride: Tensor, ends: tuple[Tensor, Tensor], boxes: Tensor, rules: Conventions) -> Tensor:
    """May a point learn a box? Broadcasts: xy [..., 2], stride and ends (of the level's range) […], boxes [..., 4]."""
    near, far = xy - boxes[..., :2], boxes[..., 2:] - xy  # (l, t) and (r, b)
    longest = torch.maximum(near, far).amax(-1)
    low, high = ends
    above = longest >= low if rules.range_ends == "closed" else longest > low
    below = longest < high if rules.range_ends == "open" else longest <= high
    takes = (torch.minimum(near, far).amin(-1) > 0) & above & below
    if rules.radius > 0:
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        takes &= (xy - centre).abs().amax(-1) < rules.radius * stride
    return takes


def _near_centres(points: Points, truth: Truth, rank: Tensor, ranges: Sequence[float], rules: Conventions) -> Tensor:
    """Lowest rank [B, P] among the boxes that each point takes, M where there is none; rank [B, M] of each box.

    Looks only at the few cells around each box's centre that center sampling allows.
    """
    boxes, none = truth.boxes[:, :, None], truth.boxes.shape[1]  # [B, M, 1, 4] against the cells of a window [N]
    learns = ((truth.classes >= 0) & ~truth.ignore)[..., None]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    ends = torch.tensor([0.0, *ranges, float("inf")], device=boxes.device)
    winner = rank.new_full((len(boxes), len(points.xy)), none)
    start = 0
    for level, grid in enumerate(points.grids):
        column, row = (
            _window(centre[..., axis], grid, spacing=grid.spacing[1 - axis], radius=rules.radius) for axis in (0, 1)
        )
        row, column = (cells.flatten(2) for cells in _crossed(row, column))
        x, y = ((cells + grid.offset) * grid.spacing[1 - axis] for axis, cells in enumerate((column, row)))
        stride = torch.tensor(float(grid.stride), device=boxes.device)
        takes = _takes(torch.stack((x, y), -1), stride, (ends[level], ends[level + 1]), boxes, rules) & learns
        takes &= (column >= 0) & (column < grid.width) & (row >= 0) & (row < grid.height)
        cell = start + row.clamp(0, grid.height - 1) * grid.width + column.clamp(0, grid.width - 1)
        offered = torch.where(takes, rank[..., None], none)
        winner.scatter_reduce_(1, cell.long().flatten(1), offered.flatten(1), "amin")
        start += grid.height * grid.width
    return winner


def _crossed(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, M, n] and columns [B, M, m] → of every cell where they cross [B, M, n, m]."""
    shape = (*rows.shape, columns.shape[-1])
    return rows[..., :, None].expand(shape), columns[..., None, :].expand(shape)


def _window(centre: Tensor, grid: Grid, *, spacing: int, radius: float) -> Tensor:
    """Rows or columns [B, M, n], float32, that hold every cell whose point lies within `radius` strides of `centre`
    [B, M, 1] along one axis, and up to two more, since the division is rounded."""
    first = ((centre - radius * grid.stride) / spacing - grid.offset).floor()
    return first + torch.arange(int(2 * radius * grid.stride / spacing) + 3, device=centre.device)


def _anywhere(points: Points, truth: Truth, rank: Tensor, ranges: Sequence[float], rules: Conventions) -> Tensor:
    """As `_near_centres`, without center sampling: every point against every box, picture by picture."""
    none, ends = truth.boxes.shape[1], level_ranges(points, ranges)
    learns = (truth.classes >= 0) & ~truth.ignore
    low_high = (ends[0][:, None], ends[1][:, None])
    winners = []
    for boxes, learn, place in zip(truth.boxes, learns, rank, strict=True):
        takes = _takes(points.xy[:, None], points.stride[:, None], low_high, boxes, rules) & learn
        winners.append(torch.where(takes, place, none).amin(1))
    return torch.stack(winners)


def _inside_ignored(points: Points, truth: Truth) -> Tensor:
    """bool [B, P]: does the point lie in a box that nothing is learned from?"""
    inside = torch.zeros((len(truth.boxes), len(points.xy)), dtype=torch.bool, device=points.xy.device)
    ignored = truth.ignore & (truth.classes >= 0)
    for picture in ignored.any(1).nonzero()[:, 0].tolist():
        boxes = truth.boxes[picture, ignored[picture]]
        beyond = (points.xy[:, None] > boxes[:, :2]) & (points.xy[:, None] < boxes[:, 2:])
        inside[picture] = beyond.all(-1).any(-1)
    return inside


def _gather(points: Points, truth: Truth, box: Tensor, positive: Tensor, *, ignored: Tensor) -> Targets:
    """Matched box index [B, P] → Targets; background points get -1, zeros and no box."""
    if truth.boxes.shape[1] == 0:
        ltrb = points.xy.new_zeros((*box.shape, 4))
        nothing = torch.full_like(box, -1)
        return Targets(nothing, ltrb, ltrb[..., 0], nothing, ignored)
    matched = truth.boxes.gather(1, box[..., None].expand(-1, -1, 4))
    ltrb = torch.cat((points.xy - matched[..., :2], matched[..., 2:] - points.xy), -1) * positive[..., None]
    return Targets(
        classes=truth.classes.gather(1, box).masked_fill(~positive, -1),
        ltrb=ltrb,
        centerness=centerness(ltrb) * positive,
        box=box.masked_fill(~positive, -1),
        ignored=ignored,
    )
