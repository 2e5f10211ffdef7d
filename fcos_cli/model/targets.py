"""Target assignment: what each point should predict, for a whole batch and all levels in one pass (FCOS §3.1–3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Grid, Points


class Truth(NamedTuple):
    """The ground-truth boxes of a batch, padded to M per image.

    boxes: float32 [B, M, 4], xyxy in pixels of network input, with the box ends of the conventions (`to_box_ends`).
    classes: int64 [B, M], 0…C-1, or -1 for padding. ignore: bool [B, M], crowd or difficult boxes, which are not
    learned.
    """

    boxes: Tensor
    classes: Tensor
    ignore: Tensor


def to_box_ends(truth: Truth, conventions: Conventions) -> Truth:
    """Convert boxes with exclusive ends, as data sets are read, to the box ends of the conventions.

    Inclusive boxes become one pixel of network input smaller. (Their first implementation subtracted one pixel of the
    original image, before resizing.)
    """
    if conventions.box_ends == "exclusive":
        return truth
    return truth._replace(boxes=truth.boxes - truth.boxes.new_tensor([0.0, 0.0, 1.0, 1.0]))


class Targets(NamedTuple):
    """What every point of a batch should predict.

    classes: int64 [B, P], class index, or -1 for background. ltrb: float32 [B, P, 4], distances in pixels of network
    input (0 for background). centerness: float32 [B, P], 0…1. box: int64 [B, P], index of the matched box, or -1.
    ignored: bool [B, P], background points inside an ignored box, which have no class loss.
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
    """Lower and upper limit [P] of the longest distance that each point's level handles: (0, r0) … (r3, inf)."""
    ends = torch.tensor([0.0, *ranges, float("inf")], device=points.xy.device)
    return ends[points.level], ends[points.level + 1]


def assign_targets(points: Points, truth: Truth, *, ranges: Sequence[float], conventions: Conventions) -> Targets:
    """Match each point to the smallest box that contains it, near enough its centre, with a size in its level's range.

    A point is inside a box if all four distances are > 0. Ties in area go to the first box. A box that contains no
    point of its level (smaller than a cell) has no positive point. Source: FCOS §3.1–3.2. Center sampling (`radius`
    strides around the centre) is from the authors' improvements.
    """
    smallest = _smallest_first(truth, conventions)
    if truth.boxes.shape[1] == 0:
        matched_rank = torch.zeros((len(truth.boxes), len(points.xy)), dtype=torch.int64, device=points.xy.device)
    elif conventions.radius > 0 and points.grids:
        matched_rank = _match_near_centers(points, truth, smallest.argsort(dim=1), ranges, conventions)
    else:
        matched_rank = _match_all_points(points, truth, smallest.argsort(dim=1), ranges, conventions)
    positive = matched_rank < truth.boxes.shape[1]
    box = (
        smallest.gather(1, matched_rank.clamp(max=max(truth.boxes.shape[1] - 1, 0)))
        if smallest.numel()
        else matched_rank
    )
    return _build_targets(points, truth, box, positive, ignored=_inside_ignored(points, truth) & ~positive)


def _smallest_first(truth: Truth, conventions: Conventions) -> Tensor:
    """Indices [B, M] of each image's boxes, ordered by area; ties keep their order."""
    sides = truth.boxes[..., 2:] - truth.boxes[..., :2]
    if conventions.area == "plus-one":
        sides = sides + 1
    area = sides[..., 0] * sides[..., 1]
    if conventions.area == "float32":
        area = -(1e8 - area)
    return area.argsort(dim=1, stable=True)


def _is_candidate(
    xy: Tensor, stride: Tensor, limits: tuple[Tensor, Tensor], boxes: Tensor, rules: Conventions
) -> Tensor:
    """Whether a point is a candidate for a box. Broadcasts: xy [..., 2], stride and limits (of the level's range) […],
    boxes [..., 4].
    """
    near, far = xy - boxes[..., :2], boxes[..., 2:] - xy  # (l, t) and (r, b)
    longest = torch.maximum(near, far).amax(-1)
    low, high = limits
    above = longest >= low if rules.range_ends == "closed" else longest > low
    below = longest < high if rules.range_ends == "open" else longest <= high
    candidate = (torch.minimum(near, far).amin(-1) > 0) & above & below
    if rules.radius > 0:
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        candidate &= (xy - centre).abs().amax(-1) < rules.radius * stride
    return candidate


