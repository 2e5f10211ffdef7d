"""The difference between two models and its interval, checked by hand and against a separate bootstrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.evaluate import matches
from fcos_cli.evaluate.coco import METRICS, score
from fcos_cli.evaluate.compare import compare
from fcos_cli.evaluate.report.comparison import comparison_section, summarize
from tests.evaluate.samples import ONE, TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]


def compared(one, other, samples, classes=ONE, **options):
    results = score(one, samples, classes), score(other, samples, classes)
    return compare(results, (one, other), samples, classes, **options)


def test_the_interval_of_two_images_covers_all_resamples():
    # a finds the object in image 1, b those in both. Resamples: 1 1 (1/4): equal; 1 2 and 2 1 (1/2): AP 51/101 and 1;
    # 2 2 (1/4): AP 0 and 1. So the middle 95 % range from 0 to 1, and b is better in three of four.
    samples = [sample([A], image_id=1), sample([A], image_id=2)]
    comparison = compared([found([A]), found([])], [found([A]), found([A])], samples)
    ap = comparison.metrics["AP"]
    assert (ap.a, ap.b, ap.difference) == pytest.approx((51 / 101, 1, 50 / 101))
    assert (ap.low, ap.high) == pytest.approx((0, 1))
    assert ap.better == pytest.approx(0.75, abs=0.05)
    assert not ap.significant
    (row,) = comparison.per_class
    assert (row.name, row.category_id) == ("cat", 7)
    assert (row.AP50.low, row.AP50.high) == pytest.approx((0, 1))
    assert list(comparison.metrics) == list(METRICS)


def test_a_model_does_not_differ_from_itself():
    samples = [sample([A, B], [0, 1], image_id=i) for i in range(3)]
    detections = [found([A, FAR], [0.9, 0.8])] * 3
    comparison = compared(detections, detections, samples, TWO)
    assert {
        (row.difference, row.low, row.high) for row in comparison.metrics.values() if row.difference is not None
    } == {(0.0, 0.0, 0.0)}
    assert "not significant" in summarize(comparison, ("x", "y"))


def test_a_model_better_on_every_image_is_significantly_better():
    samples = [sample([A], image_id=i) for i in range(6)]
    comparison = compared([found([A])] * 6, [found([[0, 0, 100, 60]])] * 6, samples)
    assert comparison.metrics["AP"].significant
    assert comparison.metrics["AP"].high == pytest.approx(-0.7)  # AP 1 against 0.3, in every draw
    assert summarize(comparison, ("x", "y")).startswith("x is better by 0.700 AP")


def test_the_ground_truth_is_built_once_for_all_classes(monkeypatch):
    built = []
    make = matches.coco_ground_truth
    monkeypatch.setattr(matches, "coco_ground_truth", lambda *given: built.append(1) or make(*given))
    samples = [sample([A, B], [0, 1], image_id=i) for i in range(3)]
    detections = [found([A, B], [0.9, 0.8], [0, 1])] * 3
    results = score(detections, samples, TWO), score(detections, samples, TWO)
    compare(results, (detections, detections), samples, TWO)
    assert built == [1]


def test_a_class_without_truth_has_no_difference():
    comparison = compared([found([A])], [found([A])], [sample([A])], TWO)
    assert (comparison.per_class[1].AP.a, comparison.per_class[1].AP.difference) == (-1, None)
    assert comparison.metrics["APs"].low is None
    assert "–" in comparison_section(comparison, ("x", "y")).content


@pytest.mark.parametrize(("count", "measured"), [(6, False), (7, True)])
def test_a_class_or_size_in_few_images_has_no_interval(count, measured):
    """With 6 of 100 images, 0.2 % of the resamples have none of them, and no difference either."""
    small = [300, 0, 320, 20]
    samples = [sample([A, small] if i < count else [A], [0, 1] if i < count else [0], image_id=i) for i in range(100)]
    one = [found(row.boxes, classes=row.classes) for row in samples]
    comparison = compared(one, [found([A])] * 100, samples, TWO, rounds=50)
    cat, dog = comparison.per_class
    assert (cat.AP.high, cat.AP.images) == (0, 100)
    for row in (dog.AP, dog.AP50, comparison.metrics["APs"]):
        assert (row.difference, row.images) == (pytest.approx(-1), count)
        assert [value is not None for value in (row.low, row.high, row.better)] == [measured] * 3
        assert row.significant == measured
    assert comparison.metrics["APl"].low == 0
    assert ("<td>–</td>" in comparison_section(comparison, ("x", "y")).content.partition("AP per class")[2]) != measured


def test_one_image_of_many_with_ground_truth_is_no_comparison():
    samples = [sample([A] if not i else [], image_id=i) for i in range(9)]
    comparison = compared([found([A])] * 9, [found([])] * 9, samples)
    assert comparison.metrics["AP"].difference == pytest.approx(-1)
    assert summarize(comparison, ("x", "y")).endswith("too few images with ground truth to compare them by (1).")


def test_intervals_of_a_class_agree_with_a_separate_bootstrap():
    rng = np.random.default_rng(3)
    samples, one, other = [], [], []
    for image_id in range(24):
        count = int(rng.integers(1, 4))
        corners = rng.uniform(0, 400, (count, 2))
        boxes, classes = np.hstack([corners, corners + 80]), rng.integers(0, 2, count)
        samples.append(sample(boxes, classes, image_id=image_id))
        for detections, noise in ((one, 16), (other, 9)):
            scores = rng.uniform(0.1, 1, count).round(2)
            detections.append(found(boxes + rng.normal(0, noise, boxes.shape), scores, classes))
    comparison = compared(one, other, samples, TWO, rounds=500)

    draws = []
    for _ in range(150):
        chosen = rng.integers(0, 24, 24)
        drawn = [replace(samples[i], image_id=number) for number, i in enumerate(chosen)]
        both = [score([detections[i] for i in chosen], drawn, TWO) for detections in (one, other)]
        draws.append([both[1].per_class[k].AP - both[0].per_class[k].AP for k in range(2)])
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    for index, row in enumerate(comparison.per_class):
        width = high[index] - low[index]
        assert row.AP.low == pytest.approx(low[index], abs=0.25 * width)
        assert row.AP.high == pytest.approx(high[index], abs=0.25 * width)


def test_the_document_contains_all_metrics_and_the_method():
    comparison = compared([found([A])], [found([A])], [sample([A])], rounds=10)
    document = comparison.to_json()
    assert document.keys() == {"method", "rounds", "confidence", "seed", "metrics", "per_class"}
    assert document["rounds"] == 10
    assert document["metrics"]["AP"].keys() == {"a", "b", "difference", "low", "high", "better", "images"}
    assert document["per_class"][0].keys() == {"name", "category_id", "AP", "AP50"}


def test_progress_counts_the_overall_step_and_each_class():
    calls = []
    samples = [sample([A, B], [0, 1])]
    compared([found([A])], [found([A])], samples, TWO, rounds=10, on_progress=lambda *at: calls.append(at))
    assert calls == [(1, 3), (2, 3), (3, 3)]
