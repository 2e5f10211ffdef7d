"""Residual networks with the layout of ResNet-50 and ResNeXt and a hundredth of their weights, as timm models.

Tests that use them by name import this module.
"""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.resnet import Bottleneck, ResNet, _create_resnet

from fcos_cli.convert.backbones import BackboneInfo

_SHAPE: dict[str, Any] = {"block": Bottleneck, "layers": (1, 2, 1, 1), "channels": (8, 16, 32, 64)}


@register_model
def small_resnet(pretrained: bool = False, **options: Any) -> ResNet:
    """Stages of 1, 2, 1 and 1 blocks; 3×3 convolutions of 8, 16, 32 and 64 channels."""
    return _create_resnet("small_resnet", pretrained, **_SHAPE, **options)


@register_model
def small_resnext(pretrained: bool = False, **options: Any) -> ResNet:
    """The same, with 3×3 convolutions in 4 groups."""
    return _create_resnet("small_resnext", pretrained, **_SHAPE, cardinality=4, base_width=16, **options)


BY_SHAPE = {
    ((1, 2, 1, 1), 1, (8, 8)): BackboneInfo("small_resnet", caffe=True),
    ((1, 2, 1, 1), 1, (8, 2)): BackboneInfo("small_resnext", caffe=False),
}
"""For the table in `convert.backbones`."""
