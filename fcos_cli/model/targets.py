"""Targets: what each point should predict. Whole batch and all levels in one pass (FCOS §3.1–3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Points


class Truth(NamedTuple):
    """The boxes of a batch, padded to M per picture.

    boxes: float32 [B, M, 4], xyxy in pixels of network input. classes: int64 [B, M], 0…C-1, and -1 where padded.
    ignore: bool [B, M], crowd or difficult boxes, which nothing is learned from.
    """

    boxes: Tensor
    classes: Tensor
    ignore: Tensor


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


def assign(points: Points, truth: Truth, *, ranges: Sequence[float], conventions: Conventions) -> Targets:
    """Each point learns the smallest box that it lies in, is near enough the centre of, and whose size is its level's.

    A point is inside when all four distances are > 0. Equal areas: the first box wins. A box that holds no point of
    its level (smaller than a cell) has no positive point. Source: FCOS §3.1–3.2; center sampling as in the authors'
    improvements, where `radius` strides around the centre count.
    """
    boxes = truth.boxes[:, None]  # [B, 1, M, 4] against points [P, 1, 2]
    xy = points.xy[:, None]
    near, far = xy - boxes[..., :2], boxes[..., 2:] - xy  # [B, P, M, 2] each: (l, t) and (r, b)
    longest = torch.maximum(near, far).amax(-1)
    inside = torch.minimum(near, far).amin(-1) > 0
    real = (truth.classes >= 0)[:, None]
    candidate = inside & _in_range(longest, points, ranges, conventions) & real & ~truth.ignore[:, None]
    if conventions.radius > 0:
        off_centre = (near - far).abs().amax(-1) / 2  # distance from the box centre, the worse axis
        candidate &= off_centre < (conventions.radius * points.stride)[:, None]

    size = truth.boxes[..., 2:] - truth.boxes[..., :2]
    area = (size[..., 0] * size[..., 1])[:, None].masked_fill(~candidate, float("inf"))
    if area.shape[-1] == 0:  # a batch without a single box
        area = area.new_full((*area.shape[:2], 1), float("inf"))
    # min's index among equals is unspecified on GPUs; the first index among those equal to the minimum is not
    smallest = area.amin(-1, keepdim=True)
    box = (area == smallest).int().argmax(-1)
    positive = smallest[..., 0] < float("inf")
    return _gather(points, truth, box, positive, ignored=(inside & real & truth.ignore[:, None]).any(-1) & ~positive)


def _in_range(longest: Tensor, points: Points, ranges: Sequence[float], conventions: Conventions) -> Tensor:
    low, high = (end[:, None] for end in level_ranges(points, ranges))
    if conventions.range_ends == "half-open":
        return (longest > low) & (longest <= high)
    if conventions.range_ends == "closed":
        return (longest >= low) & (longest <= high)
    return (longest > low) & (longest < high)


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
