"""Record test vectors with the PyTorch reference, for the file that was exported from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fcos_cli.model.artifact import Artifact
from fcos_cli.parity.inputs import Input, Size, batch_at_size, load_photos
from fcos_cli.parity.matching import ImageDetections, Limits, image_detections
from fcos_cli.parity.reference import Reference
from fcos_cli.parity.tolerance import tolerance_of
from fcos_cli.parity.vectors import LARGEST_INPUT, Vector
from fcos_cli.resources import demo_photos
from fcos_cli.runtime.facts import Facts

PICTURES = 3
LARGEST: Size = (160, 192)
"""(height, width) within which the pictures are resized, and the network input of a file that takes any size. It is
neither square nor a multiple of 128, so that swapped sides and uneven maps would show."""

STEP = 8
"""Pixels are rounded down to multiples of this."""


def record_vectors(artifact: Artifact, facts: Facts, *, size: Size | None = None) -> list[Vector]:
    """What `artifact` finds in the bundled photos with the limits of the exported file, whose facts are given.

    size: (height, width) of the network input, if the file does not take any. Returns nothing for a network input too
    large to be worth it.
    """
    size = size or LARGEST
    if size[0] * size[1] > LARGEST_INPUT:
        return []
    reference, tolerance = Reference(artifact, facts), tolerance_of(facts.precision)
    within = (min(size[0], LARGEST[0]), min(size[1], LARGEST[1]))
    photos = load_photos(demo_photos())
    small = batch_at_size(photos, within, PICTURES, replace(facts.resize, filter="pillow", pad_value=0))
    vectors = []
    for name, shown in zip(small.names, small.shown, strict=True):
        vector = Vector(name, shown // STEP * STEP, size)
        images, inside = vector.images(facts.resize), vector.inside
        output = reference.run(Input(images, (name,), (vector.picture,), inside))
        limits = reference.limits(output.raw, size, tolerance, inside)[0]
        found = image_detections(output.detections, 0)
        vectors.append(replace(vector, expected=found, others=_others(found, limits), cuts=limits.topk_scores))
    return vectors


def _others(found: ImageDetections, limits: Limits) -> ImageDetections:
    """The candidates that are not in `found` but may be on another machine.

    If the limit of detections is reached, these are only those that come near its lowest score.
    """
    assert limits.candidates is not None
    known = set(zip(map(tuple, found.boxes.tolist()), found.classes.tolist(), strict=True))
    full = len(found.scores) >= limits.max_detections
    low = float(found.scores.min()) - 2 * limits.score_eps if full else 0.0
    rows = zip(*(part.tolist() for part in limits.candidates), strict=True)
    kept = [n for n, (box, score, label) in enumerate(rows) if score >= low and (tuple(box), label) not in known]
    return limits.candidates.take(np.array(kept, np.int64))
