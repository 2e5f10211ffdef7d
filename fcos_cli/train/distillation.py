"""Knowledge distillation: a network learns from what a trained detector finds in the same images, besides the labels.

A label says which object is at a point. The teacher also says how sure one can be of it, where a box that is hard to
see ends, and what is in images put together from parts of others (Hinton et al., 2015, "Distilling the Knowledge in a
Neural Network").
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fcos_cli.config import Config
from fcos_cli.errors import UsageError
from fcos_cli.model.artifact import Artifact, load
from fcos_cli.model.backbone import check_maps
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.config import ModelConfig
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.losses import box_terms
from fcos_cli.model.optimize.fuse import fold_batch_norm
from fcos_cli.model.points import Points
from fcos_cli.train.initial_weights import detector_file, recorded_name

SHARED = ("point_offset", "stride_rule", "quality")
"""Conventions by which the outputs at a point mean the same in both networks."""


class Lesson(NamedTuple):
    """What the teacher says at each point: classes [B, P, C] and centerness [B, P], probabilities 0…1, and ltrb
    [B, P, 4], pixels of network input. float32.
    """

    classes: Tensor
    ltrb: Tensor
    centerness: Tensor


class Teacher:
    """A trained detector whose outputs another network of `config` imitates, for the classes of `classes`.

    name: as the trained weights record it; sha256: of the file. Both are empty if there is no file. Raises UsageError
    if it lacks a class, or if its outputs mean something else: other strides, or other conventions in SHARED.
    """

    def __init__(
        self, artifact: Artifact, *, config: ModelConfig, classes: ClassTable, name: str = "", sha256: str = ""
    ) -> None:
        check_teacher(artifact, config=config, classes=classes)
        self.name, self.sha256 = name, sha256
        self.network = artifact.build().requires_grad_(requires_grad=False)
        fold_batch_norm(self.network)
        self.columns = [index for index in classes.match(artifact.classes) if index is not None]

    def to(self, device: torch.device) -> Teacher:
        self.network.to(device).to(memory_format=torch.channels_last)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Lesson:
        """Images [B, 3, H, W], RGB 0…255 → what the teacher says, with the classes of the network that learns."""
        logits, ltrb, ctr = self.network(images).flat()
        return Lesson(logits[..., self.columns].sigmoid(), ltrb, ctr.sigmoid())


def load_teacher(config: Config, classes: ClassTable) -> Teacher | None:
    """The detector that `train.teacher` names, or None. Raises UsageError and ModelError if it cannot be used."""
    if not config.train.teacher:
        return None
    path = detector_file(config.train.teacher)
    if path is None:
        raise UsageError(
            f"{config.train.teacher!r} is not a detector", where="train.teacher", remedy="name a file or run folder"
        )
    artifact = load(path)
    check_maps(artifact.config, size=config.data.size)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Teacher(artifact, config=config.model, classes=classes, name=recorded_name(path), sha256=sha256)


def check_teacher(artifact: Artifact, *, config: ModelConfig, classes: ClassTable) -> None:
    """Raise UsageError if a network of `config` cannot learn `classes` from this detector."""
    missing = [name for name in classes.names if name not in artifact.classes.index_of_name]
    if missing:
        raise UsageError(
            f"the teacher does not know the class {missing[0]!r}, only {', '.join(artifact.classes.names)}",
            where="train.teacher",
            remedy="use a detector that was trained on the same classes",
        )
    theirs, ours = (
        {"strides": model.strides, **{name: getattr(model.conventions, name) for name in SHARED}}
        for model in (artifact.config, config)
    )
    for name, value in ours.items():
        if theirs[name] != value:
            key = "model.strides" if name == "strides" else f"model.conventions.{name}"
            raise UsageError(
                f"the teacher has {key} = {theirs[name]}, and the network {value}, so their outputs differ in meaning",
                where="train.teacher",
                remedy=f"train with {key} = {theirs[name]}, or use another teacher",
            )


def distillation_loss(raw: RawOutputs, lesson: Lesson, points: Points, *, divide_by: Tensor) -> Tensor:
    """The sum over the points of a batch of the differences to the teacher, divided by `divide_by`; a scalar, float32.

    Classes: binary cross-entropy against the teacher's probabilities, weighted by the squared difference, so that the
    many points where both see nothing do not count (quality focal loss; Li et al., 2020). Box (1 - GIoU) and centerness
    (cross-entropy) count as much as the teacher is sure of an object at the point: its best class × its centerness.
    """
    logits, ltrb, ctr = raw.flat()
    sure = lesson.classes.amax(-1) * lesson.centerness
    difference = (logits.detach().sigmoid() - lesson.classes).square()
    classes = F.binary_cross_entropy_with_logits(logits, lesson.classes, reduction="none") * difference
    box = box_terms(ltrb, lesson.ltrb, points, kind="giou")
    centerness = F.binary_cross_entropy_with_logits(ctr, lesson.centerness, reduction="none")
    return (classes.sum() + ((box + centerness) * sure).sum()) / divide_by
