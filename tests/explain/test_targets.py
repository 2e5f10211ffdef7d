"""Training targets worked out by hand: ranges 16, 32, 64, 128 px, center sampling 1.5, an input of 64 × 64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Sample
from fcos_cli.explain.targets import TruthExplanation, explain_targets
from fcos_cli.model.config import FINE_STRIDES, STRIDES
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


def explained(
    truth: Sample, *, strides: tuple[int, ...] = STRIDES, conventions: Conventions | None = None
) -> TruthExplanation:
    return explain_targets(
        truth,
        np.zeros((truth.height, truth.width, 3), np.uint8),
        classes=CLASSES,
        rule=ResizeRule("letterbox", (64, 64)),
        strides=strides,
        ranges=RANGES,
        conventions=conventions or Conventions(),
    )


def test_two_boxes_compete_for_four_points_and_the_smaller_wins():
    # P4's points near both centres are (24, 24) … (40, 40): the longest distance to LARGE's edges is 32, to SMALL's
    # 22 or 26, both in P4's range (16, 32]. LARGE keeps P5's four points, from which its far edge is 40 px away.
    result = explained(sample(LARGE, SMALL))
    large, small = result.boxes
    assert (large.won, large.lost) == ((0, 0, 4, 0, 0), (0, 4, 0, 0, 0))
    assert (small.won, small.lost) == ((0, 4, 0, 0, 0), (0, 0, 0, 0, 0))
    assert (large.area, small.area) == (48 * 48, 32 * 32)
    assert result.orphans == []
    assert {point.xy for point in result.contested} == {(24, 24), (40, 24), (24, 40), (40, 40)}
    for point in result.contested:
        assert (point.level, point.box, point.rivals) == (1, 1, (0,))
    first = next(point for point in result.points if point.xy == (24, 24))
    assert first.ltrb == (10, 10, 22, 22)
    assert first.centerness == pytest.approx(10 / 22)
    assert result.centerness[1][1, 1] == pytest.approx(10 / 22)
    assert (result.centerness[0] == 0).all()


def test_a_box_between_the_points_gets_no_point():
    result = explained(sample((1, 1, 3, 3), SMALL))
    assert result.orphans == [0]
    assert result.boxes[0].reason == "it contains no point of its level"


def test_a_box_that_loses_every_point_gets_no_point():
    result = explained(sample(SMALL, SMALL))  # with equal areas the first wins
    assert result.orphans == [1]
    assert result.boxes[1].lost == (0, 4, 0, 0, 0)
    assert result.boxes[1].reason == "other boxes take all 4 of its points"


def test_an_ignored_box_neither_learns_nor_competes_nor_counts_as_an_orphan():
    result = explained(sample(LARGE, SMALL, ignore=(1,)))
    assert result.boxes[1].ignore
    assert not result.boxes[1].orphan
    assert result.contested == []
    assert sum(result.boxes[0].won) == 8
    assert result.ignored > 0


def test_boxes_are_scaled_to_the_network_input():
    result = explained(sample((16, 16, 112, 112), size=128))
    assert result.boxes[0].box == LARGE
    assert result.geometry.resized == (64, 64)


def test_boxes_of_a_file_of_another_size_than_annotated_are_scaled_with_it():
    truth = replace(sample((8, 4, 56, 28)), width=64, height=32)
    result = explain_targets(
        truth,
        np.zeros((128, 128, 3), np.uint8),
        classes=CLASSES,
        rule=ResizeRule("letterbox", (64, 64)),
        strides=STRIDES,
        ranges=RANGES,
        conventions=Conventions(),
    )
    assert result.boxes[0].box == LARGE


def test_an_image_without_boxes_has_no_positive_point():
    result = explained(sample())
    assert (result.boxes, result.points, result.orphans) == ([], [], [])


def test_rivals_are_listed_from_small_to_large():
    result = explained(sample(LARGE, SMALL, (10, 10, 50, 50)))
    middle = next(point for point in result.points if point.xy == (24, 24))
    assert (middle.box, middle.rivals) == (1, (2, 0))


@pytest.mark.parametrize("conventions", [Conventions(), Conventions(radius=0.0, range_ends="closed", area="plus-one")])
def test_winners_are_the_same_as_in_training(conventions):
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 40, (12, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(3, 24, (12, 2))), 1).astype(np.float32)
    truth = sample(*map(tuple, boxes.tolist()), ignore=(3,))
    result = explained(truth, conventions=conventions)
    targets = assign_targets(
        all_points(result.grids),
        Truth(*(torch.from_numpy(part)[None] for part in (truth.boxes, truth.classes, truth.ignore))),
        ranges=RANGES,
        conventions=conventions,
    )
    assert [point.box for point in result.points] == targets.box[0][targets.box[0] >= 0].tolist()
    assert sum(sum(box.won) for box in result.boxes) == len(result.points)
    assert sum(sum(box.lost) for box in result.boxes) == sum(len(point.rivals) for point in result.points) > 0
    for point in result.points:
        assert all(result.boxes[rival].area >= result.boxes[point.box].area for rival in point.rivals)


def test_a_box_without_a_point_gets_four_with_strides_from_4():
    box = (13, 13, 19, 19)
    assert explained(sample(box)).orphans == [0]
    fine = explained(sample(box), strides=FINE_STRIDES)
    assert fine.boxes[0].won == (4, 0, 0, 0, 0)
    assert (fine.points[0].xy, fine.points[0].ltrb) == ((14, 14), (1, 1, 5, 5))
    assert [part.shape for part in fine.centerness] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
