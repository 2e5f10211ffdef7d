"""Mosaics: the four quarters tile the canvas, and every box stays on its object."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcos_cli.data.augment.mosaic import CENTER, join, quarters
from fcos_cli.data.augment.transforms import Augmentation
from tests.data.augment.test_transforms import ALL, assert_boxes_fit, drawn

sides = st.integers(2, 700)


@given(height=sides, width=sides, seed=st.integers(0, 2**32 - 1))
def test_quarters_tile_the_canvas(height: int, width: int, seed: int) -> None:
    covered = np.zeros((height, width), np.uint8)
    for x1, y1, x2, y2 in quarters((height, width), random=np.random.default_rng(seed)):
        assert x2 > x1
        assert y2 > y1
        covered[y1:y2, x1:x2] += 1
    assert (covered == 1).all()


def test_the_center_varies() -> None:
    cuts = np.array([quarters((1000, 1000), random=np.random.default_rng(seed))[0][2:] for seed in range(200)]) / 1000
    assert cuts.min(0) == pytest.approx([CENTER[0]] * 2, abs=0.02)
    assert cuts.max(0) == pytest.approx([CENTER[1]] * 2, abs=0.02)


def test_boxes_move_with_their_images() -> None:
    corners = [(0, 0, 3, 2), (3, 0, 4, 2), (0, 2, 3, 6), (3, 2, 4, 6)]
    parts = [
        (
            torch.full((3, y2 - y1, x2 - x1), index, dtype=torch.uint8),
            torch.tensor([[0.0, 0.0, 1.0, 2.0]] * index).reshape(-1, 4),
            torch.full((index,), index),
            torch.arange(index) == 0,
        )
        for index, (x1, y1, x2, y2) in enumerate(corners)
    ]
    image, boxes, classes, ignore = join(parts, corners)
    assert image[0].tolist() == [[0, 0, 0, 1]] * 2 + [[2, 2, 2, 3]] * 4
    assert boxes.tolist() == [[3, 0, 4, 2]] + [[0, 2, 1, 4]] * 2 + [[3, 2, 4, 4]] * 3
    assert classes.tolist() == [1, 2, 2, 3, 3, 3]
    assert ignore.tolist() == [True, True, False, True, False, False]


@pytest.mark.parametrize("seed", range(20))
def test_an_image_of_a_mosaic_has_its_size_and_its_boxes(seed: int) -> None:
    whole = Augmentation(size=(96, 128), **ALL, mosaic=1.0)
    part = whole.quarter((41, 70))
    example = part(*drawn(), random=np.random.default_rng(seed))
    assert example[0].shape == (3, 41, 70)
    assert_boxes_fit(example)
    assert (whole.size, whole.mosaic, part.mosaic) == ((96, 128), 1.0, 0.0)
    assert part.scale[1] > whole.scale[1]
