"""Greedy NMS of many small groups at once: the same answer as one call per group, without the calls."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

BUCKETS = (4, 8, 16, 24, 32, 48, 64, 128)
"""Groups up to these sizes are compared together, padded; larger ones one by one."""


def batched_keep_mask(boxes: Tensor, scores: Tensor, groups: Tensor, *, iou: float) -> Tensor:
    """bool [N]: does the box survive among those of its group?

    boxes [N, 4] xyxy and scores [N] of one floating-point type, in which overlaps are worked out as torchvision's `nms`
    does; groups int64 [N] ≥ 0. Equal scores: the earlier is better.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    starts = sizes.cumsum(0) - sizes
    keep = torch.ones_like(scores, dtype=torch.bool)
    below = 1  # a group of one keeps it
    for size in BUCKETS:
        chosen = (sizes > below) & (sizes <= size)
        if bool(chosen.any()):
            slots = torch.arange(size, device=boxes.device)
            places = starts[chosen, None] + slots
            real = slots < sizes[chosen, None]
            indices = order[places.clamp(max=len(order) - 1)]
            keep[indices[real]] = _settle(_hits(boxes[indices], iou), real)[real]
        below = size
    for start, size in zip(starts[sizes > below].tolist(), sizes[sizes > below].tolist(), strict=True):
        group = order[start : start + size]
        keep[group] = False
        keep[group[nms(boxes[group], scores[group], iou)]] = True
    return keep


def _hits(boxes: Tensor, iou: float) -> Tensor:
    """bool [G, n, n]: would box i remove box j, which stands behind it? boxes [G, n, 4], best first."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    overlap = _shared(x1, x2) * _shared(y1, y2)
    return (overlap / (area[:, :, None] + area[:, None, :] - overlap) > iou).triu(1)


def _shared(low: Tensor, high: Tensor) -> Tensor:
    """Length [G, n, n] that every interval of a group shares with every other; low, high [G, n]."""
    shared = torch.minimum(high[:, :, None], high[:, None, :]) - torch.maximum(low[:, :, None], low[:, None, :])
    return shared.clamp_(min=0)


def _settle(hits: Tensor, real: Tensor) -> Tensor:
    """bool [G, n]: a box stays unless one that stays removes it. Each sweep settles one more link of every chain."""
    keep = real
    while True:
        settled = real & ~(hits & keep[:, :, None]).any(1)
        if torch.equal(settled, keep):
            return keep
        keep = settled
