"""From a detector's raw answer to each picture's own pixels."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.data.geometry import Geometry
from fcos_cli.runtime.detector import to_source
from fcos_cli.runtime.results import RawDetections


def test_boxes_go_back_to_their_pictures_and_empty_ones_are_dropped():
    boxes = np.array([[[0, 0, 16, 16], [20, 20, 20, 30], [40, 4, 60, 16], [9, 9, 9, 9]]], np.float32)
    raw = RawDetections(boxes, np.array([[0.9, 0.8, 0.7, 0]], np.float32), np.array([[0, 1, 2, -1]]), np.array([3]))
    # 100 x 50 was resized to 50 x 25: the box from 40 to 60 is cut at the picture's edge
    (found,) = to_source(raw, [Geometry((100, 50), (50, 25), (0, 0))])
    assert found.boxes.tolist() == [[0, 0, 32, 32], [80, 8, 100, 32]]
    assert found.classes.tolist() == [0, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
