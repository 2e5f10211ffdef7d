"""From an artifact of ours back to torchvision: a state dict for its `fcos_resnet50_fpn`, where that answers alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import ModelError
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.presets import PRESETS

_LAYER = "head.classification_head.cls_logits"
_MOST_ROWS = 1000
_NEVER = -100.0
"""Bias of a row that is no class: its probability is 0 in float32."""


@dataclass(frozen=True)
class StateDict:
    """weights: what `load_state_dict(…, strict=True)` takes. call: the model it is for. labels: what they mean."""

    weights: dict[str, Tensor]
    call: str
    labels: str


def to_torchvision(artifact: Artifact, *, where: Path) -> StateDict:
    """Raises ModelError naming every fact in which the model differs from what torchvision's can be."""
    differences = _differences(artifact)
    if differences:
        raise ModelError(
            "torchvision's fcos_resnet50_fpn would not answer as this model does",
            where=f"{where}:\n    " + "\n    ".join(differences),
            remedy="only models that began as torchvision's can go back (fcos train --init coco); "
            "for another runtime: fcos export",
        )
    weights, by_id = dict(artifact.weights), _rows_by_id(artifact)
    total = max(by_id) + 1
    for part, empty in (("weight", 0.0), ("bias", _NEVER)):
        rows = weights[f"{_LAYER}.{part}"]
        weights[f"{_LAYER}.{part}"] = torch.full((total, *rows.shape[1:]), empty)
        weights[f"{_LAYER}.{part}"][by_id] = rows
    for key in list(weights):  # its BatchNorm counts batches
        if key.endswith(".running_var"):
            weights.setdefault(f"{key.removesuffix('running_var')}num_batches_tracked", torch.tensor(0))
    ids = list(artifact.classes.ids) == by_id
    return StateDict(
        weights={key: value.detach().to("cpu").contiguous().clone() for key, value in weights.items()},
        call=_call(artifact, total),
        labels="labels are the data set's category ids" if ids else "labels are class indices, from 0",
    )


def save(path: Path, state: StateDict) -> None:
    """Write the tensors with torch.save, atomically."""
    with atomic_write(path, binary=True) as file:
        torch.save(state.weights, file)


def _rows_by_id(artifact: Artifact) -> list[int]:
    """Each class's row: its category id as torchvision has it, or its index where ids would make a giant layer."""
    ids = list(artifact.classes.ids)
    return ids if min(ids) >= 0 and max(ids) < _MOST_ROWS else list(range(len(ids)))


def _differences(artifact: Artifact) -> list[str]:
    config, preset = artifact.config, PRESETS["torchvision"]
    theirs = asdict(preset.conventions)
    found = [
        f"convention {name} is {value}, torchvision's is {theirs[name]}"
        for name, value in asdict(config.conventions).items()
        if value != theirs[name]
    ]
    wanted = {key: preset.model[key] for key in ("channels", "convs", "norm", "groups", "mean", "std", "ranges")}
    wanted |= {"backbone": "resnet50", "stride_in_1x1": False}
    found += [
        f"{name} is {getattr(config, name)}, torchvision's is {value}"
        for name, value in wanted.items()
        if getattr(config, name) != value
    ]
    if config.backbone_norm_eps not in (0.0, 1e-5):  # 0 is timm's own, which is 1e-5 in a ResNet
        found.append(f"backbone_norm_eps is {config.backbone_norm_eps:g}, torchvision's is 1e-05")
    resize = {key: value for key, value in preset.geometry.items() if key not in ("size", "pad_value")}
    found += [
        f"resize rule: {name} is {artifact.geometry.get(name)}, torchvision's is {value}"
        for name, value in resize.items()
        if artifact.geometry.get(name) != value
    ]
    return found


def _call(artifact: Artifact, rows: int) -> str:
    """The constructor's call with the arguments that are not torchvision's defaults."""
    config, preset = artifact.config, PRESETS["torchvision"]
    arguments = {"weights": None, "weights_backbone": None, "num_classes": rows}
    sizes = dict(zip(("min_size", "max_size"), artifact.geometry["size"], strict=True))
    usual = dict(zip(("min_size", "max_size"), preset.geometry["size"], strict=True))
    arguments |= {name: size for name, size in sizes.items() if size != usual[name]}
    names = {
        "score_thresh": "score_threshold",
        "nms_thresh": "nms_iou",
        "detections_per_img": "max_detections",
        "topk_candidates": "candidates",
    }
    for theirs, ours in names.items():
        if getattr(config, ours) != preset.model[ours]:
            arguments[theirs] = getattr(config, ours)
    return f"fcos_resnet50_fpn({', '.join(f'{name}={value}' for name, value in arguments.items())})"
