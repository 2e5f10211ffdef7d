"""What a validation stores in the weights."""

import pytest

from fcos_cli.evaluate.coco import ClassResult, CocoResult
from fcos_cli.train.validation import with_result
from tests.tiny import tiny_artifact


def result(*classes: tuple[float | None, int]) -> CocoResult:
    """A result of classes with this best threshold and number of boxes."""
    rows = [ClassResult(f"c{i}", i, 0.5, 0.5, best, 0.5, truths) for i, (best, truths) in enumerate(classes)]
    return CocoResult({"AP": 0.123456}, rows, images=3)


@pytest.mark.parametrize(
    ("classes", "threshold", "per_class"),
    [
        (((0.2, 10), (0.4, 99)), 0.3, (0.2, 0.4)),
        (((0.2, 10), (0.4, 99), (0.9, 9)), 0.3, (0.2, 0.4, 0.3)),  # nine boxes decide nothing
        (((0.2, 10), (None, 99), (None, 0)), 0.2, (0.2, 0.2, 0.2)),
        (((0.9, 1), (0.8, 9), (None, 0)), 0.3, None),  # the default
    ],
)
def test_a_class_has_a_threshold_of_its_own_with_enough_boxes(
    classes: tuple[tuple[float | None, int], ...], threshold: float, per_class: tuple[float, ...] | None
) -> None:
    stored = with_result(tiny_artifact(threshold=0.3), result(*classes))
    assert stored.threshold == pytest.approx(threshold)
    assert stored.class_thresholds == (None if per_class is None else pytest.approx(per_class))
    assert stored.provenance["metrics"] == {"AP": 0.1235}
