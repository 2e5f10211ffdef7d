"""Points: coordinates computed by hand."""

import pytest
import torch

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Grid, all_points, make_grids


def level(height: int, width: int, *, stride: int, offset: float) -> Grid:
    return Grid(height, width, (stride, stride), offset, stride)


def test_points_are_cell_centers_row_by_row() -> None:
    xy = level(2, 3, stride=8, offset=0.5).xy()
    assert xy.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_points_with_offset_zero_are_at_cell_corners() -> None:
    assert level(1, 2, stride=16, offset=0.0).xy().tolist() == [[0, 0], [16, 0]]


def test_spacing_may_differ_from_the_stride_and_between_the_axes() -> None:
    assert Grid(2, 2, (61, 64), 0.0, 64).xy().tolist() == [[0, 0], [64, 0], [0, 61], [64, 61]]


def test_padded_rule_divides_the_input_by_the_cells() -> None:
    rules = Conventions(stride_rule="padded", point_offset=0.0)
    grids = make_grids([(13, 17), (7, 9)], (64, 128), conventions=rules, input_size=(800, 1088))
    assert [grid.spacing for grid in grids] == [(61, 64), (114, 120)]
    assert [grid.stride for grid in grids] == [64, 128]
    with pytest.raises(ValueError, match="size of the input"):
        make_grids([(13, 17)], (64,), conventions=rules)


def test_levels_are_concatenated_with_their_strides() -> None:
    points = all_points(make_grids([(2, 2), (1, 1)], (8, 16), conventions=Conventions()))
    assert points.xy.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12], [8, 8]]
    assert points.stride.tolist() == [8, 8, 8, 8, 16]
    assert points.level.tolist() == [0, 0, 0, 0, 1]
    assert [(grid.height, grid.width) for grid in points.grids] == [(2, 2), (1, 1)]


def test_points_stay_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        xy = level(1, 200, stride=8, offset=0.5).xy()
    assert xy.dtype == torch.float32
    assert xy[-1].tolist() == [1596, 4]  # bf16 would read 1600
