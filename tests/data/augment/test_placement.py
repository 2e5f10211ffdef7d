"""Crops, zoomed-out canvases and the linear map between an image and the canvas."""

import numpy as np
import pytest

from fcos_cli.data.augment.placement import MAX_STRETCH, MIN_SIDE, Placement, Region, crop, place, zoom_out

WHOLE = Region(0, 0, 200, 100)
BOXES = np.array([[10, 10, 30, 30], [150, 60, 190, 90]], np.float32)


def test_zooming_out_keeps_the_shape_and_holds_the_image() -> None:
    factors = []
    for seed in range(50):
        region = zoom_out(WHOLE, largest=1.8, random=np.random.default_rng(seed))
        assert region.width / region.height == pytest.approx(2)
        assert region.x <= 0 <= 200 <= region.x + region.width
        assert region.y <= 0 <= 100 <= region.y + region.height
        factors.append(region.width / 200)
    assert min(factors) < 1.1
    assert 1.7 < max(factors) <= 1.8


def test_a_crop_lies_in_the_region_and_holds_the_center_of_a_box() -> None:
    held = set()
    for seed in range(100):
        part = crop(WHOLE, BOXES, random=np.random.default_rng(seed))
        assert part.x >= 0
        assert part.y >= 0
        assert part.x + part.width <= 200
        assert part.y + part.height <= 100
        across, down = part.width / 200, part.height / 100
        assert min(across, down) >= MIN_SIDE
        assert 1 / MAX_STRETCH <= across / down <= MAX_STRETCH
        centers = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        inside = [part.x < x < part.x + part.width and part.y < y < part.y + part.height for x, y in centers.tolist()]
        assert any(inside)
        held.add(tuple(inside))
    assert held == {(True, True), (True, False), (False, True)}


def test_without_boxes_nothing_is_cropped() -> None:
    assert crop(WHOLE, np.zeros((0, 4), np.float32), random=np.random.default_rng(0)) == WHOLE


def test_boxes_are_mapped_like_pixels_and_clipped() -> None:
    placement = Placement(source=(100, 50, 200, 100), target=(0, 0, 50, 100))
    boxes = np.array([[110, 60, 130, 70], [80, 40, 120, 60], [0, 0, 50, 40]], np.float32)
    moved, visible = placement.boxes(boxes)
    assert moved[:2].tolist() == [[5, 20, 15, 40], [0, 0, 10, 20]]
    assert visible.tolist() == [1, 0.25, 0]


def test_a_region_that_fits_is_placed_within_the_canvas() -> None:
    for seed in range(20):
        placement = place(
            WHOLE, image=(100, 200), canvas=(100, 100), scale=(0.5, 0.5), random=np.random.default_rng(seed)
        )
        assert placement.source == (0, 0, 200, 100)
        u1, v1, u2, v2 = placement.target
        assert (u2 - u1, v2 - v1) == (50, 25)
        assert min(u1, v1) >= 0
        assert max(u2, v2) <= 100


def test_a_cropped_region_fills_the_canvas_with_its_surroundings() -> None:
    # 40 × 40 pixels of the middle fill a canvas of 80 × 160 in height; beside them is room for what lies there
    placements = {
        place(
            Region(80, 30, 40, 40),
            image=(100, 200),
            canvas=(80, 160),
            scale=(1.0, 1.0),
            random=np.random.default_rng(seed),
        )
        for seed in range(20)
    }
    assert len(placements) > 5
    for placement in placements:
        x1, y1, x2, y2 = placement.source
        assert (y1, y2) == (30, 70)
        assert x1 <= 80
        assert x2 >= 120
        assert 80 <= x2 - x1 <= 81  # whole pixels
        assert placement.target == (0, 0, 160, 80)


def test_a_larger_scale_shows_a_part() -> None:
    placement = place(WHOLE, image=(100, 200), canvas=(50, 100), scale=(2.0, 2.0), random=np.random.default_rng(1))
    x1, y1, x2, y2 = placement.source
    assert 100 <= x2 - x1 <= 101
    assert 50 <= y2 - y1 <= 51
    assert placement.target == (0, 0, 100, 50)


def test_a_region_beside_the_image_shows_nothing() -> None:
    placement = place(
        Region(-500, 0, 100, 100), image=(100, 200), canvas=(64, 64), scale=(1.0, 1.0), random=np.random.default_rng(0)
    )
    assert placement.is_empty
    boxes, visible = placement.boxes(BOXES)
    assert boxes.shape == BOXES.shape
    assert visible.tolist() == [0, 0]
