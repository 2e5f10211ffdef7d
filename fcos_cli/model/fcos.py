"""FCOS: images → raw outputs, and → detections. Builds itself from a ModelConfig."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcos_cli.model.backbone import Backbone
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.decode import decode
from fcos_cli.model.head import Head, RawOutputs
from fcos_cli.model.nms import BatchDetections, suppress
from fcos_cli.model.points import Points, all_points, make_grids


class FCOS(nn.Module):
    """Fully convolutional one-stage detection (Tian et al., 2019; improvements 2020).

    Takes RGB pixels 0…255, [B, 3, H, W], uint8 or float32. Normalization is part of the network, so it cannot get lost.
    `classes` is the number of classes; there is no background class.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, *, classes: int, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config, pretrained=pretrained)
        self.head = Head(config, classes)
        # not persistent: they are in the config, and torchvision's state dict has no such keys
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> RawOutputs:
        """Images [B, 3, H, W], RGB 0…255 → RawOutputs, per level [B, ·, ⌈H/s⌉, ⌈W/s⌉]."""
        normalized = (images.to(self.mean.dtype) - self.mean) / self.std
        if images.device.type != "meta" and not torch.compiler.is_compiling():
            normalized = normalized.contiguous(memory_format=torch.channels_last)
        # an exported network may be in half precision, but normalization never is
        raw: RawOutputs = self.head(self.backbone(normalized.to(next(self.backbone.parameters()).dtype)))
        return raw

    def points(self, raw: RawOutputs, *, input_size: tuple[int, int] | None = None) -> Points:
        """The points of these outputs, finest level first. input_size: (height, width) of the input they come from."""
        config = self.config
        grids = make_grids(raw.sizes(), config.strides, conventions=config.conventions, input_size=input_size)
        return all_points(grids, device=raw.cls[0].device)

    def detect(self, images: Tensor, sizes: Tensor | None = None) -> BatchDetections:
        """Images [B, 3, H, W], RGB 0…255 → detections in pixels of network input, with the config's thresholds.

        sizes: int64 [B, 2], (height, width) of each image inside its padded input.
        """
        return self.post_process(self(images), height=images.shape[-2], width=images.shape[-1], sizes=sizes)

    def post_process(self, raw: RawOutputs, *, height: int, width: int, sizes: Tensor | None = None) -> BatchDetections:
        """Raw outputs of images of height × width input pixels → detections. sizes: as in `detect`."""
        config = self.config
        candidates = decode(raw, height=height, width=width, config=config, sizes=sizes)
        return suppress(
            candidates, iou=config.nms_iou, max_detections=config.max_detections, conventions=config.conventions
        )
