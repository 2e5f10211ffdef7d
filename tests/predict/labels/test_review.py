"""Which pictures are doubtful, with scores worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.predict.labels.review import Review
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.sources.frames import Clip, Moment
from fcos_cli.runtime.results import Detections
from tests.predict.labels.made import CLASSES, detections

BOX, FAR = (0, 0, 10, 10), (50, 50, 60, 60)


def review_of(
    found: Detections,
    *,
    limits: float | list[float] = 0.5,
    whole: Detections | None = None,
    scale: float = 1.0,
) -> tuple[float, str]:
    """The score of one picture, and its reason."""
    threshold = np.asarray(limits, np.float32)
    review = Review(CLASSES, threshold)
    given = Prediction(Path("a.jpg"), 100, 100, found, whole=whole)
    review.add("a.jpg", given, found.above(threshold), scale=scale)
    (row,) = review.ordered()
    return row.score, "; ".join(text for _, text in row.doubts)


@pytest.mark.parametrize(
    ("score", "count", "reason"),
    [
        (0.5, 1.0, "1 just above the threshold (dog 0.50)"),
        (0.525, 0.75, "1 just above the threshold (dog 0.52)"),
        (0.625, 0.0, ""),
        (0.475, 0.75, "1 just below the threshold, not labelled (dog 0.47)"),
        (0.375, 0.0, ""),
    ],
)
def test_scores_near_the_threshold(score: float, count: float, reason: str) -> None:
    assert review_of(detections((*BOX, score, 0))) == (pytest.approx(count, abs=1e-3), reason)


def test_each_class_has_its_own_threshold() -> None:
    found = detections((*BOX, 0.5, 0), (*FAR, 0.5, 1))
    assert review_of(found, limits=[0.2, 0.5]) == (1.0, "1 just above the threshold (cat 0.50)")


def test_a_weaker_box_of_a_labelled_object_is_no_doubt_but_another_class_is() -> None:
    shifted = (1, 1, 11, 11)
    assert review_of(detections((*BOX, 0.9, 0), (*shifted, 0.45, 0))) == (0.0, "")
    assert review_of(detections((*BOX, 0.9, 0), (*shifted, 0.45, 1)))[0] == pytest.approx(0.5, abs=1e-3)


def test_two_boxes_of_one_object_below_the_threshold_count_once() -> None:
    shifted = (1, 1, 11, 11)
    score, reason = review_of(detections((*BOX, 0.475, 0), (*shifted, 0.45, 0)))
    assert (score, reason) == (pytest.approx(0.75, abs=1e-3), "1 just below the threshold, not labelled (dog 0.47)")


def test_many_doubts_add_up_and_three_are_named() -> None:
    rows = [(*(np.array(BOX) + 12 * n).tolist(), 0.5, 0) for n in range(5)]
    assert review_of(detections(*rows)) == (
        5.0,
        "5 just above the threshold (dog 0.50, dog 0.50, dog 0.50, …)",
    )


def test_tiles_and_the_whole_picture_disagree_about_large_objects() -> None:
    large, small = (0, 0, 40, 40, 0.9, 0), (50, 50, 60, 60, 0.9, 1)
    nothing = detections()
    assert review_of(detections(large, small), whole=nothing) == (
        1.0,
        "1 found in the tiles, but not on the whole picture (dog 0.90)",
    )
    assert review_of(detections(large, small), whole=nothing, scale=4.0)[0] == 2.0
    assert review_of(detections(large), whole=detections(large)) == (0.0, "")
    assert review_of(nothing, whole=detections(small)) == (
        1.0,
        "1 found on the whole picture, but not with tiles (cat 0.90)",
    )


@pytest.mark.parametrize("every", [1, 5])
def test_a_class_that_is_missing_or_there_for_one_frame_of_a_video(every: int) -> None:
    clip = Clip(Path("c.mp4"), Fraction(25))
    dog, cat = (*BOX, 0.9, 0), (*FAR, 0.9, 1)
    review = Review(CLASSES, 0.5, every=every)
    for number, rows in enumerate([(dog,), (), (dog,), (dog, cat), (dog,)]):
        found = detections(*rows)
        given = Prediction(clip.source, 100, 100, found, moment=Moment(clip, number * every, Fraction(number)))
        review.add(f"{number}.jpg", given, found, scale=1.0)
    rows = review.ordered()
    assert [(row.picture, row.score) for row in rows] == [
        ("1.jpg", 1.0),
        ("3.jpg", 1.0),
        ("0.jpg", 0.0),
        ("2.jpg", 0.0),
        ("4.jpg", 0.0),
    ]
    assert rows[0].doubts == [(1.0, "no dog, but in the frames before and after")]
    assert rows[1].doubts == [(1.0, "cat here, but not in the frames before and after")]


def test_pictures_and_frames_of_other_clips_are_no_neighbours() -> None:
    clips = [Clip(Path(f"{name}.mp4"), Fraction(25)) for name in "aba"]
    review = Review(CLASSES, 0.5)
    plain = Prediction(Path("a.jpg"), 100, 100, detections((*BOX, 0.9, 0)))
    for number, clip in enumerate(clips):
        found = detections() if number == 1 else plain.detections
        moment = Moment(clip, number, Fraction(number))
        review.add(f"{number}.jpg", replace(plain, moment=moment), found, scale=1.0)
        review.add(f"p{number}.jpg", plain, found, scale=1.0)
    assert {row.score for row in review.ordered()} == {0.0}


def test_names_cannot_become_formulas(tmp_path: Path) -> None:
    review = Review(CLASSES, 0.5)
    given = Prediction(Path("=1+1.jpg"), 100, 100, detections((*BOX, 0.9, 0)))
    review.add("=1+1.jpg", given, given.detections, scale=1.0)
    review.write(tmp_path / "review.csv", review.ordered())
    assert (tmp_path / "review.csv").read_text() == (
        "picture,score,reason,labels,source\n'=1+1.jpg,0.000,,1,'=1+1.jpg\n"
    )
