"""Which points learn which box, worked by hand: ranges 16, 32, 64, 128 px, center sampling 1.5, an input of 64 × 64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Sample
from fcos_cli.explain.targets import TruthExplanation, explain_targets
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import all_points
from fcos_cli.model.targets import Truth, assign_targets
from tests.tiny import CLASSES

RANGES = (16.0, 32.0, 64.0, 128.0)
LARGE = (8, 8, 56, 56)
SMALL = (14, 14, 46, 46)


def sample(*boxes: tuple[float, float, float, float], ignore: tuple[int, ...] = (), size: int = 64) -> Sample:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(
        image=Path("made.png"),
        image_id=1,
        width=size,
        height=size,
        boxes=corners,
        classes=np.arange(len(boxes), dtype=np.int64) % 3,
        ignore=np.isin(np.arange(len(boxes)), ignore),
        areas=((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).astype(np.float64),
    )


def explained(truth: Sample, *, conventions: Conventions | None = None) -> TruthExplanation:
    return explain_targets(
        truth,
        np.zeros((truth.height, truth.width, 3), np.uint8),
        classes=CLASSES,
        rule=ResizeRule("letterbox", (64, 64)),
        ranges=RANGES,
        conventions=conventions or Conventions(),
    )


def test_two_boxes_compete_for_four_points_and_the_smaller_wins():
    # P4's points near both centres are (24, 24) … (40, 40): the longest distance to LARGE's edges is 32, to SMALL's
    # 22 or 26, both in P4's range (16, 32]. LARGE keeps P5's four points, from which its far edge is 40 px away.
    answer = explained(sample(LARGE, SMALL))
    large, small = answer.boxes
    assert (large.won, large.lost) == ((0, 0, 4, 0, 0), (0, 4, 0, 0, 0))
    assert (small.won, small.lost) == ((0, 4, 0, 0, 0), (0, 0, 0, 0, 0))
    assert (large.area, small.area) == (48 * 48, 32 * 32)
    assert answer.orphans == []
    assert {point.xy for point in answer.contested} == {(24, 24), (40, 24), (24, 40), (40, 40)}
    for point in answer.contested:
        assert (point.level, point.box, point.rivals) == (1, 1, (0,))
    first = next(point for point in answer.points if point.xy == (24, 24))
    assert first.ltrb == (10, 10, 22, 22)
    assert first.centerness == pytest.approx(10 / 22)
    assert answer.centerness[1][1, 1] == pytest.approx(10 / 22)
    assert (answer.centerness[0] == 0).all()


def test_a_box_between_the_points_gets_none():
    answer = explained(sample((1, 1, 3, 3), SMALL))
    assert answer.orphans == [0]
    assert answer.boxes[0].reason == "no point of its level lies in it"


def test_a_box_that_loses_every_point_gets_none():
    answer = explained(sample(SMALL, SMALL))  # of equal areas the first wins
    assert answer.orphans == [1]
    assert answer.boxes[1].lost == (0, 4, 0, 0, 0)
    assert answer.boxes[1].reason == "other boxes win all 4 of its points"


def test_an_ignored_box_neither_learns_nor_competes_nor_counts_as_forgotten():
    answer = explained(sample(LARGE, SMALL, ignore=(1,)))
    assert answer.boxes[1].ignore
    assert not answer.boxes[1].orphan
    assert answer.contested == []
    assert sum(answer.boxes[0].won) == 8
    assert answer.ignored > 0


def test_boxes_are_scaled_to_the_networks_input():
    answer = explained(sample((16, 16, 112, 112), size=128))
    assert answer.boxes[0].box == LARGE
    assert answer.geometry.resized == (64, 64)


def test_a_picture_without_boxes_has_no_positive_point():
    answer = explained(sample())
    assert (answer.boxes, answer.points, answer.orphans) == ([], [], [])


def test_three_claims_name_the_rivals_from_small_to_large():
    answer = explained(sample(LARGE, SMALL, (10, 10, 50, 50)))
    middle = next(point for point in answer.points if point.xy == (24, 24))
    assert (middle.box, middle.rivals) == (1, (2, 0))


@pytest.mark.parametrize("conventions", [Conventions(), Conventions(radius=0.0, range_ends="closed", area="plus-one")])
def test_winners_are_those_that_training_takes(conventions):
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 40, (12, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(3, 24, (12, 2))), 1).astype(np.float32)
    truth = sample(*map(tuple, boxes.tolist()), ignore=(3,))
    answer = explained(truth, conventions=conventions)
    targets = assign_targets(
        all_points(answer.grids),
        Truth(*(torch.from_numpy(part)[None] for part in (truth.boxes, truth.classes, truth.ignore))),
        ranges=RANGES,
        conventions=conventions,
    )
    assert [point.box for point in answer.points] == targets.box[0][targets.box[0] >= 0].tolist()
    assert sum(sum(box.won) for box in answer.boxes) == len(answer.points)
    assert sum(sum(box.lost) for box in answer.boxes) == sum(len(point.rivals) for point in answer.points) > 0
    for point in answer.points:
        assert all(answer.boxes[rival].area >= answer.boxes[point.box].area for rival in point.rivals)
