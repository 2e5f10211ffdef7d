"""Initial weights of a new network."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcos_cli.config import Config, Origins, flatten
from fcos_cli.model.artifact import Artifact, load
from fcos_cli.model.backbone import OFFLINE_BACKBONES, load_offline_weights
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.open import default_weights, find_artifact

WITHOUT_DETECTOR = ("auto", "random", "offline", "pretrained")
"""Values of `train.init` that name no detector."""

BACKBONE_SETTINGS = {"mean", "std", "backbone_norm_eps", "stride_in_1x1", "deformable_stages"}
"""Model settings that depend on the backbone and its weights."""

WITHOUT_WEIGHTS = {"ranges", "backbone_norm", "candidates", "score_threshold", "nms_iou", "max_detections"}
"""Model settings that do not affect what the weights mean."""

_LEVEL = re.compile(
    r"(backbone\.fpn\.(?:inner|layer)_blocks\.|head\.regression_head\.scales\."
    r"|head\.(?:\w+_head\.conv|shared_tower)\.\d+\.)(\d+)(.*)"
)
"""Keys of layers that belong to one level: before, at and after its number."""


def build_initial(config: Config, classes: ClassTable) -> tuple[FCOS, str]:
    """Build a network for `classes`. Return it with a description of its initial weights.

    `train.init`: `random`; `offline` (ImageNet weights from the extra `weights`); `pretrained` (downloaded by timm);
    `default`, `coco` (torchvision's FCOS) or the path of a detector (all tensors that fit are copied, class rows by
    name); `auto`: see `resolve_init`.
    """
    init = resolve_init(config) if config.train.init == "auto" else config.train.init
    torch.manual_seed(config.train.seed)
    model = FCOS(config.model, classes=len(classes), pretrained=init == "pretrained")
    if init == "random":
        return model, "random weights"
    if init == "pretrained":
        return model, f"timm's pretrained {config.model.backbone} (ImageNet)"
    path = detector_file(init)
    if path is None:  # offline
        return model, load_offline_weights(model.backbone, config.model)
    names = {"default": "the default detector", "coco": "torchvision's FCOS trained on COCO"}
    artifact = load(path)
    artifact.check_weights()
    return model, copy_matching(model, artifact, classes, name=names.get(init, recorded_name(path)))


def recorded_name(path: Path) -> str:
    """A file and the folder that holds it: what trained weights may tell of the machine they come from."""
    return f"{path.parent.name}/{path.name}".lstrip("/")


def detector_file(init: str) -> Path | None:
    """Return the file of the detector that `train.init` names, or None if it does not name a detector."""
    if init in WITHOUT_DETECTOR:
        return None
    if init == "default":
        return default_weights()
    return find_artifact(init, backend="pytorch") if init == "coco" or Path(init).is_dir() else Path(init)


def model_of_init(config: Config, origins: Origins) -> dict[str, Any]:
    """Return the model settings (dotted keys) of the detector that `train.init` names, so that its weights fit.

    Settings that were set explicitly are left out, as are those that belong to the weights of another backbone, and
    the ranges of other levels.
    """
    file = None if config.train.init == "default" else detector_file(config.train.init)
    if file is None:
        return {}
    model = load(file).config
    settings = flatten({"model": model.model_dump()})
    if config.model.backbone != model.backbone and "model.backbone" in origins:
        settings = {k: value for k, value in settings.items() if k.removeprefix("model.") not in BACKBONE_SETTINGS}
    if config.model.strides != model.strides and "model.strides" in origins:
        del settings["model.ranges"]
    return {key: value for key, value in settings.items() if key not in origins}


def resolve_init(config: Config) -> str:
    """Return what `auto` stands for on this machine.

    The default detector, if it is the same network: a pyramid and a head that know what boxes are save a good part of
    the training, whatever the objects. Otherwise offline if installed, else the default detector if it has the same
    backbone, else random.
    """
    path = default_weights()
    known = load(path).config if path.is_file() else None
    if known is not None and _weights_fit(known, config.model):
        return "default"
    package = OFFLINE_BACKBONES.get(config.model.backbone)
    if package is not None and find_spec(package) is not None:
        return "offline"
    return "default" if known is not None and known.backbone == config.model.backbone else "random"


def _weights_fit(known: ModelConfig, wanted: ModelConfig) -> bool:
    """Whether the weights of one network, apart from those of its classes, mean the same in the other."""
    return known.model_dump(exclude=WITHOUT_WEIGHTS) == wanted.model_dump(exclude=WITHOUT_WEIGHTS)


def _at_levels_of(config: ModelConfig, artifact: Artifact) -> dict[str, Tensor]:
    """The artifact's weights, with the layers that belong to one level numbered as in a network of `config`.

    Those of strides that the network does not have are left out.
    """
    weights = {}
    for key, value in artifact.weights.items():
        place = _LEVEL.match(key)
        if place is None:
            weights[key] = value
        elif (stride := dict(enumerate(artifact.config.strides)).get(int(place[2]))) in config.strides:
            weights[f"{place[1]}{config.strides.index(stride)}{place[3]}"] = value
    return weights


@torch.no_grad()
def copy_matching(model: FCOS, artifact: Artifact, classes: ClassTable, *, name: str) -> str:
    """Copy all tensors that fit; levels are matched by stride, rows of the class layer by class name. Return a
    description.
    """
    state = model.state_dict()
    copied = 0
    for key, value in _at_levels_of(model.config, artifact).items():
        if key.startswith("head.classification_head.cls_logits."):
            continue
        if key in state and state[key].shape == value.shape:
            state[key].copy_(value)
            copied += 1
    matched = [(new, old) for new, old in enumerate(classes.match(artifact.classes)) if old is not None]
    layer: nn.Conv2d = model.head.classification_head.cls_logits
    for part, target in (("weight", layer.weight), ("bias", layer.bias)):
        source = artifact.weights.get(f"head.classification_head.cls_logits.{part}")
        if source is not None and target is not None and source.shape[1:] == target.shape[1:]:
            for new, old in matched:
                target[new] = source[old]
    total = len(state) - 2
    return f"{name} ({copied} of {total} tensors fit, {len(matched)} of {len(classes)} classes matched by name)"
