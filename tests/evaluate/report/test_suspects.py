"""Selection of the images and labels that a report shows first."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.evaluate.coco import score
from fcos_cli.evaluate.report.metrics import compute_metrics
from fcos_cli.evaluate.report.pictures import suspect_reason, window
from fcos_cli.evaluate.report.suspects import suspects, worst_images
from tests.evaluate.samples import TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]


def computed(detections, samples):
    thresholds = np.full(2, 0.5, np.float32)
    return compute_metrics(score(detections, samples, TWO), detections, samples, TWO, thresholds=thresholds)


def find_suspects(detections, truth, count=5):
    samples = [truth]
    metrics = computed([detections], samples)
    return metrics, suspects(metrics, samples, count=count)


def test_the_worst_images_have_the_lowest_f1_then_the_most_errors():
    samples = [sample([A, B], image_id=i) for i in range(4)]
    detections = [
        found([A, B], [0.9, 0.9]),  # correct
        found([A], [0.9]),  # one missed
        found([FAR, FAR], [0.9, 0.8]),  # two missed, two false_positives
        found([A], [0.3]),  # two missed: 0.3 is below the threshold
    ]
    rows = worst_images(computed(detections, samples), count=3)
    assert [row.image_index for row in rows] == [2, 3, 1]
    assert [(row.found, row.missed, row.false_positives) for row in rows] == [(0, 2, 2), (0, 2, 0), (1, 1, 0)]
    assert [row.f1 for row in rows] == pytest.approx([0, 0, 2 / 3])


def test_each_image_has_its_own_boxes():
    samples = [sample([A], image_id=0), sample([A, B], image_id=1), sample([], image_id=2)]
    detections = [found([A], [0.9]), found([], []), found([FAR, B], [0.9, 0.8])]
    matches = computed(detections, samples).matches
    rows = [[indices.tolist() for indices in matches.of_image(index)] for index in range(3)]
    assert rows == [[[0], [0]], [[], [1, 2]], [[1, 2], []]]


def test_a_confident_detection_without_overlap_suggests_a_missing_label():
    metrics, (suspect,) = find_suspects(found([A, FAR, [300, 300, 310, 310]], [0.9, 0.8, 0.4], [0, 1, 1]), sample([A]))
    assert (suspect.kind, suspect.label, suspect.detected) == ("missing", None, 1)
    assert suspect.box == (0, 300, 100, 400)
    assert suspect.suspicion == pytest.approx(0.8)
    assert suspect_reason(suspect, metrics) == "Nothing is labeled here; detected dog with score 0.80."


def test_a_confident_detection_of_another_class_suggests_a_wrong_class():
    metrics, (suspect,) = find_suspects(found([[0, 0, 100, 80]], [0.9], [1]), sample([A]))
    assert (suspect.kind, suspect.label, suspect.detected) == ("class", 0, 1)
    assert suspect.overlap == pytest.approx(0.8)
    assert "Labeled cat; detected dog with score 0.90" in suspect_reason(suspect, metrics)


def test_a_found_label_is_not_suspect_even_if_another_class_is_detected_there():
    _, rows = find_suspects(found([A, A], [0.9, 0.8], [0, 1]), sample([A]))
    assert rows == []


def test_a_label_without_nearby_detections_is_suspect_and_larger_ones_more():
    _, rows = find_suspects(found([A], [0.1]), sample([A, B, [300, 300, 310, 310]]))
    assert [(s.kind, s.box[:2]) for s in rows] == [("box", (300, 0)), ("box", (300, 300))]
    assert rows[0].suspicion == pytest.approx(100 / 132)


def test_crowds_and_detections_on_them_are_never_suspect():
    truth = sample([[0, 0, 200, 200]], ignore=[True])
    _, rows = find_suspects(found([[10, 10, 40, 40], [0, 0, 190, 190]], [0.9, 0.8], [0, 1]), truth)
    assert rows == []


def test_a_duplicate_detection_is_not_a_label_error():
    _, rows = find_suspects(found([A, [0, 0, 100, 95]], [0.9, 0.8]), sample([A]))
    assert rows == []


def test_at_most_two_per_kind_come_from_one_image_and_count_limits_the_total():
    boxes = [[x, 0, x + 40, 40] for x in range(0, 400, 80)]
    samples = [sample([], image_id=1), sample([], image_id=2)]
    detections = [found(boxes, [0.9] * 5), found(boxes[:1], [0.7])]
    metrics = computed(detections, samples)
    assert [s.image_index for s in suspects(metrics, samples, count=9)] == [0, 0, 1]
    assert [s.image_index for s in suspects(metrics, samples, count=1)] == [0]


@pytest.mark.parametrize(
    "box", [(0, 0, 10, 10), (630, 470, 640, 480), (0, 0, 640, 480), (100, 100, 500, 120), (3, 3, 4, 470)]
)
def test_a_crop_is_inside_the_image_and_contains_the_box(box):
    left, top, right, bottom = window(box, 640, 480)
    assert 0 <= left <= box[0]
    assert 0 <= top <= box[1]
    assert box[2] <= right + 1 <= 641
    assert box[3] <= bottom + 1 <= 481
    assert right > left
    assert bottom > top


def test_a_crop_of_a_tiny_image_is_the_whole_image():
    assert window((1, 1, 2, 2), 3, 2) == (0, 0, 3, 2)