def _match_near_centers(
    points: Points, truth: Truth, rank: Tensor, ranges: Sequence[float], rules: Conventions
) -> Tensor:
    """Lowest rank [B, P] among the candidate boxes of each point, or M if there are none. rank: [B, M], of each box.

    With center sampling, only the few cells around each box centre need to be examined.
    """
    boxes, none = truth.boxes[:, :, None], truth.boxes.shape[1]  # [B, M, 1, 4] against the cells of a window [N]
    assignable = ((truth.classes >= 0) & ~truth.ignore)[..., None]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    ends = torch.tensor([0.0, *ranges, float("inf")], device=boxes.device)
    matched_rank = rank.new_full((len(boxes), len(points.xy)), none)
    start = 0
    for level, grid in enumerate(points.grids):
        column, row = (
            _window(centre[..., axis], grid, spacing=grid.spacing[1 - axis], radius=rules.radius) for axis in (0, 1)
        )
        row, column = (cells.flatten(2) for cells in _cell_grid(row, column))
        x, y = ((cells + grid.offset) * grid.spacing[1 - axis] for axis, cells in enumerate((column, row)))
        stride = torch.tensor(float(grid.stride), device=boxes.device)
        candidate = (
            _is_candidate(torch.stack((x, y), -1), stride, (ends[level], ends[level + 1]), boxes, rules) & assignable
        )
        candidate &= (column >= 0) & (column < grid.width) & (row >= 0) & (row < grid.height)
        cell = start + row.clamp(0, grid.height - 1) * grid.width + column.clamp(0, grid.width - 1)
        candidate_rank = torch.where(candidate, rank[..., None], none)
        matched_rank.scatter_reduce_(1, cell.long().flatten(1), candidate_rank.flatten(1), "amin")
        start += grid.height * grid.width
    return matched_rank


def _cell_grid(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Row indices [B, M, n] and column indices [B, M, m] → those of every cell of the window, [B, M, n, m]."""
    shape = (*rows.shape, columns.shape[-1])
    return rows[..., :, None].expand(shape), columns[..., None, :].expand(shape)


def _window(centre: Tensor, grid: Grid, *, spacing: int, radius: float) -> Tensor:
    """Row or column indices [B, M, n], float32, of the cells within `radius` strides of `centre` [B, M, 1] along one
    axis. Rounding may add up to two more.
    """
    first = ((centre - radius * grid.stride) / spacing - grid.offset).floor()
    return first + torch.arange(int(2 * radius * grid.stride / spacing) + 3, device=centre.device)


def _match_all_points(
    points: Points, truth: Truth, rank: Tensor, ranges: Sequence[float], rules: Conventions
) -> Tensor:
    """The same as `_match_near_centers` without center sampling: every point against every box, image by image."""
    none, ends = truth.boxes.shape[1], level_ranges(points, ranges)
    assignable = (truth.classes >= 0) & ~truth.ignore
    low_high = (ends[0][:, None], ends[1][:, None])
    matched = []
    for boxes, usable, order in zip(truth.boxes, assignable, rank, strict=True):
        candidate = _is_candidate(points.xy[:, None], points.stride[:, None], low_high, boxes, rules) & usable
        matched.append(torch.where(candidate, order, none).amin(1))
    return torch.stack(matched)


def _inside_ignored(points: Points, truth: Truth) -> Tensor:
    """bool [B, P]: whether a point lies inside an ignored box."""
    inside = torch.zeros((len(truth.boxes), len(points.xy)), dtype=torch.bool, device=points.xy.device)
    ignored = truth.ignore & (truth.classes >= 0)
    for picture in ignored.any(1).nonzero()[:, 0].tolist():
        boxes = truth.boxes[picture, ignored[picture]]
        beyond = (points.xy[:, None] > boxes[:, :2]) & (points.xy[:, None] < boxes[:, 2:])
        inside[picture] = beyond.all(-1).any(-1)
    return inside


def _build_targets(points: Points, truth: Truth, box: Tensor, positive: Tensor, *, ignored: Tensor) -> Targets:
    """Matched box index [B, P] → Targets. Background points get -1, zeros and no box."""
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
