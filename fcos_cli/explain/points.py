"""Explanation of one image: what every point of every level predicts, and which points voted for a detection.

Design notes:

- This module does not reimplement detection. Candidates come from `decode`, detections from `FCOS.post_process`. To get
  the point of each candidate, `decode` is called with all distances set to 0, so that every box is its own point.
- A candidate votes for the detection that suppressed it: the best one of its class that it overlaps by more than the
  model's `nms_iou`. A detection is its own first voter.
- Everything is in pixels of the network input; `Geometry` maps back to the image. `explain` clips the detections to the
  image, as `fcos predict` does; the distances of a point may reach beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_iou

from fcos_cli.data.geometry import Geometry
from fcos_cli.model.config import ModelConfig, level_name
from fcos_cli.model.decode import Candidates, decode
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import to_exclusive
from fcos_cli.model.points import Grid, make_grids
from fcos_cli.model.topk import combine_scores
from fcos_cli.runtime.facts import Facts

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LevelMaps:
    """Predictions of one level, one value per point; index [row, column]. All but the distances are 0…1.

    name: such as `P3`. grid: positions of the points. classes: float32 [C, h, w], probability of each class.
    centerness: float32 [h, w]. scores: float32 [C, h, w], final score of each class. ltrb: float32 [4, h, w], px of
    network input. features: float32 [h, w], root mean square over the channels of the pyramid's feature map, relative
    to its maximum; None if only raw outputs were given.
    """

    name: str
    grid: Grid
    classes: Floats
    centerness: Floats
    scores: Floats
    ltrb: Floats
    features: Floats | None = None


@dataclass(frozen=True)
class Votes:
    """N candidates that voted for a detection, sorted by detection and then by descending score.

    detection: int64 [N], row of `Explanation.detections`. level: int64 [N], 0 = finest. xy: float32 [N, 2], the point.
    ltrb: float32 [N, 4], its distances. probability, centerness, score: float32 [N], 0…1, of the detection's class.
    iou: float32 [N], with the detection's box (1 for the detection itself).
    """

    detection: npt.NDArray[np.int64]
    level: npt.NDArray[np.int64]
    xy: Floats
    ltrb: Floats
    probability: Floats
    centerness: Floats
    score: Floats
    iou: Floats

    def of(self, detection: int) -> Votes:
        """The votes for one detection, its own point first."""
        selected = self.detection == detection
        return Votes(**{name: getattr(self, name)[selected] for name in self.__dataclass_fields__})

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class DetectionVotes:
    """The detections, best first, with their levels.

    boxes: float32 [D, 4] xyxy, exclusive ends. scores: float32 [D]. classes: int64 [D]. levels: int64 [D], level that
    each box came from, 0 = finest.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Explanation:
    """The explanation of one image. image: uint8 [H, W, 3] RGB, the source. All else in px of network input."""

    image: npt.NDArray[np.uint8]
    geometry: Geometry
    facts: Facts
    levels: list[LevelMaps]
    detections: DetectionVotes
    votes: Votes


def explain(model: FCOS, facts: Facts, image: npt.NDArray[np.uint8]) -> Explanation:
    """Explain the detections of `model` (in eval mode) in `image`, uint8 [H, W, 3] RGB."""
    pixels, geometries = facts.resize.batch([image])
    device = next(model.parameters()).device
    features: list[Tensor] = []
    hook = model.backbone.register_forward_hook(lambda _module, _inputs, maps: features.extend(maps))
    try:
        with torch.inference_mode():
            raw = model(torch.from_numpy(pixels).to(device))
    finally:
        hook.remove()
    height, width = pixels.shape[-2:]
    sizes = torch.tensor([geometries[0].resized[::-1]], device=device)
    found = find_votes(model, raw, height=height, width=width, sizes=sizes)
    detections, votes = _on_image(*found, geometries[0], keep_empty=facts.conventions.empty_boxes == "keep")
    levels = level_maps(raw, height=height, width=width, config=model.config, features=features)
    return Explanation(image, geometries[0], facts, levels, detections, votes)


def level_maps(
    raw: RawOutputs, *, height: int, width: int, config: ModelConfig, features: list[Tensor] | None = None
) -> list[LevelMaps]:
    """Predictions per level from the raw outputs of one image (batch of 1, height × width input pixels)."""
    strengths: list[Floats | None] = [None] * len(raw.cls)
    if features is not None:
        strengths = [_strength(level[0]) for level in features]
    levels = zip(_grids(raw, height, width, config), raw.cls, raw.ltrb, raw.ctr, strengths, strict=True)
    return [
        LevelMaps(
            name=level_name(grid.stride),
            grid=grid,
            classes=_array(cls[0].float().sigmoid()),
            centerness=_array(ctr[0, 0].float().sigmoid()),
            scores=_array(combine_scores(cls, ctr, rule=config.conventions.score)[0]),
            ltrb=_array(ltrb[0]),
            features=strength,
        )
        for grid, cls, ltrb, ctr, strength in levels
    ]


