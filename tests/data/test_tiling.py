"""Tiles: where they are, and what of a data set becomes a training image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.tiling import EMPTY_SHARE, Tiling, cut
from fcos_cli.errors import UsageError
from tests.evaluate.samples import TWO, sample

TILING = Tiling(100, 20)  # an image of 180 x 100 has the tiles 0…100 and 80…180


def dataset(*samples: Sample) -> Dataset:
    return Dataset(list(samples), TWO, "coco", "train", Path("train.json"), "train.json")


def parts(*samples: Sample, seed: int = 0) -> list[Sample]:
    return cut(dataset(*samples), TILING, seed=seed).samples


# ---------------------------------------------------------------- tile positions


def test_tiles_are_evenly_spaced() -> None:
    # width 300, tiles of 128 that overlap by at least 32: 3 tiles, (300 - 128) / 2 = 86 apart
    assert Tiling(128, 0.25).tiles(300, 100).tolist() == [
        [0, 0, 128, 100],
        [86, 0, 214, 100],
        [172, 0, 300, 100],
    ]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 900), st.floats(0, 0.8))
def test_tiles_cover_the_image_and_overlap_as_requested(width: int, height: int, side: int, overlap: float) -> None:
    tiling = Tiling(side, overlap)
    tiles = tiling.tiles(width, height)
    assert (tiles[:, 2:] - tiles[:, :2] == (min(side, width), min(side, height))).all()
    for axis, length in ((0, width), (1, height)):
        starts = np.unique(tiles[:, axis])
        assert starts[0] == 0
        assert tiles[:, axis + 2].max() == length
        assert (np.diff(starts) <= side - tiling.overlap_pixels + 1).all()


@pytest.mark.parametrize(("side", "overlap"), [(16, 0.2), (640, 0.9), (640, 600), (640, -1)])
def test_invalid_tile_sizes_and_overlaps_are_usage_errors(side: int, overlap: float) -> None:
    with pytest.raises(UsageError):
        Tiling(side, overlap)


def test_overlap_of_at_least_1_is_in_pixels() -> None:
    assert Tiling(640, 64).overlap_pixels == Tiling(640, 0.1).overlap_pixels == 64
    assert str(Tiling(640)) == "tiles of 640 px that overlap by 128 px"


# ---------------------------------------------------------------- training images


def test_boxes_are_clipped_to_their_tile_and_mostly_hidden_ones_are_ignored() -> None:
    # Of 70…86, 6 of 16 px are in the second tile; of 70…82, 2 of 12.
    boxes = [[10, 20, 30, 40], [70, 0, 86, 10], [70, 50, 82, 60]]
    first, second = parts(sample(boxes, [0, 1, 0], size=(180, 100), areas=[400, 80, 120]))
    assert (first.part, second.part) == ((0, 0, 100, 100), (80, 0, 180, 100))
    assert [(s.width, s.height, s.image_id) for s in (first, second)] == [(100, 100, 1)] * 2
    assert first.boxes.tolist() == boxes
    assert first.ignore.tolist() == [False] * 3
    assert second.boxes.tolist() == [[0, 0, 6, 10], [0, 50, 2, 60]]
    assert second.classes.tolist() == [1, 0]
    assert second.ignore.tolist() == [False, True]
    assert second.areas.tolist() == pytest.approx([80 * 6 / 16, 120 * 2 / 12])
    dtypes = [(s.boxes.dtype, s.classes.dtype, s.ignore.dtype, s.areas.dtype) for s in (first, second)]
    assert dtypes == [(np.float32, np.int64, np.bool_, np.float64)] * 2


def test_an_image_no_larger_than_a_tile_stays_as_it_is() -> None:
    small = (sample([[0, 0, 9, 9]], size=(100, 60)), sample([], size=(50, 100)))
    assert [a is b for a, b in zip(parts(*small), small, strict=True)] == [True, True]


def test_an_object_that_no_tile_shows_completely_is_learned_in_the_whole_image() -> None:
    wide = sample([[20, 10, 140, 60], [0, 0, 10, 10], [5, 5, 9, 9]], size=(180, 100), ignore=[False, False, True])
    first, second, whole = parts(wide)
    assert (first.part, second.part, whole.part) == ((0, 0, 100, 100), (80, 0, 180, 100), None)
    assert whole.boxes is wide.boxes
    assert whole.ignore.tolist() == [False, True, True]
    assert first.ignore.tolist() == [False, False, True]
    assert second.boxes.tolist() == [[0, 10, 60, 60]]
    wide.ignore[0] = True  # a crowd needs no whole image
    assert [s.part for s in parts(wide)][:1] == [(0, 0, 100, 100)]
    assert all(s.part for s in parts(wide))


def test_tiles_without_objects_are_a_share_of_the_others_and_depend_on_the_seed_only() -> None:
    images = [sample([[5, 5, 15, 15]], size=(340, 100), image=f"{n}.png") for n in range(8)]  # 4 tiles, 3 of them empty
    images.append(sample([[5, 5, 15, 15]], size=(340, 100), ignore=[True], image="crowd.png"))
    found = cut(dataset(*images), TILING, seed=3)
    empty = [s for s in found.samples if s.ignore.all()]
    assert len(found) - len(empty) == 8
    assert len(empty) == 8 * EMPTY_SHARE == 2
    assert found.origin == "train.json; 10 tiles of 100 px that overlap by 20 px, 2 of them without objects"
    names = [int(s.image.stem) for s in found.samples if len(s.boxes) and not s.ignore.all()]
    assert names == sorted(names)

    def chosen(seed: int) -> list[tuple[str, object]]:
        return [(s.image.name, s.part) for s in parts(*images, seed=seed)]

    np.random.seed(9)
    assert chosen(3) == [(s.image.name, s.part) for s in found.samples]
    assert len({str(chosen(seed)) for seed in range(5)}) > 1


def test_what_the_reader_found_is_kept() -> None:
    large = sample([[0, 0, 150, 10]], size=(180, 100))
    data = replace(dataset(large, sample([], size=(9, 9))), findings=[])
    found = cut(data, TILING, seed=0)
    assert (found.classes, found.split, found.findings) == (data.classes, "train", [])
    assert found.origin.endswith(
        "2 tiles of 100 px that overlap by 20 px, 0 of them without objects, and 2 whole images"
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(40, 400),
    st.integers(40, 400),
    st.lists(st.tuples(*[st.floats(0, 1)] * 2, *[st.floats(0.02, 1)] * 2), max_size=6),
)
def test_every_object_is_complete_in_some_image_and_moved_back_where_it_was(
    width: int, height: int, rows: list[tuple[float, float, float, float]]
) -> None:
    corners = np.array([(x, y, min(1, x + w), min(1, y + h)) for x, y, w, h in rows]).reshape(-1, 4)
    boxes = (corners * (width, height, width, height)).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] > 1).all(axis=1)]
    whole = sample(boxes, np.arange(len(boxes)), size=(width, height))
    seen = set()
    for part in parts(whole):
        assert (part.boxes[:, :2] >= 0).all()
        assert (part.boxes[:, 2:] <= (part.width, part.height)).all()
        assert (part.boxes[:, 2:] > part.boxes[:, :2]).all()
        x, y = (0, 0) if part.part is None else part.part[:2]
        back = part.boxes + np.array([x, y, x, y], np.float32)
        for box, index, ignored in zip(back, part.classes, part.ignore, strict=True):
            if np.allclose(box, boxes[index], atol=1e-3):
                seen |= {int(index)} if not ignored else set()
            else:
                assert (box[:2] >= boxes[index, :2] - 1e-3).all()
                assert (box[2:] <= boxes[index, 2:] + 1e-3).all()
    assert seen == set(range(len(boxes)))
