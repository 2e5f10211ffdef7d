"""THE decode: raw outputs → candidates, a fixed number per level. Eager PyTorch and every export share it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fcos_cli.model.config import STRIDES, ModelConfig
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.points import grid


class Candidates(NamedTuple):
    """The best (point, class) pairs of every level, side by side: P = levels · k places per picture.

    boxes: float32 [B, P, 4], xyxy in pixels of network input, clipped to it. scores: float32 [B, P], 0…1; a place
    with score 0 is empty. classes: int64 [B, P].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def combine(logits: Tensor, ctr: Tensor, *, rule: str) -> Tensor:
    """Final score of *every* class of a point: its probability times the point's centerness (or the root of it).

    Multiplying all classes, not only the best one, lets two objects share a point. Broadcasts; float32.
    """
    product = logits.float().sigmoid() * ctr.float().sigmoid()
    return product.sqrt() if rule == "sqrt" else product


def decode(raw: RawOutputs, *, height: int, width: int, config: ModelConfig) -> Candidates:
    """Raw outputs of pictures of `height` × `width` input pixels → Candidates.

    Candidates below `config.score_threshold` (on the combined score) are emptied. Source: FCOS §3.1 and the authors'
    inference code's rule that every class is multiplied by the centerness before the best are chosen.
    """
    levels = [
        _decode_level(cls, ltrb, ctr, stride=stride, config=config)
        for cls, ltrb, ctr, stride in zip(raw.cls, raw.ltrb, raw.ctr, STRIDES, strict=True)
    ]
    boxes = torch.cat([level.boxes for level in levels], dim=1)
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    boxes = torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)
    scores = torch.cat([level.scores for level in levels], dim=1)
    return Candidates(boxes, scores, torch.cat([level.classes for level in levels], dim=1))


def _decode_level(cls: Tensor, ltrb: Tensor, ctr: Tensor, *, stride: int, config: ModelConfig) -> Candidates:
    """The k best of one level, not clipped yet: boxes [B, k, 4], scores [B, k], classes [B, k]."""
    _, classes, height, width = cls.shape
    scores = combine(cls, ctr, rule=config.conventions.score).permute(0, 2, 3, 1).flatten(1)  # [B, h·w·C]
    # k zeros behind: the k best then always exist, and k stays constant for every input size (export needs that)
    best, place = _best(F.pad(scores, (0, config.candidates)), config.candidates, threshold=config.score_threshold)
    place = place.clamp(max=height * width * classes - 1)
    class_index = place.fmod(classes)  # of whole numbers ≥ 0 the same as %, and one operation where that is five
    point = (place - class_index) // classes

    centre = grid(height, width, stride=stride, offset=config.conventions.point_offset, device=cls.device)[point]
    distances = ltrb.float().flatten(2).transpose(1, 2).gather(1, point[..., None].expand(-1, -1, 4))
    boxes = torch.cat((centre - distances[..., :2], centre + distances[..., 2:]), dim=-1)
    return Candidates(boxes, best * (best >= config.score_threshold), class_index)


def _best(scores: Tensor, k: int, *, threshold: float) -> tuple[Tensor, Tensor]:
    """The k highest of each row [B, N] and their places, best first; of equal scores the earlier place comes first.

    ONNX defines its TopK so. PyTorch leaves open which of two equal values comes first, and which is cut off.
    """
    best, place = scores.topk(k, dim=1)
    if torch.compiler.is_compiling():
        return best, place
    if bool((best[:, -1] >= threshold).any()):  # rare: equal scores might be cut at the k-th place
        last = scores.shape[1] - 1
        # the bits of a score ≥ 0 sort like the score itself; behind them the place, counted from the end
        backwards = torch.arange(last, -1, -1, device=scores.device)
        keys = (scores.view(torch.int32).long() << 32 | backwards).topk(k, dim=1).values
        place = last - (keys & 0xFFFFFFFF)
        return scores.gather(1, place), place
    place, _ = place.sort(dim=1)
    best, order = scores.gather(1, place).sort(dim=1, descending=True, stable=True)
    return best, place.gather(1, order)
