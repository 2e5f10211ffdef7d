"""The one face of every model: batches of pixels in, detections out, and the facts that travel with the weights."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Geometry, Pixels
from fcos_cli.model.conventions import Conventions
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections, RawDetections


class Detector(Protocol):
    """Anything that maps a batch of pictures to detections.

    Calling it: `images` [B, 3, H, W], RGB 0…255, any B ≥ 1, as `ResizeRule.batch` makes them; sizes: int64 [B, 2],
    (height, width) of each picture inside its input, for conventions that clip at the picture (None: all of it);
    `detect_batch` knows when they are needed.

    backend: one of `Backend`. precision: what really runs: `fp32`, `fp16`, `bf16`, `int8`, or `mixed`. device: where,
    readable as text.
    """

    @property
    def name(self) -> str: ...
    @property
    def facts(self) -> Facts: ...
    @property
    def backend(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> object: ...

    def __call__(self, images: Pixels, sizes: npt.NDArray[np.int64] | None = None) -> RawDetections: ...


def detect_batch(detector: Detector, images: Pixels, geometries: list[Geometry]) -> list[Detections]:
    """What a detector finds in a batch that `ResizeRule.batch` made: one answer per picture, in its source's pixels."""
    rules = detector.facts.conventions
    if rules.clip == "picture":
        sizes = np.array([geometry.resized[::-1] for geometry in geometries], np.int64)
        return to_source(detector(images, sizes), geometries, rules)
    return to_source(detector(images), geometries, rules)


def to_source(
    raw: RawDetections,
    geometries: list[Geometry],
    conventions: Conventions = Conventions(),  # noqa: B008 (frozen)
) -> list[Detections]:
    """Raw detections of a batch → one `Detections` per picture, in pixels of its source.

    Boxes end behind their last pixel, whatever the conventions of the network; empty ones go unless those keep them.
    """
    answers = []
    for index, geometry in enumerate(geometries):
        count = int(raw.counts[index])
        boxes = geometry.inverse(raw.boxes[index, :count], inclusive=conventions.box_ends == "inclusive")
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        keep |= conventions.empty_boxes == "keep"
        answers.append(Detections(boxes[keep], raw.scores[index, :count][keep], raw.classes[index, :count][keep]))
    return answers
