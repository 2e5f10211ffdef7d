from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.predict.frames import Frame
from fcos_cli.predict.pipeline import predict
from fcos_cli.predict.tiles import Tiling, detect_in_tiles, merge, nms
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections, RawDetections
from tests.runtime.fakes import AB


@dataclass
class ColourDetector:
    """Finds, in a picture of 64 x 64, what is pure red (class 0) or pure green (class 1), if 3 px or more of it shows.

    One box per class around all of it; the score grows with the area. So it is blind for what is small or cut thin.
    """

    facts: Facts = field(default_factory=lambda: Facts(AB, ResizeRule("letterbox", (64, 64))))
    name: str = "colour"
    backend: str = "numpy"
    precision: str = "fp32"
    device: str = "cpu"
    sizes: list[int] = field(default_factory=list)

    def __call__(self, images):
        self.sizes.append(len(images))
        boxes = np.zeros((len(images), 2, 4), np.float32)
        scores, classes = np.zeros((len(images), 2), np.float32), np.full((len(images), 2), -1)
        counts = np.zeros(len(images), np.int64)
        for n, image in enumerate(images.astype(int)):
            for channel in (0, 1):
                ys, xs = np.nonzero(image[channel] - image.sum(0) / 2 > 90)
                if len(xs) < 3 or np.ptp(xs) < 3 or np.ptp(ys) < 3:
                    continue
                k = counts[n]
                boxes[n, k] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
                scores[n, k], classes[n, k] = 0.5 + len(xs) / 10_000, channel
                counts[n] += 1
        return RawDetections(boxes, scores, classes, counts)


def canvas(*things, size=(400, 300)) -> np.ndarray:
    """Grey, with (x, y, width, height, channel) painted on it."""
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    for x, y, w, h, channel in things:
        image[y : y + h, x : x + w] = 0
        image[y : y + h, x : x + w, channel] = 255
    return image


def find(image, tiling=None, **named):
    return detect_in_tiles(ColourDetector(), image, tiling or Tiling(128, 0.25), **named)


# ---------------------------------------------------------------- where tiles lie


def test_tiles_are_spread_evenly_over_the_picture():
    # 300 wide, 128 with 32 shared: 3 tiles, the last ends at the edge; (300 - 128) / 2 = 86 apart
    assert Tiling(128, 0.25).tiles(300, 100).tolist() == [
        [0, 0, 128, 100],
        [86, 0, 214, 100],
        [172, 0, 300, 100],
    ]


def test_a_picture_no_larger_than_a_tile_is_one():
    assert Tiling(640).tiles(640, 480).tolist() == [[0, 0, 640, 480]]
    detector = ColourDetector()
    detect_in_tiles(detector, canvas(size=(100, 80)), Tiling(128))
    assert detector.sizes == [1]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 900), st.floats(0, 0.8))
def test_tiles_cover_every_pixel_and_overlap_as_asked(width, height, side, overlap):
    tiling = Tiling(side, overlap)
    tiles = tiling.tiles(width, height)
    assert (tiles[:, 2:] - tiles[:, :2] == (min(side, width), min(side, height))).all()
    for axis, length in ((0, width), (1, height)):
        starts = np.unique(tiles[:, axis])
        assert starts[0] == 0
        assert tiles[:, axis + 2].max() == length
        assert (np.diff(starts) <= side - tiling.shared + 1).all()


@pytest.mark.parametrize(("side", "overlap"), [(16, 0.2), (640, 0.9), (640, 600), (640, -1)])
def test_tiles_too_small_and_overlaps_too_large_are_usage_errors(side, overlap):
    with pytest.raises(UsageError):
        Tiling(side, overlap)


def test_an_overlap_of_one_or_more_is_in_pixels():
    assert Tiling(640, 64).shared == Tiling(640, 0.1).shared == 64


# ---------------------------------------------------------------- what is found


def test_small_objects_are_found_where_they_are():
    image = canvas((20, 30, 16, 16, 0), (375, 270, 12, 20, 1))
    assert ColourDetector()(ResizeRule("letterbox", (64, 64)).batch([image])[0]).counts[0] == 0  # far too small
    found = find(image)
    boxes = found.boxes[np.argsort(found.boxes[:, 0])]
    np.testing.assert_allclose(boxes, [[20, 30, 36, 46], [375, 270, 387, 290]], atol=2.5)
    assert (np.diff(found.scores) <= 0).all()


def test_an_object_in_the_strip_of_two_tiles_is_found_once():
    # tiles of 128 begin at 0, 91, 181, 272: all of 92…126 lies in the strip of the first two
    for x in range(80, 140, 3):
        found = find(canvas((x, 40, 20, 20, 0)))
        assert len(found) == 1, x
        np.testing.assert_allclose(found.boxes[0], [x, 40, x + 20, 60], atol=2.5)


