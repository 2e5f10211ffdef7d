"""An exported model that is PyTorch in disguise, whole or with one thing wrong: what the proof has to find out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MethodType

import numpy as np
import torch
from torch import Tensor

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.export.cuts import Found, NoCut, Pixels, Raw, Shape
from fcos_cli.export.graph import RAW
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.decode import Candidates, decode
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import BatchDetections, suppress
from fcos_cli.runtime.detector import RawDetections
from tests.tiny import CLASSES, tiny_model

PHOTOS = ("cat.jpg", "astronaut.jpg")


def seeing_artifact(*, classes: int = 3, **changes: object) -> Artifact:
    """A tiny network whose untrained weights are made louder, so that it finds a few dozen things in a photo."""
    model = tiny_model(classes=classes, **changes)
    with torch.no_grad():
        for branch in (model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg):
            branch.weight.mul_(40)
        model.head.regression_head.bbox_ctrness.weight.mul_(40)
        model.head.regression_head.bbox_reg.bias.fill_(2.0)
    table = CLASSES if classes == 3 else CLASSES.from_names([f"class {i}" for i in range(classes)])
    return Artifact(model.state_dict(), model.config, table, ResizeRule("letterbox", (160, 192)).to_json())


@dataclass
class FakeCuts:
    """Cuts of a PyTorch model. cannot: layers that it refuses. damage: what becomes of its answers."""

    model: FCOS
    shape: Shape = (None, None, None)
    cannot: tuple[str, ...] = ()
    damage: Callable[[Found], Found] = lambda found: found
    backend: str = "disguise"
    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def _called(self, layer: str, images: Pixels) -> None:
        self.calls.append((layer, images.shape))
        if layer in self.cannot:
            raise NoCut(f"no {layer} here")

    def raw(self, images: Pixels) -> Raw:
        self._called("raw", images)
        with torch.inference_mode():
            raw = self.model(torch.from_numpy(images))
        return dict(zip(RAW, (level.numpy() for part in raw for level in part), strict=True))

    def post(self, raw: Raw, images: Pixels) -> Found:
        self._called("post", images)
        given = [torch.from_numpy(raw[name]) for name in RAW]
        return self._found(RawOutputs(given[:5], given[5:10], given[10:]), images)

    def detect(self, images: Pixels) -> Found:
        self._called("detect", images)
        with torch.inference_mode():
            return self._found(self.model(torch.from_numpy(images)), images)

    def _found(self, raw: RawOutputs, images: Pixels) -> Found:
        with torch.inference_mode():
            found = self.model.post_process(raw, height=images.shape[2], width=images.shape[3])
        return self.damage(Found(RawDetections(*(tensor.numpy().copy() for tensor in found))))


def without_last(found: Found) -> Found:
    """Damage: the last detection of every picture gets lost."""
    boxes, scores, classes, counts = found.detections
    last = np.maximum(counts - 1, 0)
    rows = np.arange(len(counts))
    boxes[rows, last], scores[rows, last], classes[rows, last] = 0, 0, -1
    return found._replace(detections=RawDetections(boxes, scores, classes, last))


# --- one thing wrong each: FCOS in, FCOS out -------------------------------------------------------------------------


def wrong_mean(model: FCOS) -> None:
    model.mean += 12.0


def swapped_channels(model: FCOS) -> None:
    forward = model.forward
    model.forward = lambda images: forward(images[:, [2, 1, 0]])  # type: ignore[method-assign]


def missing_stride(model: FCOS) -> None:
    conventions = replace(model.config.conventions, stride_normalised=False)
    model.head.conventions = conventions


def _config(model: FCOS, **changes: object) -> None:
    model.config = model.config.model_copy(update=changes)


def nms_too_high(model: FCOS) -> None:
    _config(model, nms_iou=model.config.nms_iou + 0.05)


def nms_too_low(model: FCOS) -> None:
    _config(model, nms_iou=model.config.nms_iou - 0.05)


def half_a_cell_off(model: FCOS) -> None:
    _config(model, conventions=replace(model.config.conventions, point_offset=0.0))


def _post(model: FCOS, change: Callable[[Candidates], Candidates]) -> None:
    def post_process(self: FCOS, raw: RawOutputs, *, height: int, width: int) -> BatchDetections:
        candidates = change(decode(raw, height=height, width=width, config=self.config))
        return suppress(candidates, iou=self.config.nms_iou, max_detections=self.config.max_detections)

    model.post_process = MethodType(post_process, model)  # type: ignore[method-assign]


def class_shift(model: FCOS) -> None:
    classes = model.head.classification_head.cls_logits.out_channels
    _post(model, lambda c: c._replace(classes=(c.classes + 1) % classes))


def half_decode(model: FCOS) -> None:
    def rounded(values: Tensor) -> Tensor:
        return values.half().float()

    _post(model, lambda c: c._replace(boxes=rounded(c.boxes), scores=rounded(c.scores)))


MUTATIONS = {
    "wrong mean": (wrong_mean, "raw"),
    "swapped channels": (swapped_channels, "raw"),
    "missing stride": (missing_stride, "raw"),
    "NMS threshold too high": (nms_too_high, "post"),
    "NMS threshold too low": (nms_too_low, "post"),
    "classes shifted by one": (class_shift, "post"),
    "points off by half a cell": (half_a_cell_off, "post"),
    "decode in half precision": (half_decode, "post"),
}
"""What is done to the model, and the layer of the proof that must notice."""


def mutated(artifact: Artifact, mutation: Callable[[FCOS], None]) -> FCOS:
    model = copy.deepcopy(artifact.build())
    mutation(model)
    return model
