"""FCOS made visible: what every point of every level says of one picture, and which points stand behind a detection.

Notable choices:
- Nothing is decided here. Candidates come from `decode` and detections from `FCOS.post_process`; which point a
  candidate belongs to is asked of `decode` itself, by giving it distances of 0: every box is then its own point.
- A candidate votes for the detection that suppressed it: the best one of its class that it overlaps by more than the
  model's `nms_iou`. A detection is its own first voter.
- Everything is in pixels of the network input; `Geometry` leads back to the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_iou

from fcos_cli.data.geometry import Geometry
from fcos_cli.model.config import STRIDES, ModelConfig
from fcos_cli.model.decode import Candidates, decode
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.points import Grid, make_grids
from fcos_cli.model.topk import combine_scores
from fcos_cli.runtime.facts import Facts

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LevelMaps:
    """What one level says, one value per point, all 0…1 but the distances; index [row, column].

    name: `P3` … `P7`. grid: where its points lie. classes: float32 [C, h, w], probability of each class.
    centerness: float32 [h, w]. scores: float32 [C, h, w], the final score of each class. ltrb: float32 [4, h, w], px of
    network input. features: float32 [h, w], root mean square over the channels of the pyramid's feature map, as a share
    of its largest; None where only raw outputs were at hand.
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
    """N candidates that voted for a detection, by detection and then by score, best first.

    detection: int64 [N], row of `Explanation.detections`. level: int64 [N], 0 = P3. xy: float32 [N, 2], the point.
    ltrb: float32 [N, 4], its distances. probability, centerness, score: float32 [N], 0…1, of the detection's class.
    iou: float32 [N] with the detection's box (1 for the detection itself).
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
        """Those of one detection, its own point first."""
        mine = self.detection == detection
        return Votes(**{name: getattr(self, name)[mine] for name in self.__dataclass_fields__})

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class DetectionVotes:
    """The detections, best first. boxes: float32 [D, 4] xyxy, exclusive ends. scores: float32 [D].
    classes, levels: int64 [D]; `levels` says which level each box came from, 0 = P3."""

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Explanation:
    """One picture, explained. image: uint8 [H, W, 3] RGB, the source. All else in px of the network input."""

    image: npt.NDArray[np.uint8]
    geometry: Geometry
    facts: Facts
    levels: list[LevelMaps]
    detections: DetectionVotes
    votes: Votes


def explain(model: FCOS, facts: Facts, image: npt.NDArray[np.uint8]) -> Explanation:
    """Explain what `model` (in eval mode) finds in `image`, uint8 [H, W, 3] RGB."""
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
    found, votes = find_votes(model, raw, height=height, width=width, sizes=sizes)
    levels = level_maps(raw, height=height, width=width, config=model.config, features=features)
    return Explanation(image, geometries[0], facts, levels, found, votes)


def level_maps(
    raw: RawOutputs, *, height: int, width: int, config: ModelConfig, features: list[Tensor] | None = None
) -> list[LevelMaps]:
    """What the raw outputs of one picture (batch of 1, height × width input pixels) say, level by level."""
    activity: list[Floats | None] = [None] * len(raw.cls)
    if features is not None:
        activity = [_activity(level[0]) for level in features]
    levels = zip(_grids(raw, height, width, config), raw.cls, raw.ltrb, raw.ctr, activity, strict=True)
    return [
        LevelMaps(
            name=f"P{number}",
            grid=grid,
            classes=_array(cls[0].float().sigmoid()),
            centerness=_array(ctr[0, 0].float().sigmoid()),
            scores=_array(combine_scores(cls, ctr, rule=config.conventions.score)[0]),
            ltrb=_array(ltrb[0]),
            features=active,
        )
        for number, (grid, cls, ltrb, ctr, active) in enumerate(levels, start=3)
    ]


def find_votes(
    model: FCOS, raw: RawOutputs, *, height: int, width: int, sizes: Tensor | None = None
) -> tuple[DetectionVotes, Votes]:
    """The detections in one picture (batch of 1) of height × width input pixels, and the candidates that voted.

    sizes: int64 [1, 2], (height, width) of the picture inside the input, as `decode` takes it.
    """
    config = model.config
    candidates = decode(raw, height=height, width=width, config=config, sizes=sizes)
    answer = model.post_process(raw, height=height, width=width, sizes=sizes)
    count = int(answer.counts[0])
    detections = Candidates(answer.boxes[0, :count], answer.scores[0, :count], answer.classes[0, :count])
    origin = _origins(candidates, detections)

    detection, iou = _attribute(candidates, origin, config)
    voters = (detection >= 0).nonzero()[:, 0]
    # stable sorts, the lesser key first: by detection, then by score; a detection scores highest among its own
    voters = voters[candidates.scores[0, voters].argsort(descending=True, stable=True)]
    voters = voters[detection[voters].argsort(stable=True)]

    level = torch.arange(candidates.scores.shape[1], device=origin.device) // config.candidates
    xy = points_of(raw, height=height, width=width, config=config)[voters]
    row = _rows(_grids(raw, height, width, config), xy, level[voters])
    cls, ltrb, ctr = (part[0] for part in raw.flat())
    boxes, scores, classes = detections
    if config.conventions.box_ends == "inclusive":
        boxes = boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    found = DetectionVotes(_array(boxes), _array(scores), _indices(classes), _indices(level[origin]))
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
    return found, votes


def points_of(raw: RawOutputs, *, height: int, width: int, config: ModelConfig) -> Tensor:
    """The point of every candidate of the first picture, in `decode`'s places: float32 [P, 2]."""
    still = RawOutputs(raw.cls, [torch.zeros_like(level) for level in raw.ltrb], raw.ctr)
    # a point may lie beyond the input's edge, and its box of no area is wanted here
    unclipped = replace(config.conventions, clip="after", empty_boxes="keep")
    config = config.model_copy(update={"conventions": unclipped})
    return decode(still, height=height, width=width, config=config).boxes[0, :, :2]


