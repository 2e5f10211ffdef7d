"""What the sections of a report say about its metrics."""

from __future__ import annotations

import pytest

from fcos_cli.evaluate.coco import rounded_down
from fcos_cli.evaluate.report.sections import classes_table, curves, sizes, summary
from tests.evaluate.report.test_metrics import FAR, A, computed
from tests.evaluate.samples import ONE, found, sample


def test_the_best_threshold_does_not_hide_the_box_whose_score_it_is():
    metrics = computed([found([A], [0.7698])], [sample([A])], ONE, thresholds=[0.4565])
    row = classes_table(metrics).partition("<tbody>")[2]
    assert "<td>0.769</td>" in row
    assert "best F1 1.000 at 0.769." in curves(metrics)


@pytest.mark.parametrize(
    ("threshold", "shown"), [(0.6, 0.6), (0.7, 0.7), (0.57, 0.57), (0.69999998, 0.7), (0.6999, 0.699), (None, None)]
)
def test_thresholds_that_are_round_stay_so(threshold, shown):
    assert rounded_down(threshold) == shown


@pytest.mark.parametrize(
    ("count", "wrong", "labels"),
    [(1, "1 false positive.", "1 suspect label is"), (2, "2 false positives.", "2 suspect labels are")],
)
def test_one_of_a_kind_is_named_in_the_singular(count, wrong, labels):
    metrics = computed([found([A, *[FAR] * count])], [sample([A])], ONE)
    text = summary(metrics, count)
    assert wrong in text
    assert labels in text


def test_the_last_range_of_sizes_has_no_end():
    metrics = computed([found([A])], [sample([[0, 0, 20, 20], [0, 0, 1500, 1500]], size=(2000, 2000))], ONE)
    html = sizes(metrics)
    assert ">from 1024 px<" in html
    assert ">16–32 px<" in html
