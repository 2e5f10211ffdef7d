"""The exported graph as one module: pixels in, detections out. It traces the same decode and NMS that PyTorch runs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fcos_cli.model.decode import decode
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import keep_mask, select, suppress_by_sweeps

SWEEPS, MAX_CANDIDATES = 16, 2048
"""For NMS as tensor operations: number of sweeps, and number of candidates compared per image."""


class Graph(nn.Module):
    """images [B, 3, H, W] → boxes, scores, classes, counts (`BatchDetections`), [converged,] raw outputs (`raw_names`).

    If `takes_sizes`, there is a second input: sizes, int64 [B, 2]. `converged`, bool [B], exists only with
    nms="tensor". The raw outputs are float32. They are graph outputs so that their names survive and the parity check
    can split the graph there; `finalize` hides them.
    """

    def __init__(self, model: FCOS, *, nms: Literal["op", "tensor"]) -> None:
        super().__init__()
        self.model, self.nms = model, nms

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        cls, ltrb, ctr = self.model(images)
        raw = RawOutputs([level.float() for level in cls], ltrb, [level.float() for level in ctr])
        config = self.model.config
        candidates = decode(raw, height=images.shape[-2], width=images.shape[-1], config=config, sizes=sizes)
        limit = config.max_detections
        if self.nms == "op":
            rules, count = config.conventions, cls[0].shape[1]
            keep = keep_mask(candidates, iou=config.nms_iou, conventions=rules, class_count=count, max_per_class=limit)
            return (*select(candidates, keep, max_detections=limit), *raw.cls, *raw.ltrb, *raw.ctr)
        detections, converged = suppress_by_sweeps(
            candidates,
            iou=config.nms_iou,
            max_detections=limit,
            sweeps=SWEEPS,
            best=MAX_CANDIDATES,
            conventions=config.conventions,
        )
        return (*detections, converged, *raw.cls, *raw.ltrb, *raw.ctr)


def takes_sizes(model: FCOS) -> bool:
    """Whether the exported graph has a second input `sizes`: (height, width) of each image inside its padding."""
    return model.config.conventions.clip == "picture"


def example_inputs(
    *, batch: int | None, size: tuple[int, int] | None, dtype: torch.dtype, sizes: bool
) -> tuple[Tensor, ...]:
    """Inputs for tracing. A dynamic batch is traced with two images, since a size of one would be specialized."""
    height, width = size or (256, 320)
    images = torch.zeros((batch or 2, 3, height, width), dtype=dtype)
    return (images, torch.tensor([[height, width]] * len(images))) if sizes else (images,)
