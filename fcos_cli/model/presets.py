"""The published FCOS dialects by name. No torch.

Each preset describes an implementation's inference and target assignment, as read in its source:
`torchvision` (pytorch/vision, models/detection/fcos.py), `fcos-v1` and `fcos-imprv` (the authors' FCOS, configs
without and with "imprv"), `adelaidet` and `adelaidet-iou` (AdelaiDet, BOX_QUALITY "ctrness" and "iou"), `detectron2`
(modeling/meta_arch/fcos.py), `mmdet-base` and `mmdet-tricks` (mmdetection 3, configs fcos_r50-caffe_fpn_gn-head_1x
and …-head-center-normbbox-centeronreg-giou). `default` is used for training new networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fcos_cli.model.conventions import Conventions

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CAFFE_MEAN, UNIT = (122.7717, 115.9465, 102.9801), (1.0, 1.0, 1.0)
"""RGB, for pixels 0…255. Conversion reverses the input channels of weights trained on BGR."""

REALTIME_SIZE = [512, 736]
"""Shorter side, limit of the longer side, in pixels, of AdelaiDet's real-time models (configs FCOS_RT)."""


@dataclass(frozen=True)
class Preset:
    """A dialect: its conventions, its values of ModelConfig, and its resize rule as JSON."""

    conventions: Conventions
    model: dict[str, Any] = field(default_factory=dict)
    geometry: dict[str, Any] = field(default_factory=dict)


def _paper_resize(mean: tuple[float, float, float], *, rounding: str, filter_: str) -> dict[str, Any]:
    """Shorter side 800, longer at most 1333, padded with the mean colour to multiples of 32."""
    return {
        "mode": "shortest",
        "size": [800, 1333],
        "divisor": 32,
        "pad_value": list(mean),
        "rounding": rounding,
        "filter": filter_,
    }


def _model(mean: tuple[float, float, float], std: tuple[float, float, float], **values: Any) -> dict[str, Any]:
    shared: dict[str, Any] = {"candidates": 1000, "score_threshold": 0.05, "nms_iou": 0.6, "max_detections": 100}
    shared |= {"channels": 256, "convs": 4, "groups": 32, "norm": "group", "backbone_norm_eps": 1e-5}
    return shared | {"mean": mean, "std": std, "ranges": (64.0, 128.0, 256.0, 512.0)} | values


_TORCHVISION = Preset(
    Conventions(
        point_offset=0.0,
        stride_rule="padded",
        range_ends="open",
        area="float32",
        threshold_ends="open",
        clip="picture",
        nms="batched",
        empty_boxes="keep",
    ),
    _model(IMAGENET_MEAN, IMAGENET_STD, score_threshold=0.2),
    _paper_resize(IMAGENET_MEAN, rounding="floor", filter_="float"),
)

_FCOS_IMPRV = Preset(
    Conventions(
        range_ends="closed",
        area="plus-one",
        scales=True,
        threshold_on="class",
        threshold_ends="open",
        clip="picture",
        box_ends="inclusive",
        empty_boxes="keep",
    ),
    _model(CAFFE_MEAN, UNIT, stride_in_1x1=True),
    _paper_resize(CAFFE_MEAN, rounding="short-first", filter_="pillow"),
)

_ADELAIDET = Preset(
    Conventions(
        range_ends="closed",
        scales=True,
        threshold_on="class",
        threshold_ends="open",
        clip="after",
        nms="batched",
    ),
    _model(IMAGENET_MEAN, UNIT, stride_in_1x1=True),
    _paper_resize(IMAGENET_MEAN, rounding="twice", filter_="pillow"),
)

_MMDET_TRICKS = Preset(
    Conventions(
        range_ends="closed",
        scales=True,
        score="product",
        threshold_on="class",
        threshold_ends="open",
        best_by="class",
        clip="picture",
        nms="batched",
        empty_boxes="before-nms",
    ),
    _model(IMAGENET_MEAN, UNIT, stride_in_1x1=True),
    _paper_resize(IMAGENET_MEAN, rounding="half-up", filter_="point"),
)

_V1 = {"radius": 0.0, "activation": "exp", "stride_normalised": False, "centerness_on": "class"}
"""Differences of the first paper's code from the authors' improvements."""


def _v1(preset: Preset, **model: Any) -> Preset:
    values: dict[str, Any] = _V1
    return replace(preset, conventions=replace(preset.conventions, **values), model=preset.model | model)


PRESETS: dict[str, Preset] = {
    "default": Preset(Conventions()),
    "torchvision": _TORCHVISION,
    "fcos-v1": _v1(_FCOS_IMPRV),
    "fcos-imprv": _FCOS_IMPRV,
    "adelaidet": _ADELAIDET,
    "adelaidet-iou": replace(_ADELAIDET, conventions=replace(_ADELAIDET.conventions, quality="iou")),
    "detectron2": Preset(
        Conventions(range_ends="open", area="float32", threshold_ends="open", clip="after", nms="batched"),
        _model(IMAGENET_MEAN, UNIT, score_threshold=0.2, stride_in_1x1=True),
        _paper_resize(IMAGENET_MEAN, rounding="twice", filter_="pillow"),
    ),
    "mmdet-base": replace(
        _v1(_MMDET_TRICKS, mean=CAFFE_MEAN, nms_iou=0.5),
        geometry=_paper_resize(CAFFE_MEAN, rounding="half-up", filter_="point"),
    ),
    "mmdet-tricks": _MMDET_TRICKS,
}


def preset_name(conventions: Conventions) -> str:
    """Return the name of the preset with exactly these conventions, or `custom`."""
    return next((name for name, preset in PRESETS.items() if preset.conventions == conventions), "custom")
