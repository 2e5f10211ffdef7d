"""The documented rules once more, plain and slow, with every dialect's choice as an argument.

Written from the notes on each implementation, independently of fcos_cli. It gives the vectors of implementations whose
code may not be run here, and is itself checked against the vectors of those whose code was run (make_switches.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Rules:
    """One dialect. `plus` is what the implementation adds to every width and height of a box: 1 if inclusive."""

    offset: float = 0.5
    ends: str = "closed"  # closed, open, half-open
    radius: float = 1.5
    area: str = "exact"  # exact, plus (1 on each side), float32 (the difference to 1e8)
    activation: str = "relu"
    normalised: bool = True
    scales: bool = True
    smoothing: bool = False  # (intersection + 1) / (union + 1)
    units: str = "pixels"  # what the box loss sees: pixels or strides
    box_loss: str = "giou"
    weighted: bool = True  # box loss weighted by the centerness target
    quality: str = "centerness"  # or iou
    normaliser: str = "count"  # or average: 300 · 0.9 + count · 0.1, for all three
    threshold_on: str = "class"  # class, score (the root of the product)
    threshold: float = 0.05
    topk_by: str = "product"  # product, class
    topk: int = 1000
    score: str = "sqrt"
    clip: str = "after"  # before NMS, after, before-1 (to width - 1)
    drop_empty: str = "after"  # before, after, no
    nms_iou: float = 0.6
    plus: float = 0.0
    most: int = 100
    ties: bool = False  # equal scores at the cut may exceed `most`


class Found(NamedTuple):
    boxes: Tensor
    scores: Tensor
    labels: Tensor


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(-(-height // s), -(-width // s)) for s in STRIDES]


def points(height: int, width: int, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """xy [P, 2], stride [P] and level [P] of a padded size."""
    xy, stride, level = [], [], []
    for k, ((h, w), s) in enumerate(zip(level_sizes(height, width), STRIDES, strict=True)):
        for i in range(h):
            for j in range(w):
                xy.append([(j + rules.offset) * s, (i + rules.offset) * s])
                stride.append(float(s))
                level.append(k)
    return torch.tensor(xy), torch.tensor(stride), torch.tensor(level)


def sides(xy: Tensor, boxes: Tensor) -> Tensor:
    """Distances [P, M, 4] of every point to the edges of every box."""
    return torch.cat([xy[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - xy[:, None]], -1)


def assign(boxes: Tensor, size: tuple[int, int], rules: Rules) -> tuple[Tensor, Tensor]:
    """Matched box of every point [P], -1 for background, and its distances [P, 4] in pixels."""
    xy, stride, level = points(*size, rules)
    if len(boxes) == 0:
        return torch.full((len(xy),), -1), torch.zeros(len(xy), 4)
    distance = sides(xy, boxes)
    longest = distance.amax(-1)
    ends = torch.tensor([0.0, *(8.0 * s for s in STRIDES[:-1]), torch.inf])
    low, high = ends[level][:, None], ends[level + 1][:, None]
    fits = (longest > low) & (longest < high)
    if rules.ends != "open":
        fits |= longest == high
    if rules.ends == "closed":
        fits |= longest == low
    allowed = fits & (distance.amin(-1) > 0)
    if rules.radius:
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        near = (xy[:, None] - centre[None]).abs().amax(-1)
        allowed &= near < rules.radius * stride[:, None]
    extra = 1.0 if rules.area == "plus" else 0.0
    area = (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)
    if rules.area == "float32":
        area = 1e8 - (1e8 - area)  # float32 has steps of 8 up here
    cost = torch.where(allowed, area[None].double(), torch.inf)
    match = torch.tensor([min(range(len(row)), key=row.__getitem__) for row in cost.tolist()])
    match[~allowed.any(1)] = -1
    return match, distance[torch.arange(len(xy)), match.clamp(min=0)]


def centerness(ltrb: Tensor) -> Tensor:
    across, down = ltrb[:, [0, 2]], ltrb[:, [1, 3]]
    return (across.amin(-1) / across.amax(-1) * (down.amin(-1) / down.amax(-1))).sqrt()


def distances(raw: Tensor, stride: Tensor, level: Tensor, scales: Tensor, rules: Rules) -> Tensor:
    """Box branch [P, 4] → distances in pixels."""
    value = raw * scales[level][:, None] if rules.scales else raw
    value = value.exp() if rules.activation == "exp" else value.clamp(min=0)
    return value * stride[:, None] if rules.normalised else value


def overlaps(predicted: Tensor, truth: Tensor, *, smoothing: bool) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of distances around the same points."""
    lower, upper = torch.minimum(predicted, truth), torch.maximum(predicted, truth)
    common = (lower[:, 0] + lower[:, 2]) * (lower[:, 1] + lower[:, 3])
    hull = (upper[:, 0] + upper[:, 2]) * (upper[:, 1] + upper[:, 3])
    union = sum((d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (predicted, truth)) - common
    iou = (common + smoothing) / (union + smoothing)
    return iou, iou - (hull - union) / hull


def losses(
    cls: Tensor, box: Tensor, ctr: Tensor, truths: list[Tensor], labels: list[Tensor], size: tuple[int, int],
    scales: Tensor, rules: Rules,
) -> dict[str, Tensor]:  # fmt: skip
    """{"cls", "box", "ctr"} of a batch: cls [B, P, C], box [B, P, 4] before the activation, ctr [B, P]."""
    _, stride, level = points(*size, rules)
    target, ltrb, predicted = torch.zeros_like(cls), [], []
    unit = stride[:, None] if rules.units == "strides" else torch.ones_like(stride)[:, None]
    positive = torch.zeros(cls.shape[:2], dtype=torch.bool)
    for i, (boxes, names) in enumerate(zip(truths, labels, strict=True)):
        match, distance = assign(boxes, size, rules)
        positive[i] = match >= 0
        for p in positive[i].nonzero()[:, 0].tolist():
            target[i, p, names[match[p]]] = 1
        ltrb.append((distance / unit)[positive[i]])
        predicted.append((distances(box[i], stride, level, scales, rules) / unit)[positive[i]])
    want, said = torch.cat(ltrb), torch.cat(predicted)
    count = max(float(positive.sum()), 1.0)
    if rules.normaliser == "average":
        count = 300 * 0.9 + count * 0.1
    p = cls.sigmoid()
    wrong = target * (1 - p) + (1 - target) * p
    alpha = target * 0.25 + (1 - target) * 0.75
    focal = alpha * wrong**2 * F.binary_cross_entropy_with_logits(cls, target, reduction="none")
    iou, giou = overlaps(said, want, smoothing=rules.smoothing)
    term = -iou.clamp(min=1e-6).log() if rules.box_loss == "iou" else 1 - giou
    quality = centerness(want) if rules.quality == "centerness" else iou
    box_loss = (term * quality).sum() / max(float(quality.sum()), 1e-6) if rules.weighted else term.sum() / count
    logistic = F.binary_cross_entropy_with_logits(ctr[positive], quality, reduction="sum")
    return {"cls": focal.sum() / count, "box": box_loss, "ctr": logistic / count}


def suppressed(boxes: Tensor, scores: Tensor, labels: Tensor, rules: Rules) -> list[int]:
    """Places of the survivors of greedy NMS within each class, best first."""
    order = scores.argsort(descending=True, stable=True).tolist()
    kept: list[int] = []
    area = (boxes[:, 2:] - boxes[:, :2] + rules.plus).prod(1)
    for i in order:
        same = [k for k in kept if labels[k] == labels[i]]
        if same:
            lower, upper = torch.maximum(boxes[same, :2], boxes[i, :2]), torch.minimum(boxes[same, 2:], boxes[i, 2:])
            common = (upper - lower + rules.plus).clamp(min=0).prod(1)
            if bool((common / (area[same] + area[i] - common) > rules.nms_iou).any()):
                continue
        kept.append(i)
    return kept


def candidates(
    cls: Tensor, box: Tensor, ctr: Tensor, padded: tuple[int, int], scales: Tensor, rules: Rules
) -> tuple[Found, Tensor]:
    """The best (point, class) pairs of every level of one picture, unclipped, and the smallest margin of a cut."""
    xy, stride, level = points(*padded, rules)
    ltrb = distances(box, stride, level, scales, rules)
    boxes = torch.cat([xy - ltrb[:, :2], xy + ltrb[:, 2:]], 1)
    probability, product = cls.sigmoid(), cls.sigmoid() * ctr.sigmoid()[:, None]
    score = product.sqrt() if rules.score == "sqrt" else product
    compared = probability if rules.threshold_on == "class" else product.sqrt()
    key = probability if rules.topk_by == "class" else product
    margin = [(compared - rules.threshold).abs().amin()]
    chosen = []
    for k in range(len(STRIDES)):
        passed = (compared > rules.threshold) & (level == k)[:, None]
        place = passed.flatten().nonzero()[:, 0]
        ranked = place[key.flatten()[place].argsort(descending=True, stable=True)]
        chosen.append(ranked[: rules.topk])
        if len(ranked) > rules.topk:
            margin.append(key.flatten()[ranked[rules.topk - 1]] - key.flatten()[ranked[rules.topk]])
    places = torch.cat(chosen)
    classes = cls.shape[1]
    return Found(boxes[places // classes], score.flatten()[places], places % classes), torch.stack(margin).amin()


def clipped(boxes: Tensor, size: tuple[float, float]) -> Tensor:
    height, width = size
    x, y = boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def select(found: Found, keep: Tensor | list[int]) -> Found:
    return Found(*(part[keep] for part in found))


def detect(
    cls: Tensor, box: Tensor, ctr: Tensor, padded: tuple[int, int], size: tuple[int, int], scales: Tensor,
    rules: Rules, original: tuple[int, int] | None = None,
) -> Found:  # fmt: skip
    """Final detections of one picture of `size` in a batch of `padded`; in pixels of `original` if that is given.

    Boxes stay in the implementation's own convention (inclusive where `plus` is 1).
    """
    found, _ = candidates(cls, box, ctr, padded, scales, rules)
    if rules.clip.startswith("before"):
        less = 1 if rules.clip == "before-1" else 0
        found = found._replace(boxes=clipped(found.boxes, (size[0] - less, size[1] - less)))
    if rules.drop_empty == "before":
        found = select(found, (found.boxes[:, 2:] > found.boxes[:, :2]).all(1))
    found = select(found, suppressed(*found, rules))
    if rules.ties and len(found.scores) > rules.most:
        found = select(found, found.scores >= found.scores.sort(descending=True).values[rules.most - 1])
    elif not rules.ties:
        found = select(found, list(range(min(rules.most, len(found.scores)))))
    if original:
        factor = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2)
        found = found._replace(boxes=found.boxes * factor)
    if rules.clip == "after":
        found = found._replace(boxes=clipped(found.boxes, original or size))
    if rules.drop_empty == "after":
        found = select(found, (found.boxes[:, 2:] > found.boxes[:, :2]).all(1))
    return found
