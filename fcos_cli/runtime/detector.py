"""The interface of every model: a batch of pixels in, detections out, and the facts stored with the weights."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Geometry, Pixels
from fcos_cli.model.conventions import Conventions
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections, RawDetections


class Detector(Protocol):
    """Anything that maps a batch of images to detections.

    Call it with `images` [B, 3, H, W], RGB 0…255, any B ≥ 1, as `ResizeRule.batch` returns them, and `sizes`, int64 [B,
    2]: (height, width) of each image inside its padded input. `sizes` is needed only by conventions that clip boxes at
    the image; None means the whole input. `detect_batch` passes it where it is needed.

    backend: one of `Backend`. precision: what actually runs: `fp32`, `fp16`, `bf16`, `int8` or `mixed`. device:
    printable.
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


@runtime_checkable
class Adjustable(Protocol):
    """A detector whose NMS is not fixed inside a file."""

    def set_limits(self, *, iou: float | None, max_detections: int | None) -> None: ...


def detect_batch(detector: Detector, images: Pixels, geometries: list[Geometry]) -> list[Detections]:
    """Run a detector on a batch from `ResizeRule.batch`. Return one result per image, in pixels of its source."""
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
    """Raw detections of a batch → one `Detections` per image, in pixels of its source.

    The boxes returned have exclusive ends, whatever the network's conventions. Empty boxes are dropped unless the
    conventions keep them.
    """
    answers = []
    for index, geometry in enumerate(geometries):
        count = int(raw.counts[index])
        boxes = geometry.inverse(raw.boxes[index, :count], inclusive=conventions.box_ends == "inclusive")
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        keep |= conventions.empty_boxes == "keep"
        answers.append(Detections(boxes[keep], raw.scores[index, :count][keep], raw.classes[index, :count][keep]))
    return answers
