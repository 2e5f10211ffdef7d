"""`review.csv`: the pictures that were labelled, the most doubtful first, each with a reason in words.

The score of a picture adds up its doubts. Each counts 1 at most, so it is roughly the number of boxes to look at:

- A detection whose score is within NEAR of the threshold of its class, on either side, counts 1 at the threshold and
  less the farther it is from it. Below the threshold it counts only if no label and no stronger detection of its
  class covers it.
- With tiles, an object that only the whole picture shows counts 1, and a large one (LARGE) that only the tiles show.
- In a video, a class that is missing in one frame, but is in the frames before and after, counts 1. So does a class
  that is in one frame only. Frames that are not used do not count.

Equal scores are ordered by the name of the picture.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import atomic_write
from fcos_cli.data.boxes import box_iou
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.sources.frames import Clip
from fcos_cli.predict.writers import cell
from fcos_cli.runtime.results import Detections

REVIEW = "review.csv"
COLUMNS = ("picture", "score", "reason", "labels", "source")
NEAR = 0.1
"""Difference from the threshold of its class below which a score is doubtful."""
SAME = 0.5
"""IoU from which two boxes of a class are one object."""
LARGE = 32
"""Longer side of a box, in pixels of the network's input for the whole picture, from which it should be found there
too."""
SHOWN = 3  # detections named in a reason

Limits = float | npt.NDArray[np.float32]


@dataclass
class Row:
    """A picture. doubts: how much each counts, and its text. clip, number, classes: of a frame, for its neighbours."""

    picture: str
    source: str
    labels: int
    doubts: list[tuple[float, str]]
    clip: Clip | None = None
    number: int = 0
    classes: frozenset[int] = field(default_factory=frozenset)

    @property
    def score(self) -> float:
        return round(sum((count for count, _ in self.doubts), 0.0), 3)


class Review:
    """Collects the rows. limits: the thresholds of labels, one or one per class [C]. every: step of the frames."""

    def __init__(self, classes: ClassTable, limits: Limits, *, every: int = 1) -> None:
        self.classes, self.every = classes, every
        self.limits = np.broadcast_to(np.asarray(limits, np.float64), len(classes))
        self.rows: list[Row] = []

    def add(self, picture: str, prediction: Prediction, labels: Detections, *, scale: float) -> None:
        """Add a picture.

        prediction: with all its detections, also those below the thresholds. labels: those that became labels. scale:
        pixels of the network input per pixel of the picture, without tiles.
        """
        whole = prediction.whole
        below = prediction.detections if whole is None else whole
        doubts = [*self._just_above(labels), *self._just_below(below, labels)]
        if whole is not None:
            doubts += self._disagreements(labels, whole, scale)
        row = Row(picture, str(prediction.source), len(labels), doubts)
        if prediction.moment is not None:
            row.clip, row.number = prediction.moment.clip, prediction.moment.number
            row.classes = frozenset(labels.classes.tolist())
        self.rows.append(row)

    def ordered(self) -> list[Row]:
        """Return the rows, the most doubtful first."""
        self._compare_frames()
        return sorted(self.rows, key=lambda row: (-row.score, row.picture))

    def write(self, file: Path, rows: Sequence[Row]) -> None:
        with atomic_write(file) as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(COLUMNS)
            for row in rows:
                reason = "; ".join(text for _, text in row.doubts)
                table.writerow([cell(row.picture), f"{row.score:.3f}", cell(reason), row.labels, cell(row.source)])

    def _just_above(self, labels: Detections) -> list[tuple[float, str]]:
        counts = self._closeness(labels)
        return self._doubt(labels, counts, "just above the threshold")

    def _just_below(self, found: Detections, labels: Detections) -> list[tuple[float, str]]:
        left_out = found.scores < self.limits[found.classes]
        alone = ~_covered(found, labels) & ~_repeated(found)
        counts = np.where(left_out & alone, self._closeness(found), 0)
        return self._doubt(found, counts, "just below the threshold, not labelled")

    def _closeness(self, found: Detections) -> npt.NDArray[np.float64]:
        """1 at the threshold, 0 at a distance of NEAR or more; [N]."""
        return np.clip(1 - np.abs(found.scores - self.limits[found.classes]) / NEAR, 0, 1)

    def _disagreements(self, labels: Detections, whole: Detections, scale: float) -> list[tuple[float, str]]:
        sure = whole.scores >= self.limits[whole.classes]
        only_whole = sure & ~_covered(whole, labels)
        only_tiles = _is_large(labels, scale) & ~_covered(labels, whole)
        return [
            *self._doubt(labels, only_tiles.astype(float), "found in the tiles, but not on the whole picture"),
            *self._doubt(whole, only_whole.astype(float), "found on the whole picture, but not with tiles"),
        ]

    def _doubt(self, found: Detections, counts: npt.NDArray[np.float64], what: str) -> list[tuple[float, str]]:
        """One doubt about all detections that count: `2 just above the threshold (cat 0.41, dog 0.33)`."""
        order = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index] > 0]
        if not order:
            return []
        names = [f"{self.classes.names[found.classes[index]]} {found.scores[index]:.2f}" for index in order]
        more = ", …" if len(names) > SHOWN else ""
        return [(float(counts.sum()), f"{len(order)} {what} ({', '.join(names[:SHOWN])}{more})")]

    def _compare_frames(self) -> None:
        for before, row, after in zip(self.rows, self.rows[1:], self.rows[2:], strict=False):
            one_clip = row.clip is not None and before.clip is row.clip is after.clip
            if not one_clip or (row.number - before.number, after.number - row.number) != (self.every,) * 2:
                continue
            missing = (before.classes & after.classes) - row.classes
            sudden = row.classes - before.classes - after.classes
            around = "in the frames before and after"
            row.doubts += [(1.0, f"no {self.classes.names[index]}, but {around}") for index in sorted(missing)]
            row.doubts += [(1.0, f"{self.classes.names[index]} here, but not {around}") for index in sorted(sudden)]


def check_review(file: Path) -> None:
    """Raise UsageError if `file` exists and is not the review of an earlier run."""
    head = ",".join(COLUMNS).encode()
    if file.exists() and not (file.is_file() and file.read_bytes()[: len(head)] == head):
        raise UsageError(
            "this file exists and is not a review of fcos predict, so it is not replaced",
            where=file,
            remedy="move it away, or name another folder with --out",
        )


def _covered(boxes: Detections, by: Detections) -> npt.NDArray[np.bool_]:
    """bool [N]: whether another box of its class shows the same object."""
    same = (box_iou(boxes.boxes, by.boxes) >= SAME) & (boxes.classes[:, None] == by.classes[None])
    return np.asarray(same.any(axis=1))


def _repeated(found: Detections) -> npt.NDArray[np.bool_]:
    """bool [N]: whether an earlier, stronger detection of its class shows the same object."""
    same = (box_iou(found.boxes, found.boxes) >= SAME) & (found.classes[:, None] == found.classes[None])
    return np.asarray(np.tril(same, -1).any(axis=1))


def _is_large(found: Detections, scale: float) -> npt.NDArray[np.bool_]:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    return np.asarray(sides.max(axis=1, initial=0) * scale >= LARGE)
