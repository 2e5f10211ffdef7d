"""NMS: candidates → detections. One semantic, eager and exported: greedy, per class, float coordinates untouched."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms as greedy_nms

from fcos_cli.model.decode import Candidates


class BatchDetections(NamedTuple):
    """What is left after NMS, best first, padded to D places per picture.

    boxes: float32 [B, D, 4], xyxy in pixels of network input (0 where empty). scores: float32 [B, D] (0 where empty).
    classes: int64 [B, D], -1 where empty. counts: int64 [B].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Tensor


def keep_mask(candidates: Candidates, *, iou: float) -> Tensor:
    """bool [B, P]: survivors of greedy NMS among candidates of the same picture and class with score > 0.

    A box goes when it overlaps a better one of its class by more than `iou`. Classes are moved apart in float64,
    where adding the offset is exact: torchvision's own float32 offset moves edges by up to 1/128 px.
    """
    keep = torch.zeros_like(candidates.scores, dtype=torch.bool)
    # picture by picture: the work grows with the square of what one call compares
    for boxes, scores, classes, kept in zip(*candidates, keep, strict=True):
        alive = scores.nonzero()[:, 0]
        if alive.numel() == 0:
            continue
        apart = boxes[alive].double()
        apart = apart + (classes[alive] * (apart.max() + 1))[:, None]
        kept[alive[greedy_nms(apart, scores[alive].double(), iou)]] = True
    return keep


def suppress(candidates: Candidates, *, iou: float, max_detections: int) -> BatchDetections:
    """Candidates → the `max_detections` best survivors of each picture. Equal scores: the earlier candidate first."""
    boxes, scores, classes = candidates
    kept = torch.where(keep_mask(candidates, iou=iou), scores, 0.0)
    # a stable sort, not topk: which of two equal scores comes first must not depend on the machine
    order = kept.argsort(dim=1, descending=True, stable=True)[:, :max_detections]
    best = kept.gather(1, order)
    full = best > 0
    return BatchDetections(
        boxes=boxes.gather(1, order[..., None].expand(-1, -1, 4)) * full[..., None],
        scores=best,
        classes=classes.gather(1, order).masked_fill(~full, -1),
        counts=full.sum(1),
    )
