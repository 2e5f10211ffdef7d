"""Where to look: the pictures with most errors, and the labels that are more likely wrong than the model.

Three things make a label suspect, each with a number that says how much:
- missing: a confident detection that touches no truth. Suspicion: its score.
- class: a confident detection on a truth of another class, with no hit on that truth. Suspicion: score times IoU.
- box: a truth that no detection of any class comes near, not even an unsure one. Suspicion: rises as the best overlap
  falls, and with the size of the box, since small things are missed for good reasons.

Crowd and difficult boxes are never suspect, and what lies on them is not missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fcos_cli.data.boxes import box_ioa, box_iou
from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.matches import IOU, Floats
from fcos_cli.evaluate.report.numbers import Numbers

Kind = Literal["missing", "class", "box"]

NEAR = 0.1
"""IoU from which on two boxes have to do with each other (TIDE's line between background and place)."""


@dataclass(frozen=True)
class PictureErrors:
    """One picture: index of the sample, and its counts and F1 (0…1) at the thresholds."""

    picture: int
    found: int
    missed: int
    false: int
    f1: float


@dataclass(frozen=True)
class Suspect:
    """A label to look at. box: xyxy in source pixels, the detection's, or the truth's where there is no detection.

    label: class index in the data, None where a label is missing. seen: class index of the detection, None where
    there is none. score: of the detection, 0…1. truth_box: the labelled box, where there is one. suspicion: 0…1.
    """

    kind: Kind
    picture: int
    box: tuple[float, float, float, float]
    label: int | None
    seen: int | None
    score: float | None
    overlap: float
    truth_box: tuple[float, float, float, float] | None
    suspicion: float


def worst_pictures(numbers: Numbers, *, count: int) -> list[PictureErrors]:
    """The pictures with the lowest F1 over all classes, of equals those with more errors; none without an error."""
    matches = numbers.matches
    shown, found = matches.shown(numbers.thresholds), matches.found(numbers.thresholds)
    pictures = numbers.result.images
    hits = np.bincount(matches.truth_picture[found], minlength=pictures)
    truths = np.bincount(matches.truth_picture[~matches.truth_ignored], minlength=pictures)
    false = np.bincount(matches.picture[shown & ~matches.hit], minlength=pictures)
    missed = truths - hits
    f1 = 2 * hits / np.maximum(2 * hits + missed + false, 1)
    rows = [PictureErrors(i, int(hits[i]), int(missed[i]), int(false[i]), float(f1[i])) for i in range(pictures)]
    wrong = [row for row in rows if row.missed + row.false]
    return sorted(wrong, key=lambda row: (row.f1, -(row.missed + row.false), row.picture))[:count]


def suspects(numbers: Numbers, samples: Sequence[Sample], *, count: int) -> list[Suspect]:
    """At most `count` of each kind, the most suspect first; at most two of a kind from one picture."""
    found: list[Suspect] = []
    for picture in range(len(samples)):
        found += _in_picture(numbers, picture)
    chosen: list[Suspect] = []
    for kind in ("missing", "class", "box"):
        seen: dict[int, int] = {}
        mine: list[Suspect] = []
        for suspect in sorted((s for s in found if s.kind == kind), key=lambda s: (-s.suspicion, s.picture)):
            seen[suspect.picture] = seen.get(suspect.picture, 0) + 1
            if seen[suspect.picture] <= 2 and len(mine) < count:
                mine.append(suspect)
        chosen += mine
    return chosen


def _in_picture(numbers: Numbers, picture: int) -> list[Suspect]:
    matches = numbers.matches
    found = np.flatnonzero(matches.picture == picture)
    truth = np.flatnonzero(matches.truth_picture == picture)
    boxes, truths = matches.boxes[found], matches.truth_boxes[truth]
    ignored = matches.truth_ignored[truth]
    shared = box_iou(boxes, truths)  # [detections, truths]
    on_crowd = (box_ioa(boxes, truths[ignored]) >= IOU).any(1) if ignored.any() else np.zeros(len(found), bool)
    confident = matches.shown(numbers.thresholds)[found] & ~matches.hit[found] & ~on_crowd
    rows: list[Suspect] = []
    for i in np.flatnonzero(confident):
        score, seen = float(matches.scores[found[i]]), int(matches.classes[found[i]])
        if not len(truth) or shared[i].max() < NEAR:
            rows.append(Suspect("missing", picture, _box(boxes[i]), None, seen, score, 0.0, None, score))
            continue
        nearest = int(np.argmax(shared[i]))
        label, overlap = int(matches.truth_classes[truth[nearest]]), float(shared[i, nearest])
        hit = matches.found_at[truth[nearest]] >= numbers.thresholds[label]
        if label != seen and overlap >= IOU and not hit and not ignored[nearest]:
            place = _box(truths[nearest])
            rows.append(Suspect("class", picture, _box(boxes[i]), label, seen, score, overlap, place, score * overlap))
    for j in np.flatnonzero(~ignored):
        best = float(shared[:, j].max()) if len(found) else 0.0
        if best < NEAR:
            label = int(matches.truth_classes[truth[j]])
            doubt = (1 - best / NEAR) * _size_share(truths[j])
            rows.append(Suspect("box", picture, _box(truths[j]), label, None, None, best, _box(truths[j]), doubt))
    return rows


def _size_share(box: Floats) -> float:
    """0 for a point, 1/2 for a box of 32 pixels a side, towards 1 for large ones."""
    side = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))
    return side / (side + 32)


def _box(row: Floats) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = row.tolist()
    return x1, y1, x2, y2
