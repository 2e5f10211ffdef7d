"""Figures: their sizes and contents."""

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
from fcos_cli.model.config import FINE_STRIDES
from fcos_cli.model.points import Grid
from fcos_cli.runtime.pytorch import facts_of
from tests.explain.test_targets import LARGE, SMALL, explained, sample
from tests.tiny import tiny_artifact, tiny_model


def explain_grey(width: int, height: int, **changes: object) -> Explanation:
    artifact = tiny_artifact(**changes)
    return explain(artifact.build(), facts_of(artifact), np.full((height, width, 3), 128, np.uint8))


def test_the_colour_ramp_runs_from_dark_to_light():
    shades = colours(np.linspace(0, 1, 64, dtype=np.float32)[None])[0]
    assert (tuple(shades[0].tolist()), tuple(shades[-1].tolist())) == (RAMP[0], RAMP[-1])
    brightness = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(brightness) > 0).all()


def test_a_cell_is_centred_on_its_point():
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    middle = normalize(values, Grid(2, 2, (8, 8), 0.5, 8), size=(16, 16), shape=(4, 4))
    np.testing.assert_array_equal(middle, [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2)
    # points in the corners of the cells: (0, 0), (8, 0) …, with 4 px on each side
    corner = normalize(values, Grid(2, 2, (8, 8), 0.0, 8), size=(16, 16), shape=(4, 4))
    np.testing.assert_array_equal(corner, [[0, 1, 1, 1]] + [[2, 3, 3, 3]] * 3)
    # half of the network input is padding, so the image shows only the first cells
    cut = normalize(values, Grid(2, 2, (8, 8), 0.5, 8), size=(16, 8), shape=(2, 4))
    np.testing.assert_array_equal(cut, [[0, 0, 1, 1]] * 2)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (30, 90), (400, 20)])
def test_figures_of_images_of_any_shape_have_the_documented_sizes(tmp_path, width, height):
    result = explain_grey(width, height)
    panel_width, panel_height = panel_size(result, 300)
    assert max(panel_width, panel_height) == 300
    total_width = 2 * 24 + 5 * panel_width + 4 * 14
    rows = len(shown_classes(result))
    large = panel_size(result, 960)
    sizes = {
        classes_figure: (total_width, 2 * 24 + 26 + rows * (panel_height + 14 + 20) + 18),
        centerness_figure: (total_width, 2 * 24 + 26 + panel_height + 14 + 18),
        detection_figure: (large[0] + 48, large[1] + 48 + 52),
    }
    for figure, size in sizes.items():
        path = tmp_path / "figure.png"
        figure(result).write(path)
        with Image.open(path) as image:
            assert (image.format, image.size) == ("PNG", size)
    model_figure(result).write(tmp_path / "model.png")
    with Image.open(tmp_path / "model.png") as image:
        assert image.width > 900
        assert 200 < image.height < 1200


@pytest.mark.parametrize(("width", "height"), [(1, 500), (500, 1), (1, 5000)])
def test_the_model_figure_of_a_very_tall_or_wide_image_is_no_larger(width, height):
    assert np.prod(model_figure(explain_grey(width, height)).size) < 1500 * 1200


def test_figures_have_a_panel_for_each_level_of_fine_strides():
    model = tiny_model(strides=FINE_STRIDES)
    fine = explain_grey(64, 48, weights=model.state_dict(), config=model.config)
    coarse = explain_grey(64, 48)
    assert centerness_figure(fine).size == centerness_figure(coarse).size
    assert classes_figure(fine).size[0] == classes_figure(coarse).size[0]
    names = [figure.pixels() for figure in (model_figure(fine), model_figure(coarse))]
    assert names[0].shape == names[1].shape
    assert (names[0] != names[1]).any()


def test_the_detections_own_point_and_distances_are_white():
    found = explain_grey(64, 64)
    image = detection_figure(found).pixels()
    scale = 960 / 64
    x, y = (found.votes.xy[0] * scale + 24).round().astype(int)
    assert image[y, x].tolist() == [255, 255, 255]
    assert image[y, min(x + 14, 24 + 959)].tolist() == [255, 255, 255]
    # nothing is drawn for voters in the padding, outside the image
    assert (image[:20] == 255).all()


def test_figures_show_the_detections_from_the_given_score():
    found = explain_grey(64, 64)
    assert shown_classes(found, score=0.0) == list(dict.fromkeys(found.detections.classes.tolist()))
    assert len(shown_classes(found, score=0.9)) == 1
    assert (model_figure(found, score=0.0).pixels() != model_figure(found, score=0.9).pixels()).any()


def test_figures_without_detections():
    found = explain_grey(64, 64, config=tiny_artifact().config.model_copy(update={"score_threshold": 0.9}))
    assert len(found.detections) == 0
    assert detection_figure(found).size == (1008, 1060)
    assert model_figure(found).size[0] > 900
    assert len(shown_classes(found)) == 1


def test_a_box_without_a_point_is_dashed_red_and_listed():
    red = [targets_figure(explained(sample(*boxes))).pixels() for boxes in ([LARGE, SMALL], [LARGE, SMALL, SMALL])]
    counts = [int((np.abs(image.astype(int) - RED).max(-1) < 10).sum()) for image in red]
    assert counts[0] == 0
    assert counts[1] > 1000
    assert red[1].shape[0] == red[0].shape[0] + 24  # one more line below the image


def test_letters_missing_in_the_font_are_replaced(tmp_path: Path):
    canvas = Canvas(300, 40)
    canvas.text((10, 20), "naïve 猫 → ☃", background=(0, 0, 0), colour=(255, 255, 255))
    canvas.write(tmp_path / "text.png")
    assert (canvas.pixels() < 60).any()
