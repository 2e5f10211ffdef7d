"""Box operations against hand-computed values and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou as torchvision_iou

from fcos_cli.data.boxes import box_area, box_intersection, box_ioa, box_iou, scale_boxes


def test_area_and_intersection() -> None:
    boxes = np.array([[0, 0, 4, 3], [2, 1, 6, 5]], np.float32)
    assert box_area(boxes).tolist() == [12, 16]
    assert box_intersection(boxes[0], boxes[1]).tolist() == [2, 1, 4, 3]
    assert box_iou(boxes[:1], boxes[1:]).tolist() == [[pytest.approx(4 / 24)]]


def test_disjoint_and_empty_boxes_have_zero_iou() -> None:
    boxes = np.array([[0, 0, 2, 2], [5, 5, 7, 7], [3, 3, 3, 3]], np.float64)
    assert box_iou(boxes, boxes).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert box_area(box_intersection(boxes[0], boxes[1])) == 0


def test_intersection_over_the_area_of_the_first_box() -> None:
    half = np.array([[0, 0, 5, 10]], np.float32)
    whole = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    assert box_iou(half, whole).tolist() == [[0.5, 0]]
    assert box_ioa(half, whole).tolist() == [[1, 0]]
    assert box_iou(np.zeros((0, 4)), whole).shape == (0, 2)


def test_boxes_are_scaled_per_axis_and_untouched_if_the_size_is_the_same() -> None:
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    assert scale_boxes(boxes, size=(10, 20), to=(20, 10)).tolist() == [[2, 1, 6, 2]]
    assert scale_boxes(boxes, size=(10, 20), to=(10, 20)) is boxes


def test_integer_boxes_are_exact() -> None:
    assert box_area(np.array([0, 0, 70_000, 70_000], np.int32)) == 4_900_000_000


def test_results_equal_torchvision() -> None:
    corners = np.random.default_rng(0).uniform(0, 100, (2, 40, 2, 2))
    first, second = np.sort(corners, axis=2).reshape(2, 40, 4)
    expected = torchvision_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(box_iou(first, second), expected, rtol=1e-12)
