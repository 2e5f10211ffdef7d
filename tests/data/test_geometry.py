"""Resize rules and their inverse: hand-computed sizes, then properties that hold for any image."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcos_cli.data.geometry import Geometry, ResizeRule, Rounding
from fcos_cli.errors import ModelError


def image(width: int, height: int, value: int = 200) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_letterbox_keeps_the_aspect_ratio_and_pads_right_and_bottom() -> None:
    # 640 x 480 into 320 x 320: scale 1/2, so 320 x 240, and 80 rows of padding below.
    rule = ResizeRule("letterbox", (320, 320))
    assert rule.geometry(640, 480) == Geometry((640, 480), (320, 240), (0, 0))
    images, _ = rule.batch([image(640, 480)])
    assert images.shape == (1, 3, 320, 320)
    assert (images[0, :, :240] == 200).all()
    assert (images[0, :, 240:] == 114).all()


def test_letterbox_enlarges_small_images_and_reads_size_as_height_width() -> None:
    assert ResizeRule("letterbox", (96, 64)).geometry(16, 16).resized == (64, 64)
    assert ResizeRule("letterbox", (96, 64)).batch([image(16, 16)])[0].shape == (1, 3, 96, 64)


@pytest.mark.parametrize(
    ("source", "resized"),
    [
        ((640, 480), (1067, 800)),  # 800/480 = 1.6667: 1066.67 rounds to 1067
        ((480, 640), (800, 1067)),
        ((2000, 500), (1333, 333)),  # the longer side would be 3200, so it is limited to 1333
        ((800, 800), (800, 800)),
    ],
)
def test_shortest_follows_the_papers(source: tuple[int, int], resized: tuple[int, int]) -> None:
    assert ResizeRule("shortest", (800, 1333)).geometry(*source).resized == resized


def test_shortest_pads_to_the_divisor_and_to_the_largest_image_of_the_batch() -> None:
    rule = ResizeRule("shortest", (40, 100), divisor=32, pad_value=7)
    images, geometries = rule.batch([image(40, 60), image(80, 40)])
    assert images.shape == (2, 3, 64, 96)
    assert [g.resized for g in geometries] == [(40, 60), (80, 40)]
    assert (images[0, :, :60, :40] == 200).all()
    assert (images[0, :, 60:] == 7).all()
    assert (images[0, :, :, 40:] == 7).all()
    assert images.flags.c_contiguous


def test_forward_uses_the_rounded_scale_per_axis() -> None:
    geometry = Geometry((100, 50), (51, 25), (0, 0))
    np.testing.assert_allclose(geometry.forward(np.array([[10, 10, 100, 50]], np.float32)), [[5.1, 5, 51, 25]])


def test_inverse_takes_the_padding_off_and_clips_to_the_image() -> None:
    geometry = Geometry((100, 50), (50, 25), (4, 8))
    boxes = geometry.inverse(np.array([[4, 8, 29, 20.5], [-9, -9, 200, 200]], np.float32))
    np.testing.assert_allclose(boxes, [[0, 0, 50, 25], [0, 0, 100, 50]])
    assert boxes.dtype == np.float32


def test_empty_boxes() -> None:
    empty = np.zeros((0, 4), np.float32)
    geometry = ResizeRule().geometry(10, 20)
    assert geometry.forward(empty).shape == geometry.inverse(empty).shape == (0, 4)


def test_an_image_of_the_input_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    images, _ = ResizeRule("letterbox", (32, 32)).batch([pixels])
    np.testing.assert_array_equal(images[0], pixels.transpose(2, 0, 1))


def test_shrinking_averages_instead_of_picking_single_pixels() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk, _ = ResizeRule("letterbox", (8, 8)).resize(stripes)
    assert 110 < shrunk.min() <= shrunk.max() < 145


@given(
    width=st.integers(1, 6000),
    height=st.integers(1, 6000),
    mode=st.sampled_from(["letterbox", "shortest"]),
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_forward_then_inverse_is_the_identity_inside_the_image(width, height, mode, size, corners) -> None:
    rule = ResizeRule(mode, size if mode == "letterbox" else (min(size), max(size)))
    geometry = rule.geometry(width, height)
    assert min(geometry.resized) >= 1
    high, wide = rule.canvas([geometry])
    assert geometry.resized[0] <= wide
    assert geometry.resized[1] <= high
    box = np.array([corners], np.float32) * np.array([width, height, width, height], np.float32)
    np.testing.assert_allclose(geometry.inverse(geometry.forward(box)), box, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("mode", ["letterbox", "shortest"])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (2, 6001)])
@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_extreme_aspect_ratios(mode, shape, rounding) -> None:
    images, (geometry,) = ResizeRule(mode, (64, 96), rounding=rounding).batch([image(*shape)])
    assert images.shape[1] == 3
    whole = np.array([[0, 0, *shape]], np.float32)
    np.testing.assert_allclose(geometry.inverse(geometry.forward(whole)), whole)


def test_json_round_trip() -> None:
    rule = ResizeRule("shortest", (256, 320), 64, 0)
    assert ResizeRule.from_json(rule.to_json()) == rule


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode": "stretch"}, "mode"),
        ({"size": [320]}, "size"),
        ({"size": ["a", 3]}, "size"),
        ({"size": [0, 3]}, "size"),
        ({"divisor": 0}, "divisor"),
        ({"divisor": None}, "divisor"),
        ({"pad_value": 256}, "pad_value"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_rule_in_an_artifact_names_its_key(change, named) -> None:
    with pytest.raises(ModelError, match=named):
        ResizeRule.from_json(ResizeRule().to_json() | change)


def test_a_missing_key_is_named() -> None:
    facts = ResizeRule().to_json()
    del facts["pad_value"]
    with pytest.raises(ModelError, match="pad_value"):
        ResizeRule.from_json(facts)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_anything_but_uint8_rgb_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="uint8"):
        ResizeRule().batch([wrong])


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ResizeRule().batch([])
