"""Exported models that are really PyTorch, intact or with one fault that the parity check must detect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import MethodType

import numpy as np
import torch

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.model.artifact import Artifact
from fcos_cli.model.decode import Candidates, decode
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import BatchDetections, suppress
from fcos_cli.parity.subgraphs import FixedShape, ModelOutput, NoSubgraph, Pixels, Raw, SizeRange
from fcos_cli.runtime.graph_io import raw_names
from fcos_cli.runtime.results import RawDetections
from tests.tiny import CLASSES, tiny_model


def detecting_artifact(*, classes: int = 3, **changes: object) -> Artifact:
    """A tiny network with amplified untrained weights, so that it finds a few dozen objects in a photo."""
    model = tiny_model(classes=classes, **changes)
    with torch.no_grad():
        for branch in (model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg):
            branch.weight.mul_(40)
        model.head.regression_head.bbox_ctrness.weight.mul_(40)
        model.head.regression_head.bbox_reg.bias.fill_(2.0)
    table = CLASSES if classes == 3 else CLASSES.from_names([f"class {i}" for i in range(classes)])
    return Artifact(model.state_dict(), model.config, table, ResizeRule("letterbox", (160, 192)).to_json())


@dataclass
class FakeExport:
    """A PyTorch model as an exported one. cannot: parts that it does not support. damage: modifies its outputs."""

    model: FCOS
    shape: FixedShape = (None, None, None)
    cannot: tuple[str, ...] = ()
    damage: Callable[[ModelOutput], ModelOutput] = lambda output: output
    backend: str = "fake"
    span: SizeRange | None = None
    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def _names(self) -> tuple[str, ...]:
        return raw_names(self.model.config.strides)

    def _record(self, part: str, images: Pixels) -> None:
        self.calls.append((part, images.shape))
        if part in self.cannot:
            raise NoSubgraph(f"no {part} here")

    def raw(self, images: Pixels) -> Raw:
        self._record("raw", images)
        with torch.inference_mode():
            raw = self.model(torch.from_numpy(images))
        return dict(zip(self._names(), (level.numpy() for part in raw for level in part), strict=True))

    def post(self, raw: Raw, images: Pixels) -> ModelOutput:
        self._record("post", images)
        parts = [torch.from_numpy(raw[name]) for name in self._names()]
        levels = len(self.model.config.strides)
        return self._detect(RawOutputs(*(parts[i : i + levels] for i in range(0, 3 * levels, levels))), images)

    def detect(self, images: Pixels, inside: object = None) -> ModelOutput:
        self._record("detect", images)
        with torch.inference_mode():
            return self._detect(self.model(torch.from_numpy(images)), images)

    def _detect(self, raw: RawOutputs, images: Pixels) -> ModelOutput:
        with torch.inference_mode():
            found = self.model.post_process(raw, height=images.shape[2], width=images.shape[3])
        return self.damage(ModelOutput(RawDetections(*(tensor.numpy().copy() for tensor in found))))


def without_last(output: ModelOutput) -> ModelOutput:
    """Damage: drop the last detection of every image."""
    boxes, scores, classes, counts = output.detections
    last = np.maximum(counts - 1, 0)
    rows = np.arange(len(counts))
    boxes[rows, last], scores[rows, last], classes[rows, last] = 0, 0, -1
    return output._replace(detections=RawDetections(boxes, scores, classes, last))


# --- mutations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """One fault of an export.

    layer: the layer of the parity check that must detect it. model: changes the network or its config in place.
    candidates: changes the decoded candidates.
    """

    layer: str
    model: Callable[[FCOS], object] = lambda model: None
    candidates: Callable[[Candidates], Candidates] = lambda candidates: candidates


def _swap_channels(model: FCOS) -> None:
    forward = model.forward
    model.forward = lambda images: forward(images[:, [2, 1, 0]])  # type: ignore[method-assign]


def _no_stride(model: FCOS) -> None:
    model.head.conventions = replace(model.head.conventions, stride_normalised=False)


def _config(model: FCOS, **changes: object) -> None:
    model.config = model.config.model_copy(update=changes)


MUTATIONS = {
    "wrong mean": Mutation("raw", lambda model: model.mean.add_(12)),
    "swapped channels": Mutation("raw", _swap_channels),
    "missing stride": Mutation("raw", _no_stride),
    "NMS threshold too high": Mutation("post", lambda model: _config(model, nms_iou=model.config.nms_iou + 0.05)),
    "NMS threshold too low": Mutation("post", lambda model: _config(model, nms_iou=model.config.nms_iou - 0.05)),
    "points off by half a cell": Mutation(
        "post", lambda model: _config(model, conventions=replace(model.config.conventions, point_offset=0.0))
    ),
    "classes shifted by one": Mutation("post", candidates=lambda c: c._replace(classes=(c.classes + 1) % 3)),
    "decode in half precision": Mutation(
        "post", candidates=lambda c: c._replace(boxes=c.boxes.half().float(), scores=c.scores.half().float())
    ),
}


@dataclass(frozen=True)
class Mutant(Artifact):
    """An artifact that builds a faulty network."""

    mutation: Mutation = Mutation("")

    @classmethod
    def of(cls, artifact: Artifact, mutation: Mutation) -> Mutant:
        return cls(**vars(artifact), mutation=mutation)

    def build(self) -> FCOS:
        model = super().build()
        self.mutation.model(model)

        def post_process(
            self_: FCOS, raw: RawOutputs, *, height: int, width: int, sizes: object = None
        ) -> BatchDetections:
            candidates = self.mutation.candidates(decode(raw, height=height, width=width, config=self_.config))
            return suppress(candidates, iou=self_.config.nms_iou, max_detections=self_.config.max_detections)

        model.post_process = MethodType(post_process, model)  # type: ignore[method-assign]
        return model
