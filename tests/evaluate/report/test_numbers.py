"""What a report computes, against cases worked by hand: hotcoco is not taken at its word."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.evaluate.coco import score
from fcos_cli.evaluate.matches import PLAIN, evaluator, match
from fcos_cli.evaluate.report.numbers import ERRORS, GRID, Counts, Numbers, numbers
from fcos_cli.model.classes import ClassTable
from tests.evaluate.samples import ONE, TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]


def computed(detections, samples, classes=TWO, thresholds=None) -> Numbers:
    limits = np.full(len(classes), 0.5, np.float32) if thresholds is None else np.asarray(thresholds, np.float32)
    return numbers(score(detections, samples, classes), detections, samples, classes, thresholds=limits)


# --- matching --------------------------------------------------------------------------------------------------------


def test_matches_follow_the_order_of_samples_whatever_their_ids():
    samples = [sample([A], image_id=9), sample([B, A], [1, 0], image_id=2)]
    detections = [found([FAR], [0.9]), found([A, B, B], [0.3, 0.8, 0.7], [0, 1, 1])]
    rows = match(evaluator(detections, samples, TWO, **PLAIN), detections, samples)
    assert rows.picture.tolist() == [0, 1, 1, 1]
    assert rows.hit.tolist() == [False, True, True, False]
    assert not rows.ignored.any()
    assert rows.truth_picture.tolist() == [0, 1, 1]
    assert rows.found_at.tolist() == pytest.approx([-1, 0.8, 0.3])
    assert rows.found(np.array([0.5, 0.5])).tolist() == [False, True, False]
    assert rows.shown(np.array([0.2, 0.75])).tolist() == [True, True, True, False]


def test_what_lies_on_a_crowd_is_neither_hit_nor_false_alarm():
    samples = [sample([A, B], ignore=[True, False])]
    detections = [found([A, B, FAR], [0.9, 0.8, 0.7])]
    rows = match(evaluator(detections, samples, ONE, **PLAIN), detections, samples)
    assert rows.ignored.tolist() == [True, False, False]
    assert rows.hit.tolist() == [False, True, False]
    assert rows.found_at.tolist() == pytest.approx([-1, 0.8])


# --- counts, curves --------------------------------------------------------------------------------------------------


def test_counts_stand_at_the_threshold_of_each_class():
    samples = [sample([A, B, FAR], [0, 0, 1])]
    detections = [found([A, B, FAR, [500, 0, 600, 100]], [0.9, 0.4, 0.4, 0.6], [0, 0, 1, 0])]
    assert computed(detections, samples, thresholds=[0.5, 0.3]).counts == [Counts(1, 1, 1), Counts(1, 0, 0)]
    assert computed(detections, samples, thresholds=[0.4, 0.7]).counts == [Counts(2, 0, 1), Counts(0, 1, 0)]


def test_curves_are_those_that_ap_and_the_best_threshold_come_from():
    # hits at 0.9 and 0.6, a false alarm at 0.8, two truths: F1 = 2/3 above 0.8, 2/4 above 0.6, then 4/5
    samples, detections = [sample([A, B])], [found([A, FAR, B], [0.9, 0.8, 0.6])]
    answer = computed(detections, samples)
    assert answer.f1[0][GRID.tolist().index(0.85)] == pytest.approx(2 / 3)
    assert answer.f1[0][70] == pytest.approx(2 / 4)
    assert answer.f1[0][55] == answer.f1[0][0] == pytest.approx(4 / 5)
    assert answer.f1[0][95] == 0
    assert answer.precision[0].mean() == pytest.approx(answer.result.metrics["AP50"])
    assert answer.precision[0][0] == pytest.approx(1)
    assert answer.precision[0][-1] == pytest.approx(2 / 3)
    assert np.isnan(answer.f1[1]).all()
    assert np.isnan(answer.precision[1]).all()


# --- confusion -------------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_has_truth_in_rows_and_nothing_last():
    samples = [sample([A, B, FAR], [0, 0, 1])]
    detections = [found([A, B, [500, 300, 600, 400]], [0.9, 0.8, 0.7], [0, 1, 1])]
    assert computed(detections, samples).confusion.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_crowds_and_detections_below_the_threshold_are_not_confused_with_anything():
    samples = [sample([A, B], [0, 0], ignore=[True, False])]
    detections = [found([[10, 10, 60, 60], B, FAR], [0.9, 0.8, 0.4], [0, 0, 1])]
    assert computed(detections, samples).confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


# --- kinds of error --------------------------------------------------------------------------------------------------

SHORT = [0, 0, 100, 40]  # IoU 0.4 with A
KINDS = {
    # one class; AP50 before → after its kind is mended, on COCO's 101 recalls
    "Loc": ([A], [(SHORT, 0.9)], 0, 1),
    "Bkg": ([A], [(FAR, 0.9), (A, 0.8)], 1 / 2, 1),
    "Miss": ([A, B], [(A, 0.9)], 51 / 101, 1),
    # the second finds A again: recall 0.5 at precision 1, recall 1 at precision 2/3
    "Dupe": ([A, B], [(A, 0.9), ([0, 0, 100, 98], 0.8), (B, 0.7)], (51 + 50 * 2 / 3) / 101, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_of_an_error_is_what_ap_gains_without_it(kind):
    truth, rows, before, after = KINDS[kind]
    answer = computed([found([box for box, _ in rows], [s for _, s in rows])], [sample(truth)], ONE)
    assert answer.result.metrics["AP50"] == pytest.approx(before)
    assert {error.kind: error.cost for error in answer.errors} == pytest.approx(
        {**dict.fromkeys(ERRORS, 0), kind: after - before}, abs=1e-9
    )
    assert {error.kind: error.count for error in answer.errors} == {**dict.fromkeys(ERRORS, 0), kind: 1}


def test_a_wrong_class_costs_the_class_that_it_was_missed_by():
    # B is a dog taken for a cat. Mended, dogs go from AP 0 to 1; cats keep theirs. The mean of two classes gains 1/2.
    answer = computed([found([A, B], [0.9, 0.8])], [sample([A, B], [0, 1])])
    assert {e.kind: e.cost for e in answer.errors if e.cost} == pytest.approx({"Cls": 0.5})
    assert {e.kind: e.count for e in answer.errors if e.count} == {"Cls": 1}


def test_how_often_is_counted_at_the_thresholds_and_the_cost_at_every_score():
    answer = computed([found([A, FAR], [0.4, 0.45])], [sample([A])], ONE)
    assert {e.kind: e.count for e in answer.errors if e.count} == {"Miss": 1}
    assert {e.kind: e.cost for e in answer.errors if e.cost} == pytest.approx({"Bkg": 0.5})


# --- calibration, sizes ----------------------------------------------------------------------------------------------


def test_calibration_is_the_mean_distance_of_scores_from_hits():
    # 0.8…0.9: two of mean score 0.85, one hit; 0.9…1: one of 0.95, a hit. (2 · 0.35 + 1 · 0.05) / 3
    answer = computed([found([A, FAR, B], [0.95, 0.85, 0.85])], [sample([A, B])], ONE)
    assert answer.ece == pytest.approx(0.25, abs=1e-6)
    used = [b for b in answer.bins if b.count]
    assert [(b.low, b.high, b.count) for b in used] == [(pytest.approx(0.8), 0.9, 2), (0.9, 1.0, 1)]
    assert [(b.confidence, b.accuracy) for b in used] == [(pytest.approx(0.85), 0.5), (pytest.approx(0.95), 1)]


def test_every_truth_lies_in_one_size_bucket_and_bounds_belong_to_the_larger():
    truth = [[0, 0, 20, 20], [100, 0, 132, 32], [200, 0, 270, 70]]
    answer = computed([found([truth[0], truth[2]], [0.9, 0.8])], [sample(truth)], ONE)
    rows = [(b.low, b.high, b.truths, round(b.AP, 9), round(b.AP50, 9)) for b in answer.sizes]
    assert rows == [(16, 32, 1, 1, 1), (32, 64, 1, 0, 0), (64, 96, 1, 1, 1)]


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "samples"),
    [
        ([found([])], [sample([A])]),
        ([found([A])], [sample([])]),
        ([found([])], [sample([])]),
        ([found([A])], [sample([A], ignore=[True])]),
    ],
    ids=["nothing found", "no truth", "neither", "all ignored"],
)
def test_nothing_to_compute_with_is_no_error(detections, samples):
    answer = computed(detections, samples)
    assert len(answer.counts) == 2
    assert answer.confusion.shape == (3, 3)
    assert len(answer.errors) == len(ERRORS)


def test_many_detections_of_one_class_are_cut_at_the_hundred_that_coco_counts():
    boxes = [[i, 0, i + 10, 10] for i in range(120)]
    answer = computed([found(boxes, np.linspace(0.9, 0.6, 120))], [sample([boxes[119]])], ClassTable(("a",), (1,)))
    assert int(answer.matches.ignored.sum()) == 20
    assert answer.result.metrics["AR100"] == pytest.approx(0, abs=0.2)
