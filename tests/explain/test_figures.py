"""The figures: their sizes, and that what they promise is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos_cli.explain.canvas import Canvas
from fcos_cli.explain.figures import (
    centerness_figure,
    classes_figure,
    detection_figure,
    panel_size,
    shown_classes,
)
from fcos_cli.explain.heatmaps import RAMP, colours, normalize
from fcos_cli.explain.model_figure import model_figure
from fcos_cli.explain.points import Explanation, explain
from fcos_cli.explain.targets_figure import RED, targets_figure
from fcos_cli.model.points import Grid
from fcos_cli.runtime.pytorch import facts_of
from tests.explain.test_targets import LARGE, SMALL, explained, sample
from tests.tiny import tiny_artifact


def explain_grey(width: int, height: int, **changes: object) -> Explanation:
    artifact = tiny_artifact(**changes)
    return explain(artifact.build(), facts_of(artifact), np.full((height, width, 3), 128, np.uint8))


def test_colours_run_from_dark_to_light():
    shades = colours(np.linspace(0, 1, 64, dtype=np.float32)[None])[0]
    assert (tuple(shades[0].tolist()), tuple(shades[-1].tolist())) == (RAMP[0], RAMP[-1])
    brightness = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > 0).all()


def test_a_cell_lies_evenly_around_its_point():
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    middle = normalize(values, Grid(2, 2, (8, 8), 0.5, 8), size=(16, 16), shape=(4, 4))
    np.testing.assert_array_equal(middle, [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2)
    # points in the cells' corners: (0, 0), (8, 0) …; 4 px on each side of them
    corner = normalize(values, Grid(2, 2, (8, 8), 0.0, 8), size=(16, 16), shape=(4, 4))
    np.testing.assert_array_equal(corner, [[0, 1, 1, 1]] + [[2, 3, 3, 3]] * 3)
    # half of the network input is padding: the picture shows the first cells only
    cut = normalize(values, Grid(2, 2, (8, 8), 0.5, 8), size=(16, 8), shape=(2, 4))
    np.testing.assert_array_equal(cut, [[0, 0, 1, 1]] * 2)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (30, 90), (400, 20)])
def test_figures_of_any_shape_of_picture_are_written_in_the_promised_sizes(tmp_path, width, height):
    found = explain_grey(width, height)
    across, down = panel_size(found, 300)
    assert max(across, down) == 300
    wide = 2 * 24 + 5 * across + 4 * 14
    rows = len(shown_classes(found))
    large = panel_size(found, 960)
    sizes = {
        classes_figure: (wide, 2 * 24 + 26 + rows * (down + 14 + 20) + 18),
        centerness_figure: (wide, 2 * 24 + 26 + down + 14 + 18),
        detection_figure: (large[0] + 48, large[1] + 48 + 52),
    }
    for figure, size in sizes.items():
        path = tmp_path / "figure.png"
        figure(found).write(path)
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("PNG", size)
    model_figure(found).write(tmp_path / "model.png")
    with Image.open(tmp_path / "model.png") as picture:
        assert picture.width > 900
        assert 200 < picture.height < 1200


def test_the_chosen_detections_point_is_white_on_its_white_distances():
    found = explain_grey(64, 64)
    image = detection_figure(found).pixels()
    scale = 960 / 64
    x, y = (found.votes.xy[0] * scale + 24).round().astype(int)
    assert image[y, x].tolist() == [255, 255, 255]
    assert image[y, min(x + 14, 24 + 959)].tolist() == [255, 255, 255]
    # a voter in the padding lies outside the picture, and nothing is drawn there
    assert (image[:20] == 255).all()


def test_without_a_detection_there_is_still_a_figure():
    found = explain_grey(64, 64, config=tiny_artifact().config.model_copy(update={"score_threshold": 0.9}))
    assert len(found.detections) == 0
    assert detection_figure(found).size == (1008, 1060)
    assert model_figure(found).size[0] > 900
    assert len(shown_classes(found)) == 1


def test_a_box_without_a_point_is_dashed_red_and_told():
    red = [targets_figure(explained(sample(*boxes))).pixels() for boxes in ([LARGE, SMALL], [LARGE, SMALL, SMALL])]
    counts = [int((np.abs(image.astype(int) - RED).max(-1) < 10).sum()) for image in red]
    assert counts[0] == 0
    assert counts[1] > 1000
    assert red[1].shape[0] == red[0].shape[0] + 24  # one more line under the picture


def test_letters_that_the_font_lacks_do_not_stop_a_figure(tmp_path: Path):
    canvas = Canvas(300, 40)
    canvas.text((10, 20), "naïve 猫 → ☃", ground=(0, 0, 0), colour=(255, 255, 255))
    canvas.write(tmp_path / "text.png")
    assert (canvas.pixels() < 60).any()
