"""Explanation of training targets: which points learn which box, where boxes compete, and which get no point.

All assignments come from `model.targets.assign_targets`. A box is a candidate for a point if the point is assigned to
it when it is alone in the image. Several candidates compete for the point; the winner is the one that `assign_targets`
selects with all boxes present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.data.boxes import scale_boxes
from fcos_cli.data.geometry import Geometry, ResizeRule
from fcos_cli.data.samples import Sample
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Grid, Points, all_points, make_grids
from fcos_cli.model.targets import Truth, assign_targets, to_box_ends

Floats = npt.NDArray[np.float32]

_CHUNK = 1 << 22  # point × box pairs compared at a time, to bound the memory


@dataclass(frozen=True)
class TruthBox:
    """A ground-truth box.

    box: xyxy in px of network input. index: class index. ignore: crowd or difficult, not learned. area: px² of network
    input. won, lost: number of points per level (lost: points assigned to another box although this one was a
    candidate).
    """

    box: tuple[float, float, float, float]
    index: int
    ignore: bool
    area: float
    won: tuple[int, ...]
    lost: tuple[int, ...]

    @property
    def orphan(self) -> bool:
        """Whether the box should be learned but has no point."""
        return not self.ignore and not sum(self.won)

    @property
    def reason(self) -> str:
        """Why an orphan has no point."""
        if sum(self.lost):
            return f"other boxes take all {sum(self.lost)} of its points"
        return "it contains no point of its level"


@dataclass(frozen=True)
class PositivePoint:
    """A point with a target. xy: px of network input. ltrb: distances to the edges of `box`, px.

    box: index of the box it learns. rivals: indices of the boxes that lost it, smallest first.
    """

    level: int
    xy: tuple[float, float]
    ltrb: tuple[float, float, float, float]
    centerness: float
    box: int
    rivals: tuple[int, ...]


@dataclass(frozen=True)
class TruthExplanation:
    """The targets of one image. image: uint8 [H, W, 3] RGB. grids: positions of the points per level.

    centerness: per level float32 [h, w], 0 for background. ignored: number of background points inside ignored boxes,
    which have no class loss.
    """

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
    strides: Sequence[int],
    ranges: Sequence[float],
    conventions: Conventions,
) -> TruthExplanation:
    """Compute the targets of `image` (uint8 [H, W, 3] RGB, the image of `sample`) at the model's input size.

    strides, ranges: of the levels, as in ModelConfig.
    """
    geometry = rule.geometry(image.shape[1], image.shape[0])
    height, width = rule.canvas([geometry])
    sizes = [(-(-height // stride), -(-width // stride)) for stride in strides]
    grids = make_grids(sizes, strides, conventions=conventions, input_size=(height, width))
    points = all_points(grids)
    size = (sample.width, sample.height)  # as annotated, which may not be that of the file
    boxes = torch.from_numpy(geometry.forward(scale_boxes(sample.boxes, size=size, to=geometry.source)))
    indices, ignore = torch.from_numpy(sample.classes), torch.from_numpy(sample.ignore)

    truth = to_box_ends(Truth(boxes[None], indices[None], ignore[None]), conventions)
    boxes = truth.boxes[0]
    targets = assign_targets(points, truth, ranges=ranges, conventions=conventions)
    candidates = _candidates(points, boxes, ignore, ranges=ranges, conventions=conventions)
    won = targets.box[0] == torch.arange(len(boxes))[:, None]
    rivals = candidates & ~won & (targets.box[0] >= 0)

    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).tolist()
    positives = []
    for index in (targets.box[0] >= 0).nonzero()[:, 0].tolist():
        x, y = points.xy[index].tolist()
        left, top, right, bottom = targets.ltrb[0, index].tolist()
        positives.append(
            PositivePoint(
                level=int(points.level[index]),
                xy=(x, y),
                ltrb=(left, top, right, bottom),
                centerness=float(targets.centerness[0, index]),
                box=int(targets.box[0, index]),
                rivals=tuple(sorted(rivals[:, index].nonzero()[:, 0].tolist(), key=lambda rival: areas[rival])),
            )
        )
    maps = np.split(targets.centerness[0].numpy(), np.cumsum([h * w for h, w in sizes])[:-1])
    return TruthExplanation(
        image=image,
        geometry=geometry,
        classes=classes,
        boxes=_boxes(boxes, indices, ignore, won, rivals, points),
        points=positives,
        grids=grids,
        centerness=[part.reshape(size) for part, size in zip(maps, sizes, strict=True)],
        ignored=int(targets.ignored.sum()),
        ranges=tuple(ranges),
        conventions=conventions,
    )


def _candidates(
    points: Points, boxes: torch.Tensor, ignore: torch.Tensor, *, ranges: Sequence[float], conventions: Conventions
) -> torch.Tensor:
    """Whether each box would get each point if it were the only box in the image: bool [M, P]."""
    step = max(1, _CHUNK // len(points.xy))
    parts = [torch.zeros((0, len(points.xy)), dtype=torch.bool)]
    for first in range(0, len(boxes), step):
        chunk = boxes[first : first + step, None]  # a batch of images with one box each
        single = Truth(chunk, torch.zeros(len(chunk), 1, dtype=torch.int64), ignore[first : first + step, None])
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
    result = []
    for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        counts = [
            tuple(torch.bincount(points.level[mask[number]], minlength=len(points.grids)).tolist())
            for mask in (won, lost)
        ]
        result.append(
            TruthBox(
                box=(x1, y1, x2, y2),
                index=int(indices[number]),
                ignore=bool(ignore[number]),
                area=(x2 - x1) * (y2 - y1),
                won=counts[0],
                lost=counts[1],
            )
        )
    return result
