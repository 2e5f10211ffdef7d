"""Decode: raw outputs → candidates, a fixed number per level. Shared by eager PyTorch and all exports."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fcos_cli.model.config import ModelConfig
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.points import Grid, make_grids
from fcos_cli.model.topk import topk_candidates


class Candidates(NamedTuple):
    """The best (point, class) pairs of all levels: P = levels · k places per image.

    boxes: float32 [B, P, 4], xyxy in pixels of network input, clipped according to `Conventions.clip`. scores: float32
    [B, P], 0…1; 0 marks an empty place. classes: int64 [B, P].
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def decode(raw: RawOutputs, *, height: int, width: int, config: ModelConfig, sizes: Tensor | None = None) -> Candidates:
    """Decode the raw outputs of images of `height` × `width` input pixels.

    sizes: int64 [B, 2], (height, width) of each image inside the input; None = all of it. Only conventions that clip at
    the image use it. Candidates below `config.score_threshold` become empty. Source: FCOS §3.1, and the authors'
    inference code, which multiplies every class by the centerness before selecting the best.
    """
    rules = config.conventions
    grids = make_grids(raw.sizes(), config.strides, conventions=rules, input_size=(height, width))
    levels = [
        _decode_level(cls, ltrb, ctr, grid=grid, config=config)
        for cls, ltrb, ctr, grid in zip(raw.cls, raw.ltrb, raw.ctr, grids, strict=True)
    ]
    boxes = torch.cat([level.boxes for level in levels], dim=1)
    scores = torch.cat([level.scores for level in levels], dim=1)
    if rules.clip != "after":
        last = 1 if rules.box_ends == "inclusive" else 0
        boxes = _clip(boxes, height - last, width - last, None if sizes is None else sizes - last, rule=rules.clip)
    if rules.empty_boxes == "before-nms":
        scores = scores * (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return Candidates(boxes, scores, torch.cat([level.classes for level in levels], dim=1))


def _clip(boxes: Tensor, height: int, width: int, sizes: Tensor | None, *, rule: str) -> Tensor:
    """Clip boxes [B, P, 4] to the input, or to each image's own `sizes`."""
    if rule == "input" or sizes is None:
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    else:
        high, wide = (sizes[:, axis, None, None].to(boxes.dtype) for axis in (0, 1))
        x, y = boxes[..., 0::2].clamp(min=0).minimum(wide), boxes[..., 1::2].clamp(min=0).minimum(high)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def _decode_level(cls: Tensor, ltrb: Tensor, ctr: Tensor, *, grid: Grid, config: ModelConfig) -> Candidates:
    """The k best of one level, before clipping: boxes [B, k, 4], scores [B, k], classes [B, k]."""
    classes = cls.shape[1]
    scores, place = topk_candidates(cls, ctr, config=config)
    class_index = place.fmod(classes)  # the same as % for integers ≥ 0, in one operator instead of five
    point = (place - class_index) // classes

    centre = grid.xy(device=cls.device)[point]
    distances = ltrb.float().flatten(2).transpose(1, 2).gather(1, point[..., None].expand(-1, -1, 4))
    boxes = torch.cat((centre - distances[..., :2], centre + distances[..., 2:]), dim=-1)
    return Candidates(boxes, scores, class_index)
