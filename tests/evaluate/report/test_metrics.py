"""Metrics of a report, compared with values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.evaluate.coco import score
from fcos_cli.evaluate.matches import AT_IOU_50, match_detections, run_evaluator
from fcos_cli.evaluate.report.metrics import ERROR_TYPES, GRID, Counts, ReportMetrics, compute_metrics
from fcos_cli.model.classes import ClassTable
from tests.evaluate.samples import ONE, TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]


def computed(detections, samples, classes=TWO, thresholds=None) -> ReportMetrics:
    limits = np.full(len(classes), 0.5, np.float32) if thresholds is None else np.asarray(thresholds, np.float32)
    return compute_metrics(score(detections, samples, classes), detections, samples, classes, thresholds=limits)


# --- matching ---------------------------------------------------------------------------------------------------------


def test_matches_follow_the_order_of_samples_regardless_of_image_ids():
    samples = [sample([A], image_id=9), sample([B, A], [1, 0], image_id=2)]
    detections = [found([FAR], [0.9]), found([A, B, B], [0.3, 0.8, 0.7], [0, 1, 1])]
    rows = match_detections(run_evaluator(detections, samples, TWO, **AT_IOU_50), detections, samples)
    assert rows.image_index.tolist() == [0, 1, 1, 1]
    assert rows.hit.tolist() == [False, True, True, False]
    assert not rows.ignored.any()
    assert rows.truth_image_index.tolist() == [0, 1, 1]
    assert rows.match_scores.tolist() == pytest.approx([-1, 0.8, 0.3])
    assert rows.found(np.array([0.5, 0.5])).tolist() == [False, True, False]
    assert rows.shown(np.array([0.2, 0.75])).tolist() == [True, True, True, False]


def test_detections_on_a_crowd_are_neither_true_nor_false_positives():
    samples = [sample([A, B], ignore=[True, False])]
    detections = [found([A, B, FAR], [0.9, 0.8, 0.7])]
    rows = match_detections(run_evaluator(detections, samples, ONE, **AT_IOU_50), detections, samples)
    assert rows.ignored.tolist() == [True, False, False]
    assert rows.hit.tolist() == [False, True, False]
    assert rows.match_scores.tolist() == pytest.approx([-1, 0.8])


# --- counts, curves ---------------------------------------------------------------------------------------------------


def test_counts_use_the_threshold_of_each_class():
    samples = [sample([A, B, FAR], [0, 0, 1])]
    detections = [found([A, B, FAR, [500, 0, 600, 100]], [0.9, 0.4, 0.4, 0.6], [0, 0, 1, 0])]
    assert computed(detections, samples, thresholds=[0.5, 0.3]).counts == [Counts(1, 1, 1), Counts(1, 0, 0)]
    assert computed(detections, samples, thresholds=[0.4, 0.7]).counts == [Counts(2, 0, 1), Counts(0, 1, 0)]


def test_curves_agree_with_ap_and_the_best_threshold():
    # true positives at 0.9 and 0.6, a false positive at 0.8, two ground-truth boxes:
    # F1 = 2/3 above 0.8, 2/4 above 0.6, then 4/5
    samples, detections = [sample([A, B])], [found([A, FAR, B], [0.9, 0.8, 0.6])]
    metrics = computed(detections, samples)
    assert metrics.f1[0][GRID.tolist().index(0.85)] == pytest.approx(2 / 3)
    assert metrics.f1[0][70] == pytest.approx(2 / 4)
    assert metrics.f1[0][55] == metrics.f1[0][0] == pytest.approx(4 / 5)
    assert metrics.f1[0][95] == 0
    assert metrics.precision[0].mean() == pytest.approx(metrics.result.metrics["AP50"])
    assert metrics.precision[0][0] == pytest.approx(1)
    assert metrics.precision[0][-1] == pytest.approx(2 / 3)
    assert np.isnan(metrics.f1[1]).all()
    assert np.isnan(metrics.precision[1]).all()


# --- confusion --------------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_has_ground_truth_in_rows_and_no_match_last():
    samples = [sample([A, B, FAR], [0, 0, 1])]
    detections = [found([A, B, [500, 300, 600, 400]], [0.9, 0.8, 0.7], [0, 1, 1])]
    assert computed(detections, samples).confusion.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_the_confusion_matrix_omits_crowds_and_detections_below_the_threshold():
    samples = [sample([A, B], [0, 0], ignore=[True, False])]
    detections = [found([[10, 10, 60, 60], B, FAR], [0.9, 0.8, 0.4], [0, 0, 1])]
    assert computed(detections, samples).confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


# --- error types ------------------------------------------------------------------------------------------------------

SHORT = [0, 0, 100, 40]  # IoU 0.4 with A
KINDS = {
    # one class; AP50 before → after fixing this error type, on COCO's 101 recalls
    "Loc": ([A], [(SHORT, 0.9)], 0, 1),
    "Bkg": ([A], [(FAR, 0.9), (A, 0.8)], 1 / 2, 1),
    "Miss": ([A, B], [(A, 0.9)], 51 / 101, 1),
    # the second detection finds A again: recall 0.5 at precision 1, recall 1 at precision 2/3
    "Dupe": ([A, B], [(A, 0.9), ([0, 0, 100, 98], 0.8), (B, 0.7)], (51 + 50 * 2 / 3) / 101, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_of_an_error_type_is_the_gain_in_ap_from_fixing_it(kind):
    truth, rows, before, after = KINDS[kind]
    metrics = computed([found([box for box, _ in rows], [s for _, s in rows])], [sample(truth)], ONE)
    assert metrics.result.metrics["AP50"] == pytest.approx(before)
    assert {error.kind: error.cost for error in metrics.errors} == pytest.approx(
        {**dict.fromkeys(ERROR_TYPES, 0), kind: after - before}, abs=1e-9
    )
    assert {error.kind: error.count for error in metrics.errors} == {**dict.fromkeys(ERROR_TYPES, 0), kind: 1}


def test_a_classification_error_costs_ap_of_the_missed_class():
    # B is a dog detected as a cat. Fixing it raises AP of dogs from 0 to 1 and keeps that of cats: +1/2 on average.
    metrics = computed([found([A, B], [0.9, 0.8])], [sample([A, B], [0, 1])])
    assert {e.kind: e.cost for e in metrics.errors if e.cost} == pytest.approx({"Cls": 0.5})
    assert {e.kind: e.count for e in metrics.errors if e.count} == {"Cls": 1}


def test_error_counts_use_the_thresholds_and_costs_every_score():
    metrics = computed([found([A, FAR], [0.4, 0.45])], [sample([A])], ONE)
    assert {e.kind: e.count for e in metrics.errors if e.count} == {"Miss": 1}
    assert {e.kind: e.cost for e in metrics.errors if e.cost} == pytest.approx({"Bkg": 0.5})


# --- calibration, sizes -----------------------------------------------------------------------------------------------


def test_calibration_error_is_the_mean_distance_of_score_and_precision():
    # 0.8…0.9: two with mean score 0.85, one correct; 0.9…1: one with 0.95, correct. (2 · 0.35 + 1 · 0.05) / 3
    metrics = computed([found([A, FAR, B], [0.95, 0.85, 0.85])], [sample([A, B])], ONE)
    assert metrics.ece == pytest.approx(0.25, abs=1e-6)
    used = [b for b in metrics.bins if b.count]
    assert [(b.low, b.high, b.count) for b in used] == [(pytest.approx(0.8), 0.9, 2), (0.9, 1.0, 1)]
    assert [(b.confidence, b.accuracy) for b in used] == [(pytest.approx(0.85), 0.5), (pytest.approx(0.95), 1)]


def test_every_box_is_in_one_size_bucket_and_bounds_belong_to_the_larger():
    truth = [[0, 0, 20, 20], [100, 0, 132, 32], [200, 0, 270, 70]]
    metrics = computed([found([truth[0], truth[2]], [0.9, 0.8])], [sample(truth)], ONE)
    rows = [(b.low, b.high, b.truths, round(b.AP, 9), round(b.AP50, 9)) for b in metrics.sizes]
    assert rows == [(16, 32, 1, 1, 1), (32, 64, 1, 0, 0), (64, 96, 1, 1, 1)]


# --- edge cases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detections", "samples"),
    [
        ([found([])], [sample([A])]),
        ([found([A])], [sample([])]),
        ([found([])], [sample([])]),
        ([found([A])], [sample([A], ignore=[True])]),
    ],
    ids=["no detections", "no ground truth", "neither", "all ignored"],
)
def test_missing_detections_or_ground_truth_are_no_error(detections, samples):
    metrics = computed(detections, samples)
    assert len(metrics.counts) == 2
    assert metrics.confusion.shape == (3, 3)
    assert len(metrics.errors) == len(ERROR_TYPES)


def test_detections_beyond_the_hundred_that_coco_counts_are_ignored():
    boxes = [[i, 0, i + 10, 10] for i in range(120)]
    metrics = computed([found(boxes, np.linspace(0.9, 0.6, 120))], [sample([boxes[119]])], ClassTable(("a",), (1,)))
    assert int(metrics.matches.ignored.sum()) == 20
    assert metrics.result.metrics["AR100"] == pytest.approx(0, abs=0.2)
