"""--track: what is reported, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.pipeline import Failure, Prediction
from fcos_cli.predict.sources.address import Address
from fcos_cli.predict.sources.frames import Clip, Moment
from fcos_cli.predict.tracking.track import check_tracking, low_thresholds, still_picture, track
from fcos_cli.runtime.results import Detections

THRESHOLDS = np.array([0.5, np.inf], np.float32)
BOX, OTHER = (10, 10, 40, 70), (200, 10, 230, 70)


def frame(clip: Clip, number: int, *rows: tuple[tuple[int, ...], float]) -> Prediction:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in rows], np.float32)
    found = Detections(boxes, scores, np.zeros(len(rows), np.int64))
    return Prediction(clip.source, 320, 240, found, None, Moment(clip, number, Fraction(number, 25)))


def tracked(*results, limit=None):
    items = track(results, thresholds=THRESHOLDS, limit=limit)
    return [item if isinstance(item, Failure) else item.detections.ids.tolist() for item in items]


def test_each_clip_begins_with_identity_one():
    first, second = Clip(Path("a.mp4"), Fraction(25)), Clip(Path("b.mp4"), Fraction(25))
    frames = [frame(clip, n, (BOX, 0.9), (OTHER, 0.8)) for clip in (first, second, first) for n in range(2)]
    assert tracked(*frames) == [[1, 2]] * 6


def test_a_box_below_the_threshold_is_reported_only_if_it_is_known():
    clip = Clip(Path("a.mp4"), Fraction(25))
    frames = [frame(clip, 0, (BOX, 0.9), (OTHER, 0.2)), frame(clip, 1, (BOX, 0.2), (OTHER, 0.2))]
    assert tracked(*frames) == [[1], [1]]


def test_a_box_above_the_threshold_is_reported_before_it_has_an_identity():
    clip = Clip(Path("a.mp4"), Fraction(25))
    frames = [frame(clip, n, (BOX, 0.9), *([(OTHER, 0.7)] if n else [])) for n in range(3)]
    assert tracked(*frames) == [[1], [1, 0], [1, 2]]


def test_the_limit_applies_to_what_is_reported_and_not_to_what_is_tracked():
    clip = Clip(Path("a.mp4"), Fraction(25))
    scores = [(0.9, 0.8), (0.7, 0.9), (0.9, 0.8)]
    frames = []
    for n, (one, two) in enumerate(scores):
        rows = sorted([(BOX, one), (OTHER, two)], key=lambda row: -row[1])
        frames.append(frame(clip, n, *rows))
    assert tracked(*frames, limit=1) == [[1], [2], [1]]


def test_failures_pass_and_end_no_clip():
    clip, failure = Clip(Path("a.mp4"), Fraction(25)), Failure(Path("a.mp4"), DataError("a broken frame"))
    assert tracked(frame(clip, 0, (BOX, 0.9)), failure, frame(clip, 1, (BOX, 0.9))) == [[1], failure, [1]]


def test_a_picture_among_videos_is_a_failure_that_names_it_and_the_others_are_tracked():
    picture = Prediction(Path("a.jpg"), 320, 240, Detections(*(np.zeros(s, np.float32) for s in ((0, 4), 0, 0))))
    first, second = Clip(Path("a.mp4"), Fraction(25)), Clip(Path("b.mp4"), Fraction(25))
    before, failure, after = tracked(frame(first, 0, (BOX, 0.9)), picture, frame(second, 0, (BOX, 0.9)))
    assert before == after == [1]
    assert isinstance(failure, Failure)
    assert (failure.source, failure.error.where) == (Path("a.jpg"), "a.jpg")
    assert "ffmpeg" in failure.error.remedy


def test_the_remedy_fits_what_was_named(tmp_path):
    assert f"'{tmp_path}/*.mp4'" in str(still_picture(str(tmp_path)).remedy)
    assert "ffmpeg -i 'my moving.GIF' 'my moving.mp4'" in str(still_picture("my moving.GIF").remedy)
    assert "%06d.jpg" in str(still_picture(Address("http://host/a.gif")).remedy)


def test_low_thresholds_are_never_above_those_for_reporting():
    given = np.array([0.5, 0.02, np.inf], np.float32)
    assert low_thresholds(given).tolist() == pytest.approx([0.1, 0.02, np.inf])


@pytest.mark.parametrize(
    ("sources", "save", "wanted"),
    [
        (["a.mp4"], ["t.mot.txt"], False),
        (["a.mp4", "b.mp4"], ["t.mot.txt"], True),
        (["*.mp4"], ["t.csv", "t.mot.txt"], True),
        (["photo.jpg"], [], True),
        (["a.mp4", "photo.PNG"], [], True),
        (["."], [], True),
        (["-"], [], True),
    ],
)
def test_what_cannot_be_tracked_is_refused_before_anything_runs(sources, save, wanted):
    with pytest.raises(UsageError):
        check_tracking(sources, [Path(file) for file in save], wanted=wanted)


@pytest.mark.parametrize("source", ["a.mp4", "camera:0", "/dev/video0", "rtsp://host/one", "http://host/a.jpg"])
def test_what_may_be_a_clip_is_not_refused(source):
    check_tracking([source], [Path("t.mot.txt")], wanted=True)
