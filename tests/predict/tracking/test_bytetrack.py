"""Identities in synthetic clips, compared with the truth."""

from fractions import Fraction

import numpy as np
import pytest

from fcos_cli.predict.tracking.bytetrack import Tracker
from fcos_cli.runtime.results import Detections
from tests.predict.tracking.scenes import THRESHOLDS, Actor, follow


def walk(x: float, y: float, dx: float, dy: float = 0.0):
    return lambda n: (x + dx * n, y + dy * n)


def span(*parts: tuple[int, int]) -> frozenset[int]:
    return frozenset(n for begin, end in parts for n in range(begin, end))


def test_two_that_cross_keep_their_identities():
    """They meet in frame 30, where the nearer one hides the other for five frames."""
    left = Actor(walk(50, 100, 4), range(60))
    right = Actor(walk(290, 104, -4), range(60), hidden=span((28, 33)))
    outcome = follow([left, right], jitter=0.7)
    assert outcome.switches == 0
    assert (outcome.identities, outcome.untracked) == (2, 0)


def test_without_prediction_the_crossing_would_be_a_switch(monkeypatch):
    """The scene is hard enough: the tracker fails in it once boxes are expected where they were last seen."""
    monkeypatch.setattr("fcos_cli.predict.tracking.motion.Motion.predict", lambda self, steps, *, keep_height: None)
    left = Actor(walk(50, 100, 4), range(60))
    right = Actor(walk(290, 104, -4), range(60), hidden=span((28, 33)))
    assert follow([left, right], jitter=0.7).switches > 0


@pytest.mark.parametrize("length", [1, 3, 10, 25])
def test_a_gap_below_a_second_ends_no_identity(length):
    outcome = follow([Actor(walk(40, 80, 3), range(90), hidden=span((30, 30 + length)))], jitter=0.5)
    assert outcome.ids == {0: [1]}


def test_after_more_than_a_second_it_is_another_object():
    outcome = follow([Actor(walk(40, 80, 0), range(120), hidden=span((30, 62)))])
    assert outcome.ids == {0: [1, 2]}
    assert outcome.untracked == 1  # the frame in which it comes back: once is not enough


def test_entries_and_exits():
    actors = [Actor(walk(30 + 60 * k, 90, 1), range(20 * k, 20 * k + 50)) for k in range(5)]
    outcome = follow(actors, jitter=0.4)
    assert outcome.ids == {k: [k + 1] for k in range(5)}
    assert outcome.untracked == 4  # the first frame of each that enters later


def test_boxes_below_the_threshold_continue_an_identity_and_begin_none():
    faint = Actor(walk(40, 80, 3), range(60), faint=span((20, 45)))
    never = Actor(walk(40, 250, 3), range(60), faint=span((0, 60)))
    outcome = follow([faint, never])
    assert outcome.ids == {0: [1]}
    assert sum(actor == 0 for _, actor, *_ in outcome.rows) == 60  # also in the faint frames
    assert outcome.untracked == 60


def test_low_boxes_are_not_given_to_an_object_that_was_hidden():
    actor = Actor(walk(40, 80, 0), range(40), hidden=span((10, 15)), faint=span((15, 20)))
    outcome = follow([actor])
    assert outcome.ids == {0: [1]}
    assert outcome.untracked == 5


def test_a_false_alarm_of_one_frame_gets_no_identity():
    outcome = follow([Actor(walk(40, 80, 2), range(30)), Actor(walk(300, 80, 0), range(10, 11))])
    assert outcome.ids == {0: [1]}


def test_objects_of_different_classes_in_the_same_place_are_not_mixed_up():
    rider = Actor(walk(60, 80, 3), range(40), class_index=0)
    horse = Actor(walk(60, 84, 3), range(40), class_index=1)
    outcome = follow([rider, horse], jitter=1.0)
    assert (outcome.switches, outcome.identities) == (0, 2)


@pytest.mark.parametrize(("rate", "every"), [(30, 1), (30, 3), (10, 1), (60, 2)])
def test_what_counts_is_time_and_not_the_number_of_frames(rate, every):
    """The same walk in pixels per second, with a gap of 0.6 s."""
    gap = span((rate * 2, round(rate * 2.6)))
    outcome = follow([Actor(walk(40, 80, 60 / rate), range(rate * 5), hidden=gap)], rate=rate, every=every)
    assert outcome.ids == {0: [1]}


def test_slow_clips_remember_objects_for_some_frames():
    """One frame in two seconds: a second alone would be less than a frame."""
    tracker = Tracker(THRESHOLDS)
    box = Detections(np.array([[10, 10, 60, 90]], np.float32), np.array([0.9], np.float32), np.array([0]))
    nothing = box.select(np.array([], np.int64))
    seen = [0, 1, 5]
    ids = [tracker.update(box if n in seen else nothing, Fraction(2 * n)).tolist() for n in range(6)]
    assert ids == [[1], [1], [], [], [], [1]]


def test_a_crowd_with_everything_at_once():
    """Twenty walkers in rows of different speed, gaps, faint frames and noise: no switch."""
    rng = np.random.default_rng(1)
    actors = []
    for k in range(20):
        begin, gap = int(rng.integers(0, 30)), int(rng.integers(40, 60))
        hidden, faint = span((gap, gap + int(rng.integers(1, 8)))), span((70, 70 + int(rng.integers(0, 9))))
        place = walk(float(rng.uniform(50, 600)), 40 + 45 * k, float(rng.uniform(-3, 3)))
        actors.append(Actor(place, range(begin, 100), hidden=hidden, faint=faint))
    outcome = follow(actors, jitter=0.6)
    assert outcome.switches == 0
    assert outcome.identities == 20


def test_the_result_is_the_same_each_time():
    actors = [Actor(walk(50 + 20 * k, 100 + 5 * k, 3 - k), range(50)) for k in range(6)]
    first, second = (follow(actors, jitter=2.0, seed=4).rows for _ in range(2))
    assert [row[:3] for row in first] == [row[:3] for row in second]


def test_frames_without_detections():
    tracker, nothing = Tracker(THRESHOLDS), Detections(np.zeros((0, 4), np.float32), *np.zeros((2, 0), np.float32))
    nothing = Detections(nothing.boxes, nothing.scores, np.zeros(0, np.int64))
    assert [tracker.update(nothing, Fraction(n)).tolist() for n in range(3)] == [[], [], []]
