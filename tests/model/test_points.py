"""Points: hand-worked places."""

import torch

from fcos_cli.model.points import all_points, grid


def test_points_are_cell_centres_row_by_row() -> None:
    assert grid(2, 3, stride=8, offset=0.5).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_offset_zero_puts_points_on_the_cells_corner() -> None:
    assert grid(1, 2, stride=16, offset=0.0).tolist() == [[0, 0], [16, 0]]


def test_levels_follow_each_other_with_their_stride() -> None:
    points = all_points([(2, 2), (1, 1)], (8, 16), offset=0.5)
    assert points.xy.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12], [8, 8]]
    assert points.stride.tolist() == [8, 8, 8, 8, 16]
    assert points.level.tolist() == [0, 0, 0, 0, 1]


def test_points_stay_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        xy = grid(1, 200, stride=8, offset=0.5)
    assert xy.dtype == torch.float32
    assert xy[-1].tolist() == [1596, 4]  # bf16 would read 1600
