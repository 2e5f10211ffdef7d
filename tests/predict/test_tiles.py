from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.tiling import Tiling
from fcos_cli.predict.pipeline import predict
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.tiles import detect_in_tiles, merge_tiles, nms
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections, RawDetections
from tests.runtime.fakes import AB


@dataclass
class ColourDetector:
    """Detects pure red (class 0) and pure green (class 1) of at least 3 x 3 px in an input of 64 x 64.

    It returns one box per class around all such pixels, with a score that grows with the area. Like a real network, it
    misses objects that are small or of which only a thin part is visible.
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


def canvas(*rectangles, size=(400, 300)) -> np.ndarray:
    """A grey image with rectangles (x, y, width, height, channel) of pure colour."""
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    for x, y, w, h, channel in rectangles:
        image[y : y + h, x : x + w] = 0
        image[y : y + h, x : x + w, channel] = 255
    return image


def detect(image, tiling=None, **options):
    return detect_in_tiles(ColourDetector(), image, tiling or Tiling(128, 0.25), **options).merged


# ---------------------------------------------------------------- detection


def test_image_no_larger_than_a_tile_is_one_tile():
    assert Tiling(640).tiles(640, 480).tolist() == [[0, 0, 640, 480]]
    detector = ColourDetector()
    detect_in_tiles(detector, canvas(size=(100, 80)), Tiling(128))
    assert detector.sizes == [1]


def test_small_objects_are_found():
    image = canvas((20, 30, 16, 16, 0), (375, 270, 12, 20, 1))
    assert ColourDetector()(ResizeRule("letterbox", (64, 64)).batch([image])[0]).counts[0] == 0  # far too small
    found = detect(image)
    boxes = found.boxes[np.argsort(found.boxes[:, 0])]
    np.testing.assert_allclose(boxes, [[20, 30, 36, 46], [375, 270, 387, 290]], atol=2.5)
    assert (np.diff(found.scores) <= 0).all()


def test_object_in_the_overlap_of_two_tiles_is_found_once():
    # tiles of 128 start at 0, 91, 181 and 272, so 92…126 is in the overlap of the first two
    for x in range(80, 140, 3):
        found = detect(canvas((x, 40, 20, 20, 0)))
        assert len(found) == 1, x
        np.testing.assert_allclose(found.boxes[0], [x, 40, x + 20, 60], atol=2.5)


def test_object_wider_than_a_tile_is_one_box():
    found = detect(canvas((60, 100, 290, 40, 1)))
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], [60, 100, 350, 140], atol=7)  # the resolution of the whole image


def test_object_that_fills_the_image_is_one_box():
    found = detect(canvas((0, 0, 400, 300, 0)))
    np.testing.assert_allclose(found.boxes, [[0, 0, 400, 300]], atol=0.5)


def test_network_gets_at_most_one_batch_of_tiles_at_a_time():
    detector = ColourDetector()
    detect_in_tiles(detector, canvas(size=(1000, 700)), Tiling(128), batch=5)
    assert max(detector.sizes) == 5
    assert sum(detector.sizes) == len(Tiling(128).tiles(1000, 700)) + 1


def test_what_is_found_on_the_whole_image_alone_is_kept_without_a_threshold():
    image, tiling = canvas((20, 30, 16, 16, 0), (60, 100, 290, 40, 1)), Tiling(128)
    (plain,) = predict(ColourDetector(), [Frame("x", image)])
    (tiled,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.9, tiling=tiling, batch=4)
    assert len(plain.detections) == 1
    np.testing.assert_array_equal(tiled.whole.boxes, plain.detections.boxes)
    assert len(tiled.detections) == 0
    for single in ({"tiling": Tiling(400)}, {}):
        (alone,) = predict(ColourDetector(), [Frame("x", image)], **single)
        assert alone.whole is None


def test_pipeline_supports_tiles():
    image = canvas((20, 30, 16, 16, 0), size=(900, 700))
    (plain,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.4)
    (tiled,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.4, tiling=Tiling(128), batch=4)
    assert (len(plain.detections), len(tiled.detections)) == (0, 1)
    assert tiled.image is None
    (none,) = predict(ColourDetector(), [Frame("x", image)], threshold=0.9, tiling=Tiling(128))
    assert len(none.detections) == 0


# ---------------------------------------------------------------- boxes that are cut off

TILES = np.array([[0, 0, 160, 100], [0, 0, 100, 100], [60, 0, 160, 100]])  # whole image, left, right
WHOLE, LEFT, RIGHT = range(3)


def merged(*rows) -> list[list[float]]:
    """Merge rows of (tile, x1, y1, x2, y2, score, class). Returns the same without the tile, best first."""
    table = np.array(rows, np.float32)
    detections = Detections(table[:, 1:5], table[:, 5], table[:, 6].astype(np.int64))
    result = merge_tiles(detections, TILES[table[:, 0].astype(int)], TILES, margin=2, iou=0.6)
    columns = (result.boxes, result.scores, result.classes)
    return [[*map(float, box), round(float(score), 3), int(c)] for box, score, c in zip(*columns, strict=True)]


def test_cut_off_box_is_dropped_if_another_tile_contains_it():
    # 70…100 touches the border of the left tile; the right tile contains it and has no detection there
    assert merged((LEFT, 70, 10, 100, 40, 0.9, 0)) == []
    # 50…100 is not entirely in the right tile, so it is kept
    assert merged((LEFT, 50, 10, 100, 40, 0.9, 0)) == [[50, 10, 100, 40, 0.9, 0]]


def test_image_border_does_not_cut_off_boxes():
    assert merged((LEFT, 0, 0, 30, 100, 0.9, 0)) == [[0, 0, 30, 100, 0.9, 0]]


def test_matching_cut_off_boxes_are_joined():
    rows = (LEFT, 20, 10, 100, 40, 0.7, 0), (RIGHT, 60, 11, 150, 41, 0.9, 0)
    assert merged(*rows) == [[20, 10, 150, 41, 0.9, 0]]


def test_cut_off_boxes_of_different_class_or_height_stay_separate():
    assert len(merged((LEFT, 20, 10, 100, 40, 0.7, 0), (RIGHT, 60, 10, 150, 40, 0.9, 1))) == 2
    assert len(merged((LEFT, 20, 10, 100, 40, 0.7, 0), (RIGHT, 60, 50, 150, 90, 0.9, 0))) == 2


def test_cut_off_box_is_dropped_if_a_complete_box_matches():
    complete = (WHOLE, 20, 10, 150, 40, 0.5, 0)
    assert merged((LEFT, 20, 10, 100, 40, 0.9, 0), complete) == [[20, 10, 150, 40, 0.5, 0]]


def test_two_objects_side_by_side_stay_separate():
    rows = (LEFT, 10, 10, 40, 40, 0.9, 0), (RIGHT, 110, 10, 150, 40, 0.8, 0)
    assert len(merged(*rows)) == 2


def test_merging_no_detections():
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert len(merge_tiles(none, np.zeros((0, 4), np.int64), TILES, margin=2, iou=0.6)) == 0


# ---------------------------------------------------------------- NMS


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_nms_keeps_the_same_boxes_as_the_network(count, seed, iou):
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
