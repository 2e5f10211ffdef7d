"""The difference of two models and its interval, against cases worked by hand and a bootstrap of our own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.evaluate.coco import METRICS, score
from fcos_cli.evaluate.compare import compare
from fcos_cli.evaluate.report.comparison import comparison_section, summarize
from tests.evaluate.samples import ONE, TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]


def compared(one, other, samples, classes=ONE, **options):
    results = score(one, samples, classes), score(other, samples, classes)
    return compare(results, (one, other), samples, classes, **options)


def test_of_two_pictures_a_quarter_of_the_draws_shows_no_difference_and_a_quarter_all_of_it():
    # a finds the object of picture 1, b those of both. Draws: 1 1 (1/4): equal; 1 2 and 2 1 (1/2): AP 51/101 and 1;
    # 2 2 (1/4): AP 0 and 1. So the middle 95 % reach from 0 to 1, and b is better in three of four.
    samples = [sample([A], image_id=1), sample([A], image_id=2)]
    answer = compared([found([A]), found([])], [found([A]), found([A])], samples)
    ap = answer.metrics["AP"]
    assert (ap.a, ap.b, ap.difference) == pytest.approx((51 / 101, 1, 50 / 101))
    assert (ap.low, ap.high) == pytest.approx((0, 1))
    assert ap.better == pytest.approx(0.75, abs=0.05)
    assert not ap.sure
    (row,) = answer.per_class
    assert (row.name, row.category_id) == ("cat", 7)
    assert (row.AP50.low, row.AP50.high) == pytest.approx((0, 1))
    assert list(answer.metrics) == list(METRICS)


def test_a_model_differs_from_itself_by_nothing():
    samples = [sample([A, B], [0, 1], image_id=i) for i in range(3)]
    mine = [found([A, FAR], [0.9, 0.8])] * 3
    answer = compared(mine, mine, samples, TWO)
    assert {(row.difference, row.low, row.high) for row in answer.metrics.values() if row.difference is not None} == {
        (0.0, 0.0, 0.0)
    }
    assert "cannot be told apart" in summarize(answer, ("x", "y"))


def test_who_is_better_in_every_picture_is_surely_better():
    samples = [sample([A], image_id=i) for i in range(6)]
    answer = compared([found([A])] * 6, [found([[0, 0, 100, 60]])] * 6, samples)
    assert answer.metrics["AP"].sure
    assert answer.metrics["AP"].high == pytest.approx(-0.7)  # AP 1 against 0.3, in every draw
    assert summarize(answer, ("x", "y")).startswith("x is better by 0.700 AP")


def test_a_class_without_truth_has_no_difference():
    answer = compared([found([A])], [found([A])], [sample([A])], TWO)
    assert (answer.per_class[1].AP.a, answer.per_class[1].AP.difference) == (-1, None)
    assert answer.metrics["APs"].low is None
    assert "–" in comparison_section(answer, ("x", "y")).content


def test_intervals_of_a_class_are_those_of_a_bootstrap_by_hand():
    rng = np.random.default_rng(3)
    samples, one, other = [], [], []
    for image_id in range(24):
        count = int(rng.integers(1, 4))
        corners = rng.uniform(0, 400, (count, 2))
        boxes, classes = np.hstack([corners, corners + 80]), rng.integers(0, 2, count)
        samples.append(sample(boxes, classes, image_id=image_id))
        for answers, noise in ((one, 16), (other, 9)):
            scores = rng.uniform(0.1, 1, count).round(2)
            answers.append(found(boxes + rng.normal(0, noise, boxes.shape), scores, classes))
    answer = compared(one, other, samples, TWO, rounds=500)

    draws = []
    for _ in range(150):
        chosen = rng.integers(0, 24, 24)
        drawn = [replace(samples[i], image_id=number) for number, i in enumerate(chosen)]
        both = [score([answers[i] for i in chosen], drawn, TWO) for answers in (one, other)]
        draws.append([both[1].per_class[k].AP - both[0].per_class[k].AP for k in range(2)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    for index, row in enumerate(answer.per_class):
        width = high[index] - low[index]
        assert row.AP.low == pytest.approx(low[index], abs=0.25 * width)
        assert row.AP.high == pytest.approx(high[index], abs=0.25 * width)


def test_the_document_holds_every_figure_and_how_it_was_made():
    answer = compared([found([A])], [found([A])], [sample([A])], rounds=10)
    document = answer.to_json()
    assert document.keys() == {"method", "rounds", "confidence", "seed", "metrics", "per_class"}
    assert document["rounds"] == 10
    assert document["metrics"]["AP"].keys() == {"a", "b", "difference", "low", "high", "better"}
    assert document["per_class"][0].keys() == {"name", "category_id", "AP", "AP50"}


def test_progress_counts_the_whole_and_each_class():
    told = []
    samples = [sample([A, B], [0, 1])]
    compared([found([A])], [found([A])], samples, TWO, rounds=10, on_progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]
