"""NMS: candidates → detections. One definition for all backends: greedy, per class, on unchanged float coordinates.

`keep_mask` is one operator: eager PyTorch runs it as written here, and an export lowers it to the target's own
NonMaxSuppression. `suppress_by_sweeps` computes the same with plain tensor operations, for targets without
NonMaxSuppression.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import nms as greedy_nms

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.decode import Candidates

MAX_OFFSET_BOXES = 1000
"""Up to this many boxes per image, torchvision's `batched_nms` offsets classes on a CPU; above, it loops over classes.
"""


BUCKETS = (4, 8, 16, 24, 32, 48, 64, 128)
"""Groups up to these sizes are padded and compared together; larger ones are processed one by one."""


class BatchDetections(NamedTuple):
    """What remains after NMS, best first, padded to D places per image.

    boxes: float32 [B, D, 4], xyxy in pixels of network input (0 for padding), with ends as in `Conventions.box_ends`.
    scores: float32 [B, D] (0 for padding). classes: int64 [B, D], -1 for padding. counts: int64 [B].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    counts: Tensor


@torch.library.custom_op("fcos::keep_mask", mutates_args=())
def _keep_mask(
    boxes: Tensor, scores: Tensor, classes: Tensor, iou: float, rule: str, class_count: int, max_per_class: int
) -> Tensor:
    keep = scores > 0
    counts = keep.sum(1)
    # on a GPU torchvision's operator has other limits, so it is called directly
    together = (
        counts > MAX_OFFSET_BOXES
        if rule == "exact" or not boxes.is_cuda
        else torch.zeros_like(counts, dtype=torch.bool)
    )
    for picture in ((counts > 0) & ~together).nonzero()[:, 0].tolist():
        alive = keep[picture].nonzero()[:, 0]
        kept = _one_call(boxes[picture, alive], scores[picture, alive], classes[picture, alive], iou, rule)
        keep[picture, alive] = False
        keep[picture, alive[kept]] = True
    if bool(together.any()):
        many = (keep & together[:, None]).nonzero(as_tuple=True)
        kind = torch.float64 if rule == "exact" else boxes.dtype
        groups = many[0] * (classes.max() + 1) + classes[many]
        keep[many] = batched_keep_mask(boxes[many].to(kind), scores[many].to(kind), groups, iou=iou)
    return keep


def _one_call(boxes: Tensor, scores: Tensor, classes: Tensor, iou: float, rule: str) -> Tensor:
    """Indices of one image's survivors, from a single call for all classes, which are offset from each other."""
    if rule == "exact":
        boxes = boxes.double()
        boxes, scores = boxes + (classes * (boxes.max() - boxes.min() + 1))[:, None], scores.double()
    kept: Tensor = greedy_nms(boxes, scores, iou) if rule == "exact" else batched_nms(boxes, scores, classes, iou)
    return kept


@_keep_mask.register_fake
def _(
    boxes: Tensor, scores: Tensor, classes: Tensor, iou: float, rule: str, class_count: int, max_per_class: int
) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def keep_mask(
    candidates: Candidates,
    *,
    iou: float,
    conventions: Conventions = Conventions(),  # noqa: B008 (frozen)
    class_count: int = 0,
    max_per_class: int = 0,
) -> Tensor:
    """bool [B, P]: survivors of greedy NMS among candidates of the same image and class with score > 0.

    A box is removed if it overlaps a better one of its class by more than `iou`; ties in score go to the earlier box.
    Classes are separated by an offset in float64, where adding it is exact. torchvision's own float32 offset moves
    edges by up to 1/128 px and is used only if the conventions ask for it (`batched`; exports are always exact).
    Inclusive boxes overlap as if they were one pixel wider and higher. class_count and max_per_class are needed only by
    exported graphs, which may drop survivors of a class beyond its best `max_per_class`; `select` with that limit would
    drop them as well.
    """
    boxes = to_exclusive(candidates.boxes, conventions)
    keep: Tensor = _keep_mask(boxes, *candidates[1:], iou, conventions.nms, class_count, max_per_class)
    return keep


def select(candidates: Candidates, keep: Tensor, *, max_detections: int) -> BatchDetections:
    """The `max_detections` best candidates where `keep` [B, P] is true. Ties in score go to the earlier candidate."""
    boxes, scores, classes = candidates
    kept = torch.where(keep, scores, 0.0)
    best, order = _sorted_topk(kept, max_detections)
    full = best > 0
    return BatchDetections(
        boxes=boxes.gather(1, order[..., None].expand(-1, -1, 4)) * full[..., None],
        scores=best,
        classes=classes.gather(1, order).masked_fill(~full, -1),
        counts=full.sum(1),
    )