def test_an_object_wider_than_a_tile_is_one_box():
    found = find(canvas((60, 100, 290, 40, 1)))
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], [60, 100, 350, 140], atol=7)  # as the whole picture shows it


def test_an_object_over_the_whole_picture_stays_one_box():
    found = find(canvas((0, 0, 400, 300, 0)))
    np.testing.assert_allclose(found.boxes, [[0, 0, 400, 300]], atol=0.5)


def test_memory_is_bounded_by_the_batch():
    detector = ColourDetector()
    detect_in_tiles(detector, canvas(size=(1000, 700)), Tiling(128), batch=5)
    assert max(detector.sizes) == 5
    assert sum(detector.sizes) == len(Tiling(128).tiles(1000, 700)) + 1


def test_the_pipeline_takes_tiles():
    image = canvas((20, 30, 16, 16, 0), size=(900, 700))
    (plain,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.4)
    (tiled,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.4, tiling=Tiling(128), batch=4)
    assert (len(plain.detections), len(tiled.detections)) == (0, 1)
    assert tiled.image is None
    (none,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.9, tiling=Tiling(128))
    assert len(none.detections) == 0


# ---------------------------------------------------------------- what becomes of cut boxes

TILES = np.array([[0, 0, 160, 100], [0, 0, 100, 100], [60, 0, 160, 100]])  # the whole picture, left, right
ALL, LEFT, RIGHT = range(3)


def merged(*rows) -> list[list[float]]:
    """rows: (tile, x1, y1, x2, y2, score, class) → the same without tile, best first."""
    table = np.array(rows, np.float32)
    found = Detections(table[:, 1:5], table[:, 5], table[:, 6].astype(np.int64))
    answer = merge(found, TILES[table[:, 0].astype(int)], TILES, margin=2, iou=0.6)
    columns = (answer.boxes, answer.scores, answer.classes)
    return [[*map(float, box), round(float(score), 3), int(c)] for box, score, c in zip(*columns, strict=True)]


def test_a_cut_box_goes_where_another_tile_holds_all_of_it():
    # 70…100 is cut by the left tile's border; the right tile sees all of it, and says nothing
    assert merged((LEFT, 70, 10, 100, 40, 0.9, 0)) == []
    # 50…100 is not all in the right tile: it stays
    assert merged((LEFT, 50, 10, 100, 40, 0.9, 0)) == [[50, 10, 100, 40, 0.9, 0]]


def test_the_pictures_own_border_cuts_nothing():
    assert merged((LEFT, 0, 0, 30, 100, 0.9, 0)) == [[0, 0, 30, 100, 0.9, 0]]


def test_cut_boxes_that_agree_on_the_strip_become_one():
    rows = (LEFT, 20, 10, 100, 40, 0.7, 0), (RIGHT, 60, 11, 150, 41, 0.9, 0)
    assert merged(*rows) == [[20, 10, 150, 41, 0.9, 0]]


def test_cut_boxes_of_two_classes_or_two_heights_stay_two():
    assert len(merged((LEFT, 20, 10, 100, 40, 0.7, 0), (RIGHT, 60, 10, 150, 40, 0.9, 1))) == 2
    assert len(merged((LEFT, 20, 10, 100, 40, 0.7, 0), (RIGHT, 60, 50, 150, 90, 0.9, 0))) == 2


def test_a_cut_box_goes_where_a_whole_one_agrees():
    whole = (ALL, 20, 10, 150, 40, 0.5, 0)
    assert merged((LEFT, 20, 10, 100, 40, 0.9, 0), whole) == [[20, 10, 150, 40, 0.5, 0]]


def test_two_objects_side_by_side_stay_two():
    rows = (LEFT, 10, 10, 40, 40, 0.9, 0), (RIGHT, 110, 10, 150, 40, 0.8, 0)
    assert len(merged(*rows)) == 2


def test_nothing_found_is_nothing():
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert len(merge(none, np.zeros((0, 4), np.int64), TILES, margin=2, iou=0.6)) == 0


# ---------------------------------------------------------------- NMS


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_nms_is_the_networks_own(count, seed, iou):
    import torch

    from fcos_cli.model.decode import Candidates
    from fcos_cli.model.nms import keep_mask

    random = np.random.default_rng(seed)
    corners = random.integers(0, 30, (count, 2))
    boxes = np.hstack([corners, corners + random.integers(1, 20, (count, 2))]).astype(np.float32)
    scores = (random.integers(1, 20, count) / 20).astype(np.float32)
    classes = random.integers(0, 2, count)
    tensors = (torch.from_numpy(values)[None] for values in (boxes, scores, classes))
    expected = np.flatnonzero(keep_mask(Candidates(*tensors), iou=iou)[0].numpy())
    kept = nms(boxes, scores, classes, iou=iou)
    assert sorted(kept.tolist()) == expected.tolist()
    assert (np.diff(scores[kept]) <= 0).all()
