from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict import draw as module
from fcos_cli.predict.draw import BLACK, WHITE, colour, draw, save_image, text_colour
from fcos_cli.runtime.results import Detections

CLASSES = ClassTable.from_names([f"thing {n}" for n in range(12)])


def detections(*rows) -> Detections:
    return Detections(
        np.array([r[:4] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[4] for r in rows], np.float32),
        np.array([r[5] for r in rows], np.int64),
    )


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


@pytest.fixture
def labels(monkeypatch):
    """The area and text of each label that `draw` draws, best last."""
    drawn = []
    draw_label = module._draw_label

    def record(pen, area, text, fill, font_size):
        drawn.append((area, text))
        draw_label(pen, area, text, fill, font_size)

    monkeypatch.setattr(module, "_draw_label", record)
    return drawn


def test_line_is_just_outside_the_box_with_a_halo_on_both_sides():
    # 100 x 100: line and halo are 1 px wide. The box covers columns 20…59; the line is column 19, the halo 18 and 20.
    row = draw(grey(100, 100), detections((20, 20, 60, 60, 0.9, 0)), CLASSES)[40]
    assert [tuple(int(v) for v in row[x]) for x in (17, 18, 19, 20, 21)] == [
        (128, 128, 128),
        text_colour(colour(0)),
        colour(0),
        text_colour(colour(0)),
        (128, 128, 128),
    ]
    assert tuple(row[60]) == colour(0)


def test_box_at_the_image_border_is_drawn_inside_it():
    result = draw(grey(100, 100), detections((0, 0, 100, 100, 0.9, 1)), CLASSES)
    assert tuple(result[50, 1]) == tuple(result[50, 98]) == tuple(result[98, 50]) == colour(1)


def test_input_is_not_modified_and_without_detections_the_result_is_a_copy():
    image = grey(50, 70)
    draw(image, detections((5, 5, 40, 40, 0.9, 0)), CLASSES)
    assert (image == 128).all()
    result = draw(image, detections(), CLASSES)
    np.testing.assert_array_equal(result, image)
    result[:] = 0
    assert (image == 128).all()


def test_higher_score_is_drawn_on_top_in_any_order():
    rows = (30, 40, 80, 90, 0.9, 0), (30, 40, 80, 90, 0.5, 1)
    for result in (draw(grey(128, 128), detections(*order), CLASSES) for order in (rows, rows[::-1])):
        assert tuple(result[60, 29]) == colour(0)


def test_max_side_reduces_image_and_boxes():
    result = draw(grey(400, 200), detections((40, 80, 120, 240, 0.9, 0)), CLASSES, max_side=100)
    assert result.shape == (100, 50, 3)
    assert tuple(result[50, 9]) == colour(0)  # 40 / 4 - 1
    assert draw(grey(40, 20), detections(), CLASSES, max_side=100).shape == (40, 20, 3)


def test_min_side_enlarges_tiny_images_by_an_integer_factor():
    result = draw(grey(30, 40), detections((10, 5, 30, 25, 0.9, 0)), CLASSES, min_side=320)
    assert result.shape == (240, 320, 3)
    assert tuple(result[120, 79]) == colour(0)  # 10 * 8 - 1
    assert draw(grey(30, 300), detections(), CLASSES, min_side=320).shape == (60, 600, 3)
    assert draw(grey(30, 320), detections(), CLASSES, min_side=320).shape == (30, 320, 3)


def test_font_scales_with_the_image(labels):
    for scale in (1, 4):
        draw(
            grey(400 * scale, 600 * scale),
            detections(*[np.append(np.array([50, 90, 300, 350]) * scale, (0.9, 0))]),
            CLASSES,
        )
    (small, _), (large, _) = labels
    assert (large[3] - large[1]) / (small[3] - small[1]) == pytest.approx(4, rel=0.2)


def test_font_shrinks_if_labels_would_cover_the_image(labels):
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 900, (100, 2))
    rows = [(x, y, x + 60, y + 60, 0.5, n % 12) for n, (x, y) in enumerate(corners.tolist())]
    draw(grey(1000, 1000), detections(*rows[:3]), CLASSES)
    height_of_3 = labels[0][0][3] - labels[0][0][1]
    labels.clear()
    draw(grey(1000, 1000), detections(*rows), CLASSES)
    height_of_100 = labels[0][0][3] - labels[0][0][1]
    assert 12 <= height_of_100 < 0.7 * height_of_3


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (40, 1), (2, 3), (12, 12), (24, 24), (10_000, 20), (20, 10_000), (3000, 4000)]
)
def test_any_image_size_works(size):
    height, width = size
    result = draw(grey(height, width), detections((0, 0, width, height, 0.9, 3), (0, 0, 1, 1, 0.1, 4)), CLASSES)
    assert result.shape == (height, width, 3)
    assert result.dtype == np.uint8
    assert (result != 128).any()


