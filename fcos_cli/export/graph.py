"""The exported graph as one module: pixels in, detections out. Traces the same decode and NMS that PyTorch runs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fcos_cli.model.decode import decode
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import keep_mask, select, suppress_by_sweeps

SWEEPS, COMPARED = 16, 2048
"""Of the tensor form of NMS: how often it looks again, and how many candidates of a picture it compares."""


class Graph(nn.Module):
    """images [B, 3, H, W] → boxes, scores, classes, counts (`BatchDetections`), [converged,] raw outputs (`RAW`).

    With `takes_sizes`, a second input, sizes int64 [B, 2]. `converged` bool [B] exists for the tensor form of NMS only.
    The raw outputs are float32; they are returned so that their names stay in the file, where the proof of parity cuts
    it; a finished file does not show them.
    """

    def __init__(self, model: FCOS, *, nms: Literal["op", "tensor"]) -> None:
        super().__init__()
        self.model, self.nms = model, nms

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        cls, ltrb, ctr = self.model(images)
        raw = RawOutputs([level.float() for level in cls], ltrb, [level.float() for level in ctr])
        config = self.model.config
        candidates = decode(raw, height=images.shape[-2], width=images.shape[-1], config=config, sizes=sizes)
        most = config.max_detections
        if self.nms == "op":
            rules, count = config.conventions, cls[0].shape[1]
            keep = keep_mask(candidates, iou=config.nms_iou, conventions=rules, class_count=count, max_per_class=most)
            return (*select(candidates, keep, max_detections=most), *raw.cls, *raw.ltrb, *raw.ctr)
        found, converged = suppress_by_sweeps(
            candidates,
            iou=config.nms_iou,
            max_detections=most,
            sweeps=SWEEPS,
            best=COMPARED,
            conventions=config.conventions,
        )
        return (*found, converged, *raw.cls, *raw.ltrb, *raw.ctr)


def half_body(model: FCOS) -> FCOS:
    """The network's body in half precision, in place; normalisation, distances, decode and NMS stay in float32."""
    model.backbone.half()
    model.head.half()
    return model


def takes_sizes(model: FCOS) -> bool:
    """Has the exported graph a second input `sizes`, (height, width) of each picture inside its padded input?"""
    return model.config.conventions.clip == "picture"


def example(*, batch: int | None, size: tuple[int, int] | None, dtype: torch.dtype, sizes: bool) -> tuple[Tensor, ...]:
    """Inputs to trace with: two pictures where the batch is dynamic (a batch of one would be taken for a constant)."""
    height, width = size or (256, 320)
    images = torch.zeros((batch or 2, 3, height, width), dtype=dtype)
    return (images, torch.tensor([[height, width]] * len(images))) if sizes else (images,)
