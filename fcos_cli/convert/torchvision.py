"""Convert an artifact to a state dict of torchvision's `fcos_resnet50_fpn`, if that model gives the same results."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.config import STRIDES
from fcos_cli.model.presets import PRESETS

_LAYER = "head.classification_head.cls_logits"
_MAX_ROWS = 1000
_UNUSED_BIAS = -100.0
"""Bias of a row without a class. Its probability is 0 in float32."""


@dataclass(frozen=True)
class StateDict:
    """A torchvision model.

    weights: for `load_state_dict(…, strict=True)`. call: constructor call of the model. labels: meaning of its labels.
    """

    weights: dict[str, Tensor]
    call: str
    labels: str


def to_torchvision(artifact: Artifact, *, where: Path) -> StateDict:
    """Convert `artifact`. Raises ModelError naming every difference from torchvision's model."""
    differences = _differences(artifact)
    if differences:
        raise ModelError(
            "torchvision's fcos_resnet50_fpn would give different results",
            where=where,
            remedy="only a model that was converted from torchvision's can be converted back: training resizes images "
            "differently; for other runtimes use fcos export",
            details=differences,
        )
    weights, by_id = dict(artifact.weights), _rows_by_id(artifact)
    total = max(by_id) + 1
    for part, fill in (("weight", 0.0), ("bias", _UNUSED_BIAS)):
        rows = weights[f"{_LAYER}.{part}"]
        weights[f"{_LAYER}.{part}"] = torch.full((total, *rows.shape[1:]), fill)
        weights[f"{_LAYER}.{part}"][by_id] = rows
    for key in list(weights):  # torchvision's BatchNorm has this buffer
        if key.endswith(".running_var"):
            weights.setdefault(f"{key.removesuffix('running_var')}num_batches_tracked", torch.tensor(0))
    ids = list(artifact.classes.ids) == by_id
    return StateDict(
        weights={key: value.detach().to("cpu").contiguous().clone() for key, value in weights.items()},
        call=_call(artifact, total),
        labels="labels are the dataset's category ids" if ids else "labels are class indices, from 0",
    )


def save(path: Path, state: StateDict) -> None:
    """Write the tensors with torch.save, atomically."""
    buffer = io.BytesIO()  # on a full disk, torch.save to a file hides the reason behind an internal error
    torch.save(state.weights, buffer)
    with atomic_write(path, binary=True) as file:
        file.write(buffer.getbuffer())


def _rows_by_id(artifact: Artifact) -> list[int]:
    """Return each class's row: its category id, as in torchvision, or its index if the ids are too large."""
    ids = list(artifact.classes.ids)
    return ids if min(ids) >= 0 and max(ids) < _MAX_ROWS else list(range(len(ids)))


def _differences(artifact: Artifact) -> list[str]:
    config, preset = artifact.config, PRESETS["torchvision"]
    conventions = asdict(preset.conventions)
    differences = [
        f"convention {name} is {value}, torchvision's is {conventions[name]}"
        for name, value in asdict(config.conventions).items()
        if value != conventions[name]
    ]
    expected = {key: preset.model[key] for key in ("channels", "convs", "norm", "groups", "mean", "std", "ranges")}
    expected |= {"backbone": "resnet50", "strides": STRIDES, "stride_in_1x1": False, "tower": "full"}
    expected |= {"shared_convs": 0, "top_from": "p5"}
    expected |= {"deformable_stages": (), "deformable_tower": False}
    differences += [
        f"{name} is {getattr(config, name)}, torchvision's is {value}"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if config.backbone_norm_eps not in (0.0, 1e-5):  # 0 means timm's default, 1e-5 for a ResNet
        differences.append(f"backbone_norm_eps is {config.backbone_norm_eps:g}, torchvision's is 1e-05")
    resize = {key: value for key, value in preset.geometry.items() if key not in ("size", "pad_value")}
    differences += [
        f"resize rule: {name} is {artifact.geometry.get(name)}, torchvision's is {value}"
        for name, value in resize.items()
        if artifact.geometry.get(name) != value
    ]
    return differences


def _call(artifact: Artifact, rows: int) -> str:
    """Return the constructor call, with only the arguments that differ from torchvision's defaults."""
    config, preset = artifact.config, PRESETS["torchvision"]
    arguments = {"weights": None, "weights_backbone": None, "num_classes": rows}
    sizes = dict(zip(("min_size", "max_size"), artifact.geometry["size"], strict=True))
    defaults = dict(zip(("min_size", "max_size"), preset.geometry["size"], strict=True))
    arguments |= {name: size for name, size in sizes.items() if size != defaults[name]}
    names = {
        "score_thresh": "score_threshold",
        "nms_thresh": "nms_iou",
        "detections_per_img": "max_detections",
        "topk_candidates": "candidates",
    }
    for argument, key in names.items():
        if getattr(config, key) != preset.model[key]:
            arguments[argument] = getattr(config, key)
    return f"fcos_resnet50_fpn({', '.join(f'{name}={value}' for name, value in arguments.items())})"
