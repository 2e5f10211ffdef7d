"""Detections: filtered by score."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.runtime.results import Detections


def test_thresholds_are_one_or_one_per_class():
    found = Detections(np.zeros((3, 4), np.float32), np.array([0.5, 0.4, 0.3], np.float32), np.array([0, 1, 0]))
    assert found.above(0.4).scores.tolist() == pytest.approx([0.5, 0.4])
    assert found.above(np.array([0.3, 0.45], np.float32)).scores.tolist() == pytest.approx([0.5, 0.3])
