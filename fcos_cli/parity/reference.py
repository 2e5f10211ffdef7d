"""The reference of the proof: the artifact in eager PyTorch, float32, on the CPU, with the exported file's limits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.model.artifact import Artifact
from fcos_cli.model.decode import decode
from fcos_cli.model.head import RawOutputs
from fcos_cli.parity.inputs import Input, Size
from fcos_cli.parity.matching import Answer, Limits
from fcos_cli.parity.tolerance import Tolerance
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections


class ReferenceOutput(NamedTuple):
    """A batch, what the reference's network says of it, and what it finds."""

    input: Input
    raw: RawOutputs
    found: RawDetections


class Reference:
    """`artifact` with the thresholds of `facts`."""

    def __init__(self, artifact: Artifact, facts: Facts) -> None:
        self.model = artifact.build()
        limits = {"score_threshold": facts.score_threshold, "nms_iou": facts.nms_iou}
        self.config = self.model.config.model_copy(update={**limits, "max_detections": facts.max_detections})
        self.model.config = self.config
        self.names, self.dtype = artifact.classes.names, facts.resize.dtype

    def see(self, given: Input) -> ReferenceOutput:
        with torch.inference_mode():
            raw = self.model(torch.from_numpy(given.images))
        return ReferenceOutput(given, raw, self.post(raw, given.size, given.inside))

    def post(self, raw: RawOutputs, size: Size, inside: npt.NDArray[np.int64] | None = None) -> RawDetections:
        """inside: int64 [B, 2], height and width of each picture in its input; None = all of it."""
        with torch.inference_mode():
            found = self.model.post_process(raw, height=size[0], width=size[1], sizes=_tensor(inside))
        return RawDetections(*(tensor.numpy() for tensor in found))

    def limits(
        self, raw: RawOutputs, size: Size, tolerance: Tolerance, inside: npt.NDArray[np.int64] | None = None
    ) -> list[Limits]:
        """What counts as the same, for each picture of `raw`, given its candidates before NMS."""
        low = max(self.config.score_threshold - 2 * tolerance.score_eps, 0.0)
        loose = self.config.model_copy(update={"score_threshold": low})
        with torch.inference_mode():
            found = decode(raw, height=size[0], width=size[1], config=loose, sizes=_tensor(inside))
        boxes, scores, classes = (part.numpy() for part in found)
        last = scores.reshape(len(scores), -1, self.config.candidates)[:, :, -1]  # of each level
        return [
            Limits(
                score_threshold=self.config.score_threshold,
                nms_iou=self.config.nms_iou,
                max_detections=self.config.max_detections,
                same_iou=tolerance.same_iou,
                same_px=tolerance.same_px,
                score_eps=tolerance.score_eps,
                iou_eps=tolerance.iou_eps,
                cuts=tuple(last[place][last[place] >= self.config.score_threshold].tolist()),
                candidates=Answer(boxes[place][alive], scores[place][alive], classes[place][alive]),
            )
            for place, alive in enumerate(scores > 0)
        ]


def _tensor(inside: npt.NDArray[np.int64] | None) -> torch.Tensor | None:
    return None if inside is None else torch.from_numpy(inside)
