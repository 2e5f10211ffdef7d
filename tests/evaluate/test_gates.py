"""Requirements: what can be asked, what is measured by hand, and when a comparison fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.errors import UsageError
from fcos_cli.evaluate.coco import METRICS, score
from fcos_cli.evaluate.compare import Comparison, Difference, compare
from fcos_cli.evaluate.gates import (
    Gate,
    check_classes,
    enough_digits,
    failure,
    judge_comparison,
    judge_metrics,
    parse_gate,
)
from fcos_cli.evaluate.matches import AT_IOU_50, match_detections, run_evaluator
from fcos_cli.model.classes import ClassTable
from tests.evaluate.samples import TWO, found, sample

A, B, FAR = [0, 0, 100, 100], [300, 0, 400, 100], [0, 300, 100, 400]


def judged(*texts, samples, detections, thresholds=(0.5, 0.5), classes=TWO):
    matches = match_detections(run_evaluator(detections, samples, classes, **AT_IOU_50), detections, samples)
    return judge_metrics(
        [parse_gate("require", text) for text in texts],
        score(detections, samples, classes),
        classes,
        matches=matches,
        thresholds=np.asarray(thresholds, np.float32),
    )


# --- what can be asked ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [*METRICS, "precision", "recall", "AP:a", "AP50:a", "precision:a", "recall:a"])
def test_every_metric_can_be_required(metric):
    gate = parse_gate("require", f"{metric}=0.25")
    assert (gate.name, gate.limit, gate.rule) == (metric, 0.25, "require")


def test_a_margin_is_of_ap_unless_it_names_a_metric():
    assert parse_gate("not-worse", "0.01") == Gate("not-worse", "AP", None, 0.01)
    assert parse_gate("not-worse", "AP50=0") == Gate("not-worse", "AP50", None, 0.0)
    assert parse_gate("not-worse", "AP:cat=0.5") == Gate("not-worse", "AP", "cat", 0.5)


def test_names_of_classes_may_contain_the_signs_of_the_option():
    assert parse_gate("require", "recall:a:b=c=0.5") == Gate("require", "recall", "a:b=c", 0.5)


@pytest.mark.parametrize(
    ("rule", "text", "words"),
    [
        ("require", "AP500=0.9", "did you mean AP50?"),
        ("require", "ap50=0.9", "did you mean AP50?"),
        ("require", "recal:cat=0.9", "did you mean recall?"),
        ("require", "APs:cat=0.9", "did you mean AP?"),
        ("require", "F1=0.9", "use one of AP, AP50"),
        ("require", "AP50", "METRIC=VALUE"),
        ("require", "AP50=", "not a number from 0 to 1"),
        ("require", "AP50=90%", "not a number from 0 to 1"),
        ("require", "AP50=1.1", "not a number from 0 to 1"),
        ("require", "AP50=nan", "not a number from 0 to 1"),
        ("not-worse", "-0.01", "not a number from 0 to 1"),
        ("not-worse", "", "not a number from 0 to 1"),
        ("not-worse", "recall=0.1", "unknown metric 'recall'"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_nearest_name(rule, text, words):
    with pytest.raises(UsageError) as caught:
        parse_gate(rule, text)
    assert words in str(caught.value)
    assert caught.value.where == f"--{rule} {text}"


def test_classes_must_be_those_of_the_data():
    check_classes([parse_gate("require", "AP:dog=0.1"), parse_gate("require", "AP=0.1")], TWO, TWO)
    with pytest.raises(UsageError, match="unknown class of the data set 'dgo'") as caught:
        check_classes([parse_gate("not-worse", "AP:dgo=0.1")], TWO, TWO)
    assert (caught.value.where, caught.value.remedy) == ("--not-worse AP:dgo=0.1", "did you mean dog?")


def test_the_precision_over_all_classes_needs_data_with_all_of_them():
    three = ClassTable(("cat", "dog", "person"), (1, 2, 3))
    check_classes([parse_gate("require", "precision=0.1")], three, TWO)
    check_classes([parse_gate("require", "recall=0.1"), parse_gate("require", "precision:dog=0.1")], TWO, three)
    with pytest.raises(UsageError, match="the data set lacks person"):
        check_classes([parse_gate("require", "precision=0.1")], TWO, three)


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_precision_and_recall_are_those_of_the_boxes_that_predict_shows():
    # shown: cat 0.9 (right) and 0.6 (wrong), dog 0.4 (right, threshold 0.3); not shown: cat 0.45. Ground truth: 2 cats
    # and 1 dog, and a crowd.
    samples = [sample([A, B, FAR], [0, 0, 1]), sample([A], ignore=[True], image_id=2)]
    detections = [found([A, [500, 0, 600, 100], FAR, B], [0.9, 0.6, 0.4, 0.45], [0, 0, 1, 0]), found([A], [0.9])]
    texts = ["precision=0.6", "recall=0.7", "precision:cat=0.5", "recall:cat=0.6", "precision:dog=1", "recall:dog=1"]
    verdicts = judged(*texts, samples=samples, detections=detections, thresholds=(0.5, 0.3))
    assert [verdict.measured for verdict in verdicts] == pytest.approx([2 / 3, 2 / 3, 1 / 2, 1 / 2, 1, 1])
    assert [verdict.met for verdict in verdicts] == [True, False, True, False, True, True]
    assert verdicts[1].text == "recall is 0.6667, required 0.7"


def test_values_near_the_limit_have_the_digits_to_see_on_which_side_they_are():
    assert enough_digits(0.89996, 0.9) == "0.89996"
    assert enough_digits(0.9, 0.9) == enough_digits(0.9 - 1e-12, 0.9) == enough_digits(0.90001, 0.9) == "0.9000"
    assert enough_digits(0.95, 0.95001) == "0.9500"
    assert enough_digits(-0.01002, -0.01, sign="+") == "-0.01002"
    row = Difference(0.5, 0.4, -0.1, -0.2, -0.01002, 0.1, 8)
    (verdict,) = judge_comparison([parse_gate("not-worse", "0.01")], Comparison({"AP": row}, []))
    assert (verdict.met, "… -0.01002), allowed -0.01" in verdict.text) == (False, True)


def test_coco_metrics_are_those_of_the_evaluation():
    samples, detections = [sample([A, B], [0, 1])], [found([A], [0.9])]
    verdicts = judged("AP=0.5", "AP50:cat=1", "AP:dog=0.1", "AR1=0.51", samples=samples, detections=detections)
    assert [verdict.measured for verdict in verdicts] == pytest.approx([0.5, 1, 0, 0.5])
    assert [verdict.met for verdict in verdicts] == [True, True, False, False]  # 0.5 and 1 are exact up to rounding


def test_what_cannot_be_measured_is_not_met():
    samples, detections = [sample([A])], [found([A], [0.4])]
    texts = ["AP:dog=0", "recall:dog=0", "precision:cat=0", "precision=0", "APs=0"]
    verdicts = judged(*texts, samples=samples, detections=detections)
    assert not any(verdict.met for verdict in verdicts)
    assert {verdict.measured for verdict in verdicts} == {None}
    assert verdicts[0].text == "AP:dog cannot be measured (no ground truth of that kind), required 0"
    assert "no detection reaches the model's threshold" in verdicts[2].text


def test_the_error_names_everything_that_is_not_met():
    samples, detections = [sample([A])], [found([FAR], [0.9])]
    verdicts = judged("recall=0.5", "precision=0.5", "recall=0", samples=samples, detections=detections)
    error = failure(verdicts)
    assert error is not None
    assert (error.exit_code, error.what) == (6, "2 of 3 requirements are not met")
    assert error.details == ("recall is 0.0000, required 0.5", "precision is 0.0000, required 0.5")
    assert failure(verdicts[2:]) is failure([]) is None


# --- comparison -------------------------------------------------------------------------------------------------------


def test_only_an_interval_wholly_below_the_margin_fails():
    def met(margin: str, difference: float, low: float, high: float) -> bool:
        row = Difference(0.5, 0.5 + difference, difference, low, high, 0.1, 8)
        comparison = Comparison({"AP": row}, [])
        return judge_comparison([parse_gate("not-worse", margin)], comparison)[0].met

    assert met("0.01", -0.10, -0.25, -0.005)  # much worse on average, but it might be chance
    assert met("0.01", -0.02, -0.03, -0.01)
    assert not met("0.01", -0.02, -0.03, -0.011)
    assert not met("0", -0.02, -0.03, -0.001)
    assert met("0", 0.0, 0.0, 0.0)


def test_a_model_that_lost_a_class_fails_there():
    samples = [sample([A, B], [0, 1], image_id=i) for i in range(8)]
    old, new = [found([A, B], [0.9, 0.9], [0, 1])] * 8, [found([A], [0.9])] * 8
    results = score(old, samples, TWO), score(new, samples, TWO)
    comparison = compare(results, (old, new), samples, TWO, rounds=50)
    gates = [parse_gate("not-worse", text) for text in ("0.1", "AP:cat=0", "AP50:dog=0.9", "APs=0.1")]
    verdicts = judge_comparison(gates, comparison)
    assert [verdict.met for verdict in verdicts] == [False, True, False, False]
    assert verdicts[0].text == "AP differs by -0.5000 (95% interval -0.5000 … -0.5000), allowed -0.1"
    (zero,) = judge_comparison([parse_gate("not-worse", "0")], comparison)
    assert zero.text.endswith("allowed 0")
    assert verdicts[3].text == "the difference of APs cannot be measured (no ground truth of that kind)"
    document = verdicts[2].to_json()
    assert (document["metric"], document["class"], document["met"]) == ("AP50", "dog", False)
    assert (document["measured"], document["low"], document["high"]) == pytest.approx((-1, -1, -1))


def test_a_difference_that_few_images_can_show_is_not_met():
    samples = [sample([A, B], [0, 1] if i < 3 else [0, 0], image_id=i) for i in range(100)]
    old, new = [found(row.boxes, classes=row.classes) for row in samples], [found([A, B], classes=[0, 0])] * 100
    results = score(old, samples, TWO), score(new, samples, TWO)
    comparison = compare(results, (old, new), samples, TWO, rounds=50)
    (verdict,) = judge_comparison([parse_gate("not-worse", "AP:dog=0.05")], comparison)
    assert (verdict.met, verdict.measured, verdict.high) == (False, pytest.approx(-1), None)
    assert verdict.text == "the difference of AP:dog cannot be measured (too few images with such ground truth: 3)"


def test_a_class_may_have_the_name_of_a_field():
    table = ClassTable(("metrics", "name"), (1, 2))
    samples = [replace(sample([A]), classes=np.array([1]))]
    both = score([found([A], classes=[1])], samples, table)
    detections = [found([A], classes=[1])]
    comparison = compare((both, both), (detections, detections), samples, table, rounds=5)
    assert judge_comparison([parse_gate("not-worse", "AP:name=0")], comparison)[0].met
