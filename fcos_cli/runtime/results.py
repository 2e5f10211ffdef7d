"""What a detector returns: raw detections of a batch in network pixels, and detections of an image in source pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.model.classes import ClassTable


class RawDetections(NamedTuple):
    """The output of a detector for a batch of B images, padded to D places each.

    boxes: float32 [B, D, 4], xyxy in pixels of the network input, with ends as in `Conventions.box_ends`. scores:
    float32 [B, D], 0…1, descending. classes: int64 [B, D], -1 for padding. counts: int64 [B].
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, boxes: npt.NDArray[Any], scores: npt.NDArray[Any], classes: npt.NDArray[Any], counts: npt.NDArray[Any]
    ) -> RawDetections:
        """The outputs of a runtime, which may be integers of another width, in these dtypes."""
        return cls(
            boxes.astype(np.float32, copy=False),
            scores.astype(np.float32, copy=False),
            classes.astype(np.int64, copy=False),
            counts.astype(np.int64, copy=False),
        )


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first.

    boxes: float32 [N, 4], xyxy in pixels of the source image, clipped to it. scores: float32 [N], 0…1. classes: int64
    [N], class indices (names and data-set ids: `ClassTable`). ids: int64 [N], identities of tracked objects from 1, 0
    for a box that has none (yet); None if objects are not tracked.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, threshold: float | npt.NDArray[np.float32]) -> Detections:
        """Keep detections with score ≥ threshold: one number, or one per class [C]."""
        limits = np.asarray(threshold, np.float32)
        keep = self.scores >= (limits[self.classes] if limits.ndim else limits)
        return self.select(keep)

    def best(self, count: int | None) -> Detections:
        """Keep the first `count` detections; None = all."""
        return self.select(slice(count))

    def select(self, which: npt.NDArray[Any] | slice) -> Detections:
        """Keep the detections of a mask, indices or a slice, in that order."""
        ids = None if self.ids is None else self.ids[which]
        return Detections(self.boxes[which], self.scores[which], self.classes[which], ids)

    def to_json(self, classes: ClassTable) -> list[dict[str, Any]]:
        """The `detections` rows of `fcos predict --json`. Tracked ones begin with `id`, None without identity."""
        ids = [{}] * len(self) if self.ids is None else [{"id": number or None} for number in self.ids.tolist()]
        return [
            {
                **identity,
                "box": [round(float(v), 2) for v in box],
                "score": round(float(score), 4),
                "class": classes.names[index],
                "category_id": classes.ids[index],
            }
            for identity, box, score, index in zip(ids, self.boxes, self.scores, self.classes.tolist(), strict=True)
        ]