def find_votes(
    model: FCOS, raw: RawOutputs, *, height: int, width: int, sizes: Tensor | None = None
) -> tuple[DetectionVotes, Votes]:
    """The detections in one image (batch of 1) of height × width input pixels, and the candidates that voted.

    sizes: int64 [1, 2], (height, width) of the image inside the input, as in `decode`.
    """
    config = model.config
    candidates = decode(raw, height=height, width=width, config=config, sizes=sizes)
    output = model.post_process(raw, height=height, width=width, sizes=sizes)
    count = int(output.counts[0])
    detections = Candidates(output.boxes[0, :count], output.scores[0, :count], output.classes[0, :count])
    origin = _origins(candidates, detections)

    detection, iou = _attribute(candidates, origin, config)
    voters = (detection >= 0).nonzero()[:, 0]
    # stable sorts by score and then by detection; a detection's own point has its highest score
    voters = voters[candidates.scores[0, voters].argsort(descending=True, stable=True)]
    voters = voters[detection[voters].argsort(stable=True)]

    level = torch.arange(candidates.scores.shape[1], device=origin.device) // config.candidates
    xy = points_of(raw, height=height, width=width, config=config)[voters]
    row = _rows(_grids(raw, height, width, config), xy, level[voters])
    cls, ltrb, ctr = (part[0] for part in raw.flat())
    boxes, scores, classes = detections
    boxes = to_exclusive(boxes, config.conventions)
    result = DetectionVotes(_array(boxes), _array(scores), _indices(classes), _indices(level[origin]))
    votes = Votes(
        detection=_indices(detection[voters]),
        level=_indices(level[voters]),
        xy=_array(xy),
        ltrb=_array(ltrb[row]),
        probability=_array(cls[row, candidates.classes[0, voters]].sigmoid()),
        centerness=_array(ctr[row].sigmoid()),
        score=_array(candidates.scores[0, voters]),
        iou=_array(iou[voters]),
    )
    return result, votes


def _on_image(
    detections: DetectionVotes, votes: Votes, geometry: Geometry, *, keep_empty: bool
) -> tuple[DetectionVotes, Votes]:
    """Clip the boxes to the image and drop those without area, with their votes, as `to_source` does."""
    limit = np.tile(np.array(geometry.resized, np.float32), 2)
    clipped = replace(detections, boxes=np.clip(detections.boxes, 0, limit))
    keep = (clipped.boxes[:, 2] > clipped.boxes[:, 0]) & (clipped.boxes[:, 3] > clipped.boxes[:, 1])
    keep |= keep_empty
    kept = DetectionVotes(**{name: getattr(clipped, name)[keep] for name in clipped.__dataclass_fields__})
    voters = {name: getattr(votes, name)[keep[votes.detection]] for name in votes.__dataclass_fields__}
    row = keep.cumsum() - 1  # in `kept`
    return kept, Votes(**{**voters, "detection": row[voters["detection"]]})


def points_of(raw: RawOutputs, *, height: int, width: int, config: ModelConfig) -> Tensor:
    """The point of every candidate of the first image, in the order of `decode`: float32 [P, 2]."""
    zero = RawOutputs(raw.cls, [torch.zeros_like(level) for level in raw.ltrb], raw.ctr)
    # points may lie beyond the edge of the input, and boxes without area must be kept
    unclipped = replace(config.conventions, clip="after", empty_boxes="keep")
    config = config.model_copy(update={"conventions": unclipped})
    return decode(zero, height=height, width=width, config=config).boxes[0, :, :2]


def _grids(raw: RawOutputs, height: int, width: int, config: ModelConfig) -> tuple[Grid, ...]:
    return make_grids(raw.sizes(), config.strides, conventions=config.conventions, input_size=(height, width))


def _rows(grids: tuple[Grid, ...], xy: Tensor, level: Tensor) -> Tensor:
    """Index of each point [N, 2] of its level [N] in `raw.flat()`: int64 [N]."""
    widths = torch.tensor([grid.width for grid in grids], device=xy.device)
    counts = torch.tensor([grid.height * grid.width for grid in grids], device=xy.device)
    spacing = torch.tensor([grid.spacing[::-1] for grid in grids], device=xy.device)
    cell = (xy / spacing[level] - grids[0].offset).round().long()
    return (counts.cumsum(0) - counts)[level] + cell[:, 1] * widths[level] + cell[:, 0]


def _origins(candidates: Candidates, detections: Candidates) -> Tensor:
    """The candidate of each detection [D]: same class, same score, nearest box."""
    boxes, scores, classes = (part[0] for part in candidates)
    same = (classes == detections.classes[:, None]) & (scores == detections.scores[:, None])  # [D, P]
    distance = torch.cdist(detections.boxes, boxes, p=1).masked_fill(~same, float("inf"))
    return distance.argmin(1)


def _attribute(candidates: Candidates, order: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """For each candidate [P], the row of `order` that it voted for, or -1, and its IoU with that detection."""
    boxes, scores, classes = (part[0] for part in candidates)
    none = torch.full_like(classes, -1)
    if not len(order):
        return none, torch.zeros_like(scores)
    extents = to_exclusive(boxes.double(), config.conventions)
    iou = box_iou(extents, extents[order])  # [P, D]
    same = (classes[:, None] == classes[order]) & (scores > 0)[:, None]
    votes = same & (iou > config.nms_iou) & (scores[:, None] <= scores[order])
    votes[order] = torch.eye(len(order), dtype=torch.bool, device=order.device)
    iou[order, torch.arange(len(order), device=order.device)] = 1.0  # also for boxes without area
    first = votes.int().argmax(1)
    detection = torch.where(votes.any(1), first, none)
    return detection, iou.gather(1, first[:, None])[:, 0].float()


def _strength(feature: Tensor) -> Floats:
    strength = feature.float().square().mean(0).sqrt()
    return _array(strength / strength.max().clamp(min=1e-12))


def _indices(tensor: Tensor) -> npt.NDArray[np.int64]:
    return tensor.long().cpu().numpy()


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()