def _grids(raw: RawOutputs, height: int, width: int, config: ModelConfig) -> tuple[Grid, ...]:
    return make_grids(raw.sizes(), STRIDES, conventions=config.conventions, input_size=(height, width))


def _rows(grids: tuple[Grid, ...], xy: Tensor, level: Tensor) -> Tensor:
    """Place of each point [N, 2] of its level [N] in `raw.flat()`: int64 [N]."""
    widths = torch.tensor([grid.width for grid in grids], device=xy.device)
    counts = torch.tensor([grid.height * grid.width for grid in grids], device=xy.device)
    spacing = torch.tensor([grid.spacing[::-1] for grid in grids], device=xy.device)
    cell = (xy / spacing[level] - grids[0].offset).round().long()
    return (counts.cumsum(0) - counts)[level] + cell[:, 1] * widths[level] + cell[:, 0]


def _origins(candidates: Candidates, detections: Candidates) -> Tensor:
    """The candidate that became each detection [D]: same class, same score, and of those the nearest box."""
    boxes, scores, classes = (part[0] for part in candidates)
    same = (classes == detections.classes[:, None]) & (scores == detections.scores[:, None])  # [D, P]
    apart = torch.cdist(detections.boxes, boxes, p=1).masked_fill(~same, float("inf"))
    return apart.argmin(1)


def _attribute(candidates: Candidates, order: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """For each candidate [P] the row of `order` it voted for, or -1, and its IoU with that detection."""
    boxes, scores, classes = (part[0] for part in candidates)
    none = torch.full_like(classes, -1)
    if not len(order):
        return none, torch.zeros_like(scores)
    reach = boxes.double()
    if config.conventions.box_ends == "inclusive":
        reach = reach + reach.new_tensor([0.0, 0.0, 1.0, 1.0])
    iou = box_iou(reach, reach[order])  # [P, D]
    same = (classes[:, None] == classes[order]) & (scores > 0)[:, None]
    votes = same & (iou > config.nms_iou) & (scores[:, None] <= scores[order])
    votes[order] = torch.eye(len(order), dtype=torch.bool, device=order.device)
    iou[order, torch.arange(len(order), device=order.device)] = 1.0  # also that of a box without area
    first = votes.int().argmax(1)
    detection = torch.where(votes.any(1), first, none)
    return detection, iou.gather(1, first[:, None])[:, 0].float()


def _activity(feature: Tensor) -> Floats:
    strength = feature.float().square().mean(0).sqrt()
    return _array(strength / strength.max().clamp(min=1e-12))


def _indices(tensor: Tensor) -> npt.NDArray[np.int64]:
    return tensor.long().cpu().numpy()


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()
