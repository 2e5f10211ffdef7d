"""What to review first: the images with the most errors, and the labels that may be wrong.

A label is suspect for one of three reasons, each with a suspicion value for ranking:
- missing: a confident detection that overlaps no ground truth. Suspicion: its score.
- class: a confident detection on a ground-truth box of another class that is not found. Suspicion: score times IoU.
- box: a ground-truth box without a nearby detection of any class or score. Suspicion: increases as the best overlap
decreases, and with the size of the box, since small objects are often missed for good reasons.

Crowd and difficult boxes are never suspect, and detections on them are never reported as missing labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fcos_cli.data.boxes import box_ioa, box_iou
from fcos_cli.data.samples import Sample
from fcos_cli.evaluate.matches import IOU, Bools, Floats
from fcos_cli.evaluate.report.metrics import ReportMetrics

Kind = Literal["missing", "class", "box"]

MIN_IOU = 0.1
"""Minimum IoU of boxes that may belong together (TIDE's limit between background and localization errors)."""


@dataclass(frozen=True)
class ImageErrors:
    """Counts and F1 (0…1) of one image at the thresholds. image_index: index of the sample."""

    image_index: int
    found: int
    missed: int
    false_positives: int
    f1: float


@dataclass(frozen=True)
class Suspect:
    """A label to review.

    box: xyxy in source pixels, of the detection, or of the ground truth if there is no detection. label: class index of
    the ground truth, None if a label is missing. detected: class index of the detection, None if there is none. score:
    of the detection, 0…1. truth_box: the labeled box, if there is one. suspicion: 0…1.
    """

    kind: Kind
    image_index: int
    box: tuple[float, float, float, float]
    label: int | None
    detected: int | None
    score: float | None
    overlap: float
    truth_box: tuple[float, float, float, float] | None
    suspicion: float


def worst_images(metrics: ReportMetrics, *, count: int) -> list[ImageErrors]:
    """Return the images with the lowest F1 over all classes. Ties go to more errors; flawless images are left out."""
    matches = metrics.matches
    shown, found = matches.shown(metrics.thresholds), matches.found(metrics.thresholds)
    image_count = metrics.result.images
    hits = np.bincount(matches.truth_image_index[found], minlength=image_count)
    truths = np.bincount(matches.truth_image_index[~matches.truth_ignored], minlength=image_count)
    false_positives = np.bincount(matches.image_index[shown & ~matches.hit], minlength=image_count)
    missed = truths - hits
    f1 = 2 * hits / np.maximum(2 * hits + missed + false_positives, 1)
    rows = [
        ImageErrors(i, int(hits[i]), int(missed[i]), int(false_positives[i]), float(f1[i])) for i in range(image_count)
    ]
    with_errors = [row for row in rows if row.missed + row.false_positives]
    return sorted(with_errors, key=lambda row: (row.f1, -(row.missed + row.false_positives), row.image_index))[:count]


def suspects(metrics: ReportMetrics, samples: Sequence[Sample], *, count: int) -> list[Suspect]:
    """Return at most `count` suspects of each kind, the most suspicious first, and at most two per kind and image."""
    shown = metrics.matches.shown(metrics.thresholds)
    found: list[Suspect] = []
    for image_index in range(len(samples)):
        found += _find_suspects(metrics, image_index, shown)
    selected: list[Suspect] = []
    for kind in ("missing", "class", "box"):
        per_image: dict[int, int] = {}
        of_kind: list[Suspect] = []
        for suspect in sorted((s for s in found if s.kind == kind), key=lambda s: (-s.suspicion, s.image_index)):
            per_image[suspect.image_index] = per_image.get(suspect.image_index, 0) + 1
            if per_image[suspect.image_index] <= 2 and len(of_kind) < count:
                of_kind.append(suspect)
        selected += of_kind
    return selected


def _find_suspects(metrics: ReportMetrics, image_index: int, shown: Bools) -> list[Suspect]:
    matches = metrics.matches
    found, truth = matches.of_image(image_index)
    boxes, truths = matches.boxes[found], matches.truth_boxes[truth]
    ignored = matches.truth_ignored[truth]
    ious = box_iou(boxes, truths)  # [detections, truths]
    on_crowd = (box_ioa(boxes, truths[ignored]) >= IOU).any(1) if ignored.any() else np.zeros(len(found), bool)
    confident = shown[found] & ~matches.hit[found] & ~on_crowd
    rows: list[Suspect] = []
    for i in np.flatnonzero(confident):
        score, detected = float(matches.scores[found[i]]), int(matches.classes[found[i]])
        if not len(truth) or ious[i].max() < MIN_IOU:
            rows.append(Suspect("missing", image_index, _box(boxes[i]), None, detected, score, 0.0, None, score))
            continue
        nearest = int(np.argmax(ious[i]))
        label, overlap = int(matches.truth_classes[truth[nearest]]), float(ious[i, nearest])
        hit = matches.match_scores[truth[nearest]] >= metrics.thresholds[label]
        if label != detected and overlap >= IOU and not hit and not ignored[nearest]:
            truth_box, suspicion = _box(truths[nearest]), score * overlap
            rows.append(
                Suspect("class", image_index, _box(boxes[i]), label, detected, score, overlap, truth_box, suspicion)
            )
    for j in np.flatnonzero(~ignored):
        best = float(ious[:, j].max()) if len(found) else 0.0
        if best < MIN_IOU:
            label = int(matches.truth_classes[truth[j]])
            suspicion = (1 - best / MIN_IOU) * _size_factor(truths[j])
            truth_box = _box(truths[j])
            rows.append(Suspect("box", image_index, truth_box, label, None, None, best, truth_box, suspicion))
    return rows


def _size_factor(box: Floats) -> float:
    """Return 0 for a point, 1/2 for a box with sides of 32 pixels, approaching 1 for large boxes."""
    side = float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))
    return side / (side + 32)


def _box(row: Floats) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = row.tolist()
    return x1, y1, x2, y2
