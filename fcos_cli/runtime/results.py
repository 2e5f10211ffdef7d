"""What a detector returns: raw detections of a batch in network pixels, and detections of an image in source pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.model.classes import ClassTable


class RawDetections(NamedTuple):
    """The output of a detector for a batch of B images, padded to D places each.

    boxes: float32 [B, D, 4], xyxy in pixels of the network input, exclusive ends. scores: float32 [B, D], 0…1,
    descending. classes: int64 [B, D], -1 for padding. counts: int64 [B].
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first.

    boxes: float32 [N, 4], xyxy in pixels of the source image, clipped to it. scores: float32 [N], 0…1. classes: int64
    [N], class indices (names and data-set ids: `ClassTable`).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float | npt.NDArray[np.float32]) -> Detections:
        """Keep detections with score ≥ threshold: one number, or one per class [C]."""
        limits = np.asarray(threshold, np.float32)
        keep = self.scores >= (limits[self.classes] if limits.ndim else limits)
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])

    def to_json(self, classes: ClassTable) -> list[dict[str, Any]]:
        """The `detections` rows of `fcos predict --json`."""
        return [
            {
                "box": [round(float(v), 2) for v in box],
                "score": round(float(score), 4),
                "class": classes.names[index],
                "category_id": classes.ids[index],
            }
            for box, score, index in zip(self.boxes, self.scores, self.classes.tolist(), strict=True)
        ]