def test_labels_stay_inside_the_image(labels):
    corners = [(0, 0, 20, 20), (280, 0, 300, 20), (0, 180, 20, 200), (280, 180, 300, 200), (0, 0, 300, 200)]
    draw(grey(200, 300), detections(*[(*box, 0.5, n) for n, box in enumerate(corners)]), CLASSES)
    assert len(labels) == 5
    for (x1, y1, x2, y2), _ in labels:
        assert 0 <= x1 < x2 <= 300
        assert 0 <= y1 < y2 <= 200


def test_labels_of_identical_boxes_do_not_overlap(labels):
    draw(grey(480, 640), detections(*[(200, 150, 400, 300, 0.9 - n / 20, n) for n in range(10)]), CLASSES)
    for (a, _), (b, _) in combinations(labels, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_long_name_is_shortened_or_omitted(labels):
    long = ClassTable.from_names(["x" * 300])
    draw(grey(100, 100), detections((10, 10, 90, 90, 0.5, 0)), long)
    ((_, text),) = labels
    assert text.startswith("xxx")
    assert text.endswith("…")
    labels.clear()
    draw(grey(100, 12), detections((1, 1, 11, 90, 0.5, 0)), long)
    assert labels == []


def test_characters_missing_in_the_font_lose_accents_or_become_the_class_id(labels):
    draw(grey(200, 200), detections((10, 50, 90, 90, 0.5, 0)), ClassTable(("猫",), (17,)))
    draw(grey(200, 200), detections((10, 50, 90, 90, 0.5, 0)), ClassTable(("Kätzchen",), (17,)))
    assert [text for _, text in labels] == ["class 17 0.50", "Katzchen 0.50"]


def test_class_colours_are_fixed_and_distinct():
    assert colour(0) == (0xE6, 0x9F, 0x00)
    assert len({colour(index) for index in range(90)}) == 90


SIGHT = {  # transforms of linear RGB (Machado, Oliveira, Fernandes 2009, severity 1.0)
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def lab(rgb, sight):
    """CIE 1976 L*a*b*, illuminant D65."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.array(xyz) @ np.clip(np.array(sight) @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    ("sight", "seven", "thirteen"), [("normal", 26, 14), ("protanopia", 20, 13), ("deuteranopia", 17, 13)]
)
def test_first_colours_are_distinct_for_colour_blind_people(sight, seven, thirteen):
    colours = [lab(colour(index), SIGHT[sight]) for index in range(13)]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours[:7], 2)) > seven  # 2.3 is just noticeable
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > thirteen


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_text_has_the_contrast_that_wcag_requires(background):
    def luminance(rgb):
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in rgb)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(background), luminance(text_colour(background))), reverse=True)
    assert text_colour(background) in (BLACK, WHITE)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.lists(
        st.tuples(*[st.floats(-50, 150, width=32)] * 4, st.floats(0, 1, width=32), st.integers(0, 11)), max_size=6
    ),
)
def test_any_box_can_be_drawn(height, width, rows):
    assert draw(grey(height, width), detections(*rows), CLASSES).shape == (height, width, 3)


def test_non_finite_boxes_can_be_drawn():
    draw(grey(20, 20), detections((float("nan"), 0, float("inf"), 9, 0.5, 0)), CLASSES)


@pytest.mark.parametrize(("name", "format"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.png", "PNG")])
def test_save_image_follows_the_suffix_and_creates_folders(tmp_path, name, format):
    image = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    save_image(tmp_path / "new" / name, image)
    with Image.open(tmp_path / "new" / name) as back:
        assert back.format == format
        if format == "PNG":
            np.testing.assert_array_equal(np.asarray(back), image)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


def test_unknown_suffix_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"\.txt"):
        save_image(tmp_path / "a.txt", grey(2, 2))


def test_image_too_large_for_jpeg_is_a_usage_error_and_keeps_the_existing_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"before")
    with pytest.raises(UsageError, match=r"\.png"):
        save_image(tmp_path / "a.jpg", grey(1, 70_000))
    assert (tmp_path / "a.jpg").read_bytes() == b"before"
    save_image(tmp_path / "a.png", grey(1, 70_000))


def test_a_tracked_object_has_its_number_and_a_colour_of_its_own(labels):
    one = detections((20, 20, 80, 80, 0.9, 0), (120, 20, 180, 80, 0.8, 0), (20, 120, 80, 180, 0.7, 1))
    drawn = draw(grey(200, 200), replace(one, ids=np.array([3, 8, 0])), CLASSES)
    assert sorted(text for _, text in labels) == ["thing 0 #3 0.90", "thing 0 #8 0.80", "thing 1 0.70"]
    seen = {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
    assert {colour(2), colour(7), colour(1)} <= seen
    assert colour(0) not in seen
