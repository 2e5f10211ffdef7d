"""Reference of the parity check: the artifact in eager float32 PyTorch on the CPU, with the exported file's limits."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fcos_cli.model.artifact import Artifact
from fcos_cli.model.decode import decode
from fcos_cli.model.head import RawOutputs
from fcos_cli.parity.inputs import Input, Size
from fcos_cli.parity.matching import ImageDetections, Limits
from fcos_cli.parity.tolerance import Tolerance
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import RawDetections


class ReferenceOutput(NamedTuple):
    """A batch with the reference's raw outputs and detections."""

    input: Input
    raw: RawOutputs
    detections: RawDetections


class Reference:
    """The model of `artifact` with the thresholds of `facts`, and the exact NMS of all exported files."""

    def __init__(self, artifact: Artifact, facts: Facts) -> None:
        self.model = artifact.build()
        conventions = replace(artifact.config.conventions, nms="exact")  # as in every export
        changes = {**facts.limits, "conventions": conventions}
        self.config = self.model.config = self.model.config.model_copy(update=changes)
        self.names, self.facts = artifact.classes.names, facts

    def run(self, batch: Input) -> ReferenceOutput:
        with torch.inference_mode():
            raw = self.model(torch.from_numpy(batch.images))
        return ReferenceOutput(batch, raw, self.post(raw, batch.size, batch.inside))

    def post(self, raw: RawOutputs, size: Size, inside: npt.NDArray[np.int64] | None = None) -> RawDetections:
        """Post-process raw outputs.

        inside: int64 [B, 2], (height, width) of each image in its input; None = all of it.
        """
        with torch.inference_mode():
            output = self.model.post_process(raw, height=size[0], width=size[1], sizes=_tensor(inside))
        return RawDetections(*(tensor.numpy() for tensor in output))

    def limits(
        self, raw: RawOutputs, size: Size, tolerance: Tolerance, inside: npt.NDArray[np.int64] | None = None
    ) -> list[Limits]:
        """Matching limits for each image of `raw`, with its candidates before NMS."""
        low = max(self.config.score_threshold - 2 * tolerance.score_eps, 0.0)
        loose = self.config.model_copy(update={"score_threshold": low})
        with torch.inference_mode():
            candidates = decode(raw, height=size[0], width=size[1], config=loose, sizes=_tensor(inside))
        boxes, scores, classes = (part.numpy() for part in candidates)
        last = scores.reshape(len(scores), -1, self.config.candidates)[:, :, -1]  # per level
        return [
            Limits.of(
                self.facts,
                tolerance,
                topk_scores=tuple(last[index][last[index] >= self.config.score_threshold].tolist()),
                candidates=ImageDetections(boxes[index][valid], scores[index][valid], classes[index][valid]),
            )
            for index, valid in enumerate(scores > 0)
        ]


def _tensor(inside: npt.NDArray[np.int64] | None) -> torch.Tensor | None:
    return None if inside is None else torch.from_numpy(inside)
