"""Losses of raw outputs against targets, as named terms, in float32. They work without any boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, distributed
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from fcos_cli.model.config import BoxLoss, ClassLoss
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.points import Points
from fcos_cli.model.targets import Targets


class Normalizers(NamedTuple):
    """Divisors of the sums in the losses; float32 scalars. points: of `cls` and `centerness`. box: of `box`."""

    points: Tensor
    box: Tensor


def compute_losses(
    raw: RawOutputs,
    targets: Targets,
    points: Points,
    *,
    class_loss: ClassLoss = "focal",
    box_loss: BoxLoss = "giou",
    box_by_centerness: bool = False,
    quality: Literal["centerness", "iou"] = "centerness",
    divide_by: Normalizers | None = None,
) -> dict[str, Tensor]:
    """Return {"cls", "box", "centerness"}: scalars, each a sum divided by the number of positive points (at least 1).

    divide_by: the divisors of a larger batch that contains this one; default: those of these targets.
    box_by_centerness: weight points by centerness in `box`, and divide by the sum of the weights (the authors' FCOS,
    AdelaiDet, mmdetection). quality: target of the centerness branch, as in `Conventions`. The number of positives is
    averaged over processes, so that averaging gradients over processes gives the gradient of one large batch. Points
    inside ignored boxes are excluded from `cls`; only positive points are included in `box` and `centerness`. Sources:
    FCOS eq. 2–3; focal loss α 0.25, γ 2 (RetinaNet); varifocal loss α 0.75, γ 2 (VarifocalNet eq. 2).
    """
    logits, ltrb, ctr = raw.flat()
    positive = targets.classes >= 0
    count, box_count = divide_by or normalizers([targets], box_by_centerness=box_by_centerness)
    # multiply instead of indexing by a mask: no special case without positives, and every parameter gets a gradient
    weight = positive.float()
    box = box_terms(ltrb, targets.ltrb, points, kind=box_loss)
    shares = targets.centerness * weight if box_by_centerness else weight
    overlap = iou(ltrb.detach(), targets.ltrb) if quality == "iou" or class_loss == "varifocal" else None
    aim = overlap if overlap is not None and quality == "iou" else targets.centerness
    branch = F.binary_cross_entropy_with_logits(ctr, aim, reduction="none")
    classes = class_terms(logits, targets.classes, kind=class_loss, overlap=overlap)
    return {
        "cls": (classes * ~targets.ignored).sum() / count,
        "box": (box * shares).sum() / box_count,
        "centerness": (branch * weight).sum() / count,
    }


def normalizers(targets: Sequence[Targets], *, box_by_centerness: bool) -> Normalizers:
    """The divisors for all parts of a batch together: sums over the parts, averaged over processes."""
    positive = torch.stack([(part.classes >= 0).sum().float() for part in targets]).sum()
    count = mean_over_processes(positive).clamp(min=1)
    if not box_by_centerness:
        return Normalizers(count, count)
    shares = torch.stack([(part.centerness * (part.classes >= 0)).sum() for part in targets]).sum()
    return Normalizers(count, mean_over_processes(shares).clamp(min=1e-6))


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes of a distributed run, detached. All of them must call it."""
    value = value.detach().clone()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(value)
        value = value / distributed.get_world_size()
    return value


def class_terms(logits: Tensor, classes: Tensor, *, kind: ClassLoss, overlap: Tensor | None = None) -> Tensor:
    """Loss of each point [B, P], summed over C independent binary classifications. logits [B, P, C], classes [B, P].

    overlap [B, P]: IoU of each point's box with its target, 0…1; `varifocal` takes it for the target of the class, and
    as the weight of the point. Default: 1.
    """
    places = classes.clamp(min=0)[..., None]
    # F.one_hot would be int64, twice as large as the logits
    truth = logits.new_zeros(logits.shape).scatter_(-1, places, (classes >= 0)[..., None].to(logits.dtype))
    if kind == "focal":
        return cast(Tensor, sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0)).sum(-1)
    if kind == "varifocal":
        quality = truth if overlap is None else truth * overlap[..., None]
        weight = torch.where(quality > 0, quality, 0.75 * logits.sigmoid().square())
        return (F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * weight).sum(-1)
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(-1)


def box_terms(predicted: Tensor, truth: Tensor, points: Points, *, kind: BoxLoss) -> Tensor:
    """Loss of each point's distances [B, P]; predicted and truth [B, P, 4] in pixels of network input.

    `giou`: 1 - GIoU. `iou`: -ln IoU (UnitBox, FCOS v1). `l1`, `l2`: mean absolute or squared difference of the four
    distances in strides, so that all levels have equal weight. Values at background points are finite but meaningless.
    """
    if kind in ("l1", "l2"):
        difference = (predicted - truth) / points.stride[:, None]
        return (difference.abs() if kind == "l1" else difference.square()).mean(-1)
    if kind == "iou":
        return -iou(predicted, truth).clamp(min=1e-6).log()
    # distances are boxes around a common point: (-l, -t, r, b)
    sign = predicted.new_tensor([-1.0, -1.0, 1.0, 1.0])
    return cast(Tensor, generalized_box_iou_loss(predicted * sign, truth * sign, reduction="none"))


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes around the same point, given as distances ltrb ≥ 0 [..., 4] each; 0 where both are empty."""
    width, height = (torch.minimum(a, b)[..., i::2].sum(-1) for i in (0, 1))
    overlap = width * height
    areas = [(d[..., 0] + d[..., 2]) * (d[..., 1] + d[..., 3]) for d in (a, b)]
    return overlap / (areas[0] + areas[1] - overlap).clamp(min=1e-9)
