"""Boxes per image and score threshold, from the matches at IoU 0.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fcos_cli.evaluate.matches import Bools, Ints, Matches

Kind = Literal["recall", "precision"]
Floats = npt.NDArray[np.float64]

STEP = 0.01


@dataclass(frozen=True)
class Counts:
    """Of N images at T score thresholds: how many boxes are right, of how many.

    thresholds: float64 [T], ascending, 0…1. right, total: int64 [N, T], 0 ≤ right ≤ total. For recall, total counts the
    ground-truth boxes, and right those found. For precision, total counts the detections at or above the threshold, and
    right those that match a ground-truth box. Ignored boxes (crowd, difficult) are left out.
    """

    thresholds: Floats
    right: Ints
    total: Ints

    @property
    def pooled(self) -> Floats:
        """Share of all boxes of all images that are right at each threshold: float64 [T], NaN without boxes."""
        total = self.total.sum(axis=0)
        return np.where(total > 0, self.right.sum(axis=0) / np.maximum(total, 1), np.nan)


def threshold_grid(lowest: float) -> Floats:
    """Thresholds from `lowest`, the model's candidate threshold, to 0.99 in hundredths, rounded to float32 [T]."""
    steps = np.arange(1, 100) * STEP
    return np.unique([lowest, *steps[steps > lowest]]).astype(np.float32).astype(np.float64)


def count(kind: Kind, matches: Matches, *, images: int, thresholds: Floats, index: int | None) -> Counts:
    """Count the boxes of one class, or of all of them (index None), in each of `images` images."""

    def per_image(image: Ints, scores: Floats, keep: Bools) -> Ints:
        """Number of scores at or above each threshold [N, T]."""
        cells = np.zeros((images, len(thresholds) + 1), np.int64)
        reached = np.searchsorted(thresholds, scores[keep], side="right")  # how many thresholds are not above it
        np.add.at(cells, (image[keep], reached), 1)
        return np.asarray(cells[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:])

    if kind == "recall":
        image, scores = matches.truth_image_index, matches.match_scores
        counted = ~matches.truth_ignored & (True if index is None else matches.truth_classes == index)
        total = np.bincount(image[counted], minlength=images)
        right = per_image(image, scores, counted & (scores >= 0))
        return Counts(thresholds, right, np.repeat(total[:, None], len(thresholds), axis=1))
    image, scores = matches.image_index, matches.scores
    counted = ~matches.ignored & (True if index is None else matches.classes == index)
    total = per_image(image, scores, counted)
    return Counts(thresholds, per_image(image, scores, counted & matches.hit), total)
