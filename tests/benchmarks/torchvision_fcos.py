"""torchvision's FCOS class with the backbone, channels and towers of one of our configs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead

from fcos_cli.config import Config
from fcos_cli.data.training_set import Batch
from fcos_cli.model.backbone import Backbone


class Features(nn.Module):
    """The backbone and pyramid of a config, as torchvision's detectors expect them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.out_channels = config.model.channels
        self.backbone = Backbone(config.model)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {str(number): feature for number, feature in enumerate(self.backbone(images))}


def torchvision_fcos(config: Config, classes: int) -> detection.FCOS:
    """torchvision's FCOS for inputs of `config.data.size`, in training mode, with random weights."""
    mean, std = ([value / 255 for value in values] for values in (config.model.mean, config.model.std))
    return detection.FCOS(
        Features(config),
        num_classes=classes,
        head=FCOSHead(config.model.channels, 1, classes, num_convs=config.model.convs),
        anchor_generator=AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5),
        min_size=min(config.data.size),
        max_size=max(config.data.size),
        image_mean=mean,
        image_std=std,
        score_thresh=config.model.score_threshold,
    ).train()


def losses_of(model: nn.Module, batch: Batch) -> Tensor:
    """Sum of the losses of a batch of augmented images."""
    targets = [
        {"boxes": boxes[classes >= 0], "labels": classes[classes >= 0]}
        for boxes, classes in zip(batch.truth.boxes, batch.truth.classes, strict=True)
    ]
    losses: dict[str, Tensor] = model(list(batch.images.float() / 255), targets)
    return torch.stack(list(losses.values())).sum()
