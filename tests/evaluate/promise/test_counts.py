"""Boxes per image and threshold, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.evaluate.matches import AT_IOU_50, match_detections, run_evaluator
from fcos_cli.evaluate.promise.counts import count, threshold_grid
from tests.evaluate.samples import TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]
SAMPLES = [sample([A, B], [0, 1], image_id=1), sample([A, B, FAR], ignore=[False, True, False], image_id=2)]
FOUND = [found([A, B, FAR], [0.9, 0.4, 0.6], [0, 1, 1]), found([A, B], [0.3, 0.8], [0, 0])]
GRID = np.array([0.3, 0.5, 0.7])


def counted(kind, index=None):
    matches = match_detections(run_evaluator(FOUND, SAMPLES, TWO, **AT_IOU_50), FOUND, SAMPLES)
    counts = count(kind, matches, images=2, thresholds=GRID, index=index)
    return counts.right.tolist(), counts.total.tolist()


def test_recall_counts_ground_truth_that_is_found():
    # image 1: cat found with 0.9, dog with 0.4; image 2: one of two cats with 0.3 (as float32 just above it); the crowd
    # is not counted
    assert counted("recall") == ([[2, 1, 1], [1, 0, 0]], [[2, 2, 2], [2, 2, 2]])
    assert counted("recall", 1) == ([[1, 0, 0], [0, 0, 0]], [[1, 1, 1], [0, 0, 0]])


def test_precision_counts_detections_that_match():
    # image 1 shows 0.9 (right), 0.6 (wrong), 0.4 (right); image 2 shows 0.3, and 0.8 on the crowd, which is ignored
    assert counted("precision") == ([[2, 1, 1], [1, 0, 0]], [[3, 2, 1], [1, 0, 0]])
    assert counted("precision", 0) == ([[1, 1, 1], [1, 0, 0]], [[1, 1, 1], [1, 0, 0]])


def test_pooled_shares():
    matches = match_detections(run_evaluator(FOUND, SAMPLES, TWO, **AT_IOU_50), FOUND, SAMPLES)
    counts = count("precision", matches, images=2, thresholds=np.array([0.3, 0.5, 0.95]), index=None)
    assert counts.pooled[:2].tolist() == [0.75, 0.5]
    assert np.isnan(counts.pooled[2])


@pytest.mark.parametrize(("lowest", "first", "second"), [(0.05, 0.05, 0.06), (0.015, 0.015, 0.02), (0.0, 0.0, 0.01)])
def test_thresholds_are_hundredths_from_the_lowest_on(lowest, first, second):
    grid = threshold_grid(lowest)
    assert grid[:2] == pytest.approx([first, second])
    assert grid[-1] == pytest.approx(0.99)
    assert (np.diff(grid) > 0.004).all()
    np.testing.assert_array_equal(grid, grid.astype(np.float32))