def _sorted_topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best `count` scores of each row [B, P] and their indices, best first. Ties go to the earlier index."""
    if torch.compiler.is_compiling():  # ONNX's TopK breaks ties this way; PyTorch does not specify it
        best, order = scores.topk(min(count, scores.shape[1]), dim=1)
        return best, order
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    return scores.gather(1, order), order


def to_exclusive(boxes: Tensor, conventions: Conventions) -> Tensor:
    """Boxes [..., 4] with exclusive ends, whatever the conventions."""
    return boxes + boxes.new_tensor([0.0, 0.0, 1.0, 1.0]) if conventions.box_ends == "inclusive" else boxes


def suppress(
    candidates: Candidates,
    *,
    iou: float,
    max_detections: int,
    conventions: Conventions = Conventions(),  # noqa: B008 (frozen)
) -> BatchDetections:
    """Candidates → the `max_detections` best survivors of each image. Ties in score go to the earlier candidate."""
    keep = keep_mask(candidates, iou=iou, conventions=conventions)
    return select(candidates, keep, max_detections=max_detections)


def suppress_by_sweeps(
    candidates: Candidates,
    *,
    iou: float,
    max_detections: int,
    sweeps: int,
    best: int,
    conventions: Conventions = Conventions(),  # noqa: B008 (frozen)
) -> tuple[BatchDetections, Tensor]:
    """`suppress` in tensor operations only. Also returns `converged`, bool [B]: whether the result is known to be
    exact.

    Compares the `best` candidates of each image with each other, [B, best, best], and repeats keep = alive and not
    suppressed by a kept box. Each sweep settles one more link of every chain of suppressions, so the result is exact
    once a sweep changes nothing. Candidates beyond `best` cannot affect better ones. Dropping them is exact if there
    are none, or if the result is full without them.
    """
    top, order = _sorted_topk(candidates.scores, best)
    boxes = candidates.boxes.gather(1, order[..., None].expand(-1, -1, 4))
    classes = candidates.classes.gather(1, order)
    alive = (top > 0).float()
    hits = (_pairwise_iou(to_exclusive(boxes, conventions)) > iou) & (classes[:, :, None] == classes[:, None, :])
    hits = hits.float().triu(1)  # [B, by, of]: only the better box, which comes first, suppresses

    keep = before = alive
    for _ in range(sweeps):
        before = keep
        keep = alive * (1 - (hits * keep[:, :, None]).amax(1))
    stable = (keep == before).all(1)

    found = select(Candidates(boxes, top, classes), keep > 0, max_detections=max_detections)
    whole = ((candidates.scores > 0).sum(1) <= top.shape[1]) | (found.counts >= max_detections)
    return found, stable & whole


def _pairwise_iou(boxes: Tensor) -> Tensor:
    """IoU of every pair of boxes of an image: [B, N, 4] → [B, N, N]; empty boxes overlap nothing."""
    lower = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    upper = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    sides = (upper - lower).clamp(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return overlap / (area[:, :, None] + area[:, None, :] - overlap).clamp(min=1e-12)


# --- many small groups at once ---------------------------------------------------------------------------------------


def batched_keep_mask(boxes: Tensor, scores: Tensor, groups: Tensor, *, iou: float) -> Tensor:
    """bool [N]: whether each box survives greedy NMS within its group.

    boxes [N, 4] xyxy and scores [N] of the same floating-point type, in which overlaps are computed as in torchvision's
    `nms`; groups int64 [N] ≥ 0. Ties in score go to the earlier box.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    _, sizes = torch.unique_consecutive(groups[order], return_counts=True)
    starts = sizes.cumsum(0) - sizes
    keep = torch.ones_like(scores, dtype=torch.bool)
    below = 1  # the box of a group of one is kept
    for size in BUCKETS:
        chosen = (sizes > below) & (sizes <= size)
        if bool(chosen.any()):
            slots = torch.arange(size, device=boxes.device)
            places = starts[chosen, None] + slots
            real = slots < sizes[chosen, None]
            indices = order[places.clamp(max=len(order) - 1)]
            keep[indices[real]] = _resolve(_suppression_matrix(boxes[indices], iou), real)[real]
        below = size
    for start, size in zip(starts[sizes > below].tolist(), sizes[sizes > below].tolist(), strict=True):
        group = order[start : start + size]
        keep[group] = False
        keep[group[greedy_nms(boxes[group], scores[group], iou)]] = True
    return keep


def _suppression_matrix(boxes: Tensor, iou: float) -> Tensor:
    """bool [G, n, n]: whether box i would suppress box j, which ranks below it. boxes [G, n, 4], best first."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    overlap = _intersection(x1, x2) * _intersection(y1, y2)
    return (overlap / (area[:, :, None] + area[:, None, :] - overlap) > iou).triu(1)


def _intersection(low: Tensor, high: Tensor) -> Tensor:
    """Length [G, n, n] of the intersection of every pair of intervals in a group; low, high [G, n]."""
    shared = torch.minimum(high[:, :, None], high[:, None, :]) - torch.maximum(low[:, :, None], low[:, None, :])
    return shared.clamp_(min=0)


def _resolve(hits: Tensor, real: Tensor) -> Tensor:
    """bool [G, n]: a box is kept unless a kept box suppresses it. Each sweep settles one more link of every chain."""
    keep = real
    while True:
        settled = real & ~(hits & keep[:, :, None]).any(1)
        if torch.equal(settled, keep):
            return keep
        keep = settled
