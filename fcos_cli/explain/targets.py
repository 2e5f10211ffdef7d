"""The truth made visible: which points learn which box, where boxes compete for a point, and which box gets none.

The rule is `model.targets.assign` and nobody else: a box is a candidate for a point when, alone in the picture, it is
given the point. Where several are, they compete, and whom `assign_targets` gives it with all boxes present has won.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.data.geometry import Geometry, ResizeRule
from fcos_cli.data.samples import Sample
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import STRIDES
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Grid, Points, all_points, make_grids
from fcos_cli.model.targets import Truth, assign_targets, to_box_ends

Floats = npt.NDArray[np.float32]

_AT_ONCE = 1 << 22  # point × box pairs compared at a time, which bounds the memory


@dataclass(frozen=True)
class TruthBox:
    """One box of the truth.

    box: xyxy in px of network input. index: of its class. ignore: crowd or difficult, nothing is learned from it.
    area: px² of network input. won, lost: points of each level (lost: it was a candidate, another box took them).
    """

    box: tuple[float, float, float, float]
    index: int
    ignore: bool
    area: float
    won: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def orphan(self) -> bool:
        """It should be learned, and no point learns it."""
        return not self.ignore and not sum(self.won)

    @property
    def reason(self) -> str:
        """Why an orphan has no point."""
        if sum(self.lost):
            return f"other boxes win all {sum(self.lost)} of its points"
        return "no point of its level lies in it"


@dataclass(frozen=True)
class PositivePoint:
    """A point that learns something. xy: px of network input. ltrb: its distances to the edges of `box`, px.
    box: index of the winner; rivals: indices of the boxes that it won against, the smallest first."""

    level: int
    xy: tuple[float, float]
    ltrb: tuple[float, float, float, float]
    centerness: float
    box: int
    rivals: tuple[int, ...]


@dataclass(frozen=True)
class TruthExplanation:
    """The targets of one picture. image: uint8 [H, W, 3] RGB. grids: where the points of each level lie.
    centerness: per level float32 [h, w], 0 at background.
    ignored: number of background points inside ignored boxes, where no class is learned."""

    image: npt.NDArray[np.uint8]
    geometry: Geometry
    classes: ClassTable
    boxes: list[TruthBox]
    points: list[PositivePoint]
    grids: tuple[Grid, ...]
    centerness: list[Floats]
    ignored: int
    ranges: tuple[float, ...]
    conventions: Conventions

    @property
    def orphans(self) -> list[int]:
        return [number for number, box in enumerate(self.boxes) if box.orphan]

    @property
    def contested(self) -> list[PositivePoint]:
        return [point for point in self.points if point.rivals]


def explain_targets(
    sample: Sample,
    image: npt.NDArray[np.uint8],
    *,
    classes: ClassTable,
    rule: ResizeRule,
    ranges: Sequence[float],
    conventions: Conventions,
) -> TruthExplanation:
    """What the points of `image` (uint8 [H, W, 3] RGB, the picture of `sample`) should learn at the model's input."""
    geometry = rule.geometry(image.shape[1], image.shape[0])
    height, width = rule.canvas([geometry])
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    grids = make_grids(sizes, STRIDES, conventions=conventions, input_size=(height, width))
    points = all_points(grids)
    boxes = torch.from_numpy(geometry.forward(sample.boxes))
    indices, ignore = torch.from_numpy(sample.classes), torch.from_numpy(sample.ignore)

    truth = to_box_ends(Truth(boxes[None], indices[None], ignore[None]), conventions)
    boxes = truth.boxes[0]
    targets = assign_targets(points, truth, ranges=ranges, conventions=conventions)
    alone = _alone(points, boxes, ignore, ranges=ranges, conventions=conventions)
    won = targets.box[0] == torch.arange(len(boxes))[:, None]
    rivals = alone & ~won & (targets.box[0] >= 0)

    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).tolist()
    found = []
    for place in (targets.box[0] >= 0).nonzero()[:, 0].tolist():
        x, y = points.xy[place].tolist()
        left, top, right, bottom = targets.ltrb[0, place].tolist()
        found.append(
            PositivePoint(
                level=int(points.level[place]),
                xy=(x, y),
                ltrb=(left, top, right, bottom),
                centerness=float(targets.centerness[0, place]),
                box=int(targets.box[0, place]),
                rivals=tuple(sorted(rivals[:, place].nonzero()[:, 0].tolist(), key=lambda rival: areas[rival])),
            )
        )
    maps = np.split(targets.centerness[0].numpy(), np.cumsum([h * w for h, w in sizes])[:-1])
    return TruthExplanation(
        image=image,
        geometry=geometry,
        classes=classes,
        boxes=_boxes(boxes, indices, ignore, won, rivals, points),
        points=found,
        grids=grids,
        centerness=[part.reshape(size) for part, size in zip(maps, sizes, strict=True)],
        ignored=int(targets.ignored.sum()),
        ranges=tuple(ranges),
        conventions=conventions,
    )


def _alone(
    points: Points, boxes: torch.Tensor, ignore: torch.Tensor, *, ranges: Sequence[float], conventions: Conventions
) -> torch.Tensor:
    """bool [M, P]: would the box get the point if it were the only one in the picture?"""
    step = max(1, _AT_ONCE // len(points.xy))
    parts = [torch.zeros((0, len(points.xy)), dtype=torch.bool)]
    for first in range(0, len(boxes), step):
        some = boxes[first : first + step, None]  # a batch of pictures with one box each
        single = Truth(some, torch.zeros(len(some), 1, dtype=torch.int64), ignore[first : first + step, None])
        parts.append(assign_targets(points, single, ranges=ranges, conventions=conventions).box >= 0)
    return torch.cat(parts)


def _boxes(
    boxes: torch.Tensor,
    indices: torch.Tensor,
    ignore: torch.Tensor,
    won: torch.Tensor,
    lost: torch.Tensor,
    points: Points,
) -> list[TruthBox]:
    listed = []
    for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        counts = [
            tuple(torch.bincount(points.level[mask[number]], minlength=len(STRIDES)).tolist()) for mask in (won, lost)
        ]
        listed.append(
            TruthBox(
                box=(x1, y1, x2, y2),
                index=int(indices[number]),
                ignore=bool(ignore[number]),
                area=(x2 - x1) * (y2 - y1),
                won=counts[0],
                lost=counts[1],
            )
        )
    return listed
