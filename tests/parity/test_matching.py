"""Matching: detections that can be compared by hand; what is excused and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.parity.matching import ImageDetections, Limits, match

LIMITS = Limits(score_threshold=0.05, nms_iou=0.6, max_detections=100)
A, B, C = [0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10]


def answer(*rows: tuple[list[float], float, int]) -> ImageDetections:
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return ImageDetections(
        boxes, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64)
    )


def reasons(
    reference: ImageDetections, exported: ImageDetections, limits: Limits = LIMITS
) -> list[tuple[str, int, str | None]]:
    return [(one.side, one.index, one.reason) for one in match(reference, exported, limits=limits).unmatched]


def test_equal_detections_match_in_order() -> None:
    same = answer((A, 0.9, 0), (B, 0.8, 1))
    found = match(same, same, limits=LIMITS)
    assert (found.reference, found.exported, found.matched, found.unmatched) == (2, 2, 2, ())
    assert (found.px.tolist(), found.max_score) == ([0, 0], 0)
    assert found.same_order
    assert found.order_excused


def test_empty_detections_match() -> None:
    found = match(answer(), answer(), limits=LIMITS)
    assert (found.matched, found.unmatched, found.worst, found.max_px) == (0, (), None, 0)


def test_the_difference_is_that_of_the_edge_that_moved_most() -> None:
    found = match(
        answer((A, 0.9, 0), (B, 0.8, 0), (C, 0.7, 0)),
        answer((A, 0.9, 0), ([100.25, 0, 110, 10.5], 0.75, 0), ([200, 0, 210.125, 10], 0.7, 0)),
        limits=LIMITS,
    )
    assert found.matched == 3
    assert (found.max_px, found.px.tolist(), found.worst) == (0.5, [0, 0.5, 0.125], (1, 1))
    assert found.max_score == pytest.approx(0.05)


def test_boxes_match_by_overlap_or_within_a_pixel() -> None:
    large = match(answer(([0, 0, 300, 300], 0.9, 0)), answer(([5, 5, 300, 300], 0.9, 0)), limits=LIMITS)
    small = match(answer(([0, 0, 4, 4], 0.9, 0)), answer(([0.9, 0.9, 4.9, 4.9], 0.9, 0)), limits=LIMITS)
    moved = match(answer(([0, 0, 40, 40], 0.9, 0)), answer(([5, 5, 45, 45], 0.8, 0)), limits=LIMITS)
    assert (large.matched, small.matched, moved.matched) == (1, 1, 0)
    assert len(moved.unexplained) == 2


def test_boxes_of_different_classes_do_not_match() -> None:
    assert reasons(answer((A, 0.9, 0)), answer((A, 0.9, 1))) == [("reference", 0, None), ("exported", 0, None)]


def test_matching_is_one_to_one_with_the_nearest() -> None:
    twins = answer((A, 0.9, 0), ([0.4, 0, 10.4, 10], 0.8, 0))
    found = match(twins, answer(([0.4, 0, 10.4, 10], 0.9, 0), (A, 0.8, 0)), limits=LIMITS)
    assert found.pairs == ((0, 1), (1, 0))
    alone = match(twins, answer((A, 0.9, 0)), limits=LIMITS)
    assert alone.pairs == ((0, 0),)
    assert [(one.side, one.index) for one in alone.unexplained] == [("reference", 1)]


def test_only_tied_detections_may_change_order() -> None:
    tied = match(answer((A, 0.5, 0), (B, 0.5, 0)), answer((B, 0.5, 0), (A, 0.5, 0)), limits=LIMITS)
    assert (tied.same_order, tied.order_excused) == (False, True)
    wrong = match(answer((A, 0.5, 0), (B, 0.4, 0)), answer((B, 0.4, 0), (A, 0.5, 0)), limits=LIMITS)
    assert (wrong.same_order, wrong.order_excused) == (False, False)


def test_a_missing_detection_is_unexplained() -> None:
    assert reasons(answer((A, 0.9, 0), (B, 0.5, 0)), answer((A, 0.9, 0))) == [("reference", 1, None)]
    assert reasons(answer((A, 0.9, 0)), answer((A, 0.9, 0), (B, 0.5, 0))) == [("exported", 1, None)]


def test_a_score_at_the_threshold_is_excused() -> None:
    assert reasons(answer((A, 0.05005, 0)), answer()) == [("reference", 0, "at the score threshold")]
    assert reasons(answer((A, 0.0502, 0)), answer()) == [("reference", 0, None)]


def test_a_detection_below_the_last_that_fits_is_excused() -> None:
    limits = replace(LIMITS, max_detections=2)
    reference = answer((A, 0.9, 0), (B, 0.50001, 0))
    exported = answer((A, 0.9, 0), (C, 0.50002, 0))
    assert {reason for *_, reason in reasons(reference, exported, limits)} == {"the other side is full"}
    # the exported side lacks B although its last one scores lower: not excused
    worse = answer((A, 0.9, 0), (C, 0.4, 0))
    assert reasons(reference, worse, limits) == [
        ("reference", 1, None),
        ("exported", 1, "the other side is full"),
    ]
    assert reasons(reference, exported, LIMITS) == [("reference", 1, None), ("exported", 1, None)]


def test_a_candidate_at_the_topk_cut_of_its_level_is_excused() -> None:
    limits = replace(LIMITS, topk_scores=(0.2, 0.3))
    assert reasons(answer((A, 0.30004, 0)), answer(), limits) == [
        ("reference", 0, "at the cut of a level's candidates")
    ]
    assert reasons(answer((A, 0.301, 0)), answer(), limits) == [("reference", 0, None)]


@pytest.mark.parametrize(("width", "excused"), [(6.0, True), (6.004, True), (6.2, False), (5.8, False)])
def test_an_overlap_at_the_nms_threshold_is_excused(width: float, excused: bool) -> None:
    inner = [0, 0, width, 10]  # its share of A is its IoU
    ((side, index, reason),) = reasons(answer((A, 0.9, 0), (inner, 0.8, 0)), answer((A, 0.9, 0)))
    assert (side, index) == ("reference", 1)
    assert reason == ("at the NMS threshold" if excused else None)
    ((*_, other),) = reasons(answer((A, 0.9, 1), (inner, 0.8, 0)), answer((A, 0.9, 1)))
    assert other is None


def test_inclusive_boxes_overlap_as_if_they_were_a_pixel_larger() -> None:
    outer, inner = ([0, 0, 9, 9], 0.9, 0), ([0, 0, 5, 9], 0.8, 0)  # 10 x 10 and 6 x 10 pixels
    for inclusive, reason in ((True, "at the NMS threshold"), (False, None)):
        limits = replace(LIMITS, inclusive=inclusive)
        assert reasons(answer(outer, inner), answer(outer), limits) == [("reference", 1, reason)]


def test_either_of_two_tied_boxes_may_suppress_the_other() -> None:
    near = [2, 0, 12, 10]  # IoU 2/3
    tied = reasons(answer((A, 0.5, 0)), answer((near, 0.5, 0)))
    assert {reason for *_, reason in tied} == {"tied with the box that suppresses it"}
    clear = reasons(answer((A, 0.6, 0)), answer((near, 0.5, 0)))
    assert [reason for *_, reason in clear] == [None, None]


def test_a_box_that_was_not_a_candidate_is_neither_excused_nor_an_excuse() -> None:
    reference, moved = answer((A, 0.5, 0)), answer(([2, 0, 12, 10], 0.5, 0))
    limits = replace(LIMITS, candidates=reference)
    assert [reason for *_, reason in reasons(reference, moved, limits)] == [None, None]
    assert reasons(answer(), answer((B, 0.05, 0)), limits) == [("exported", 0, None)]
    both = replace(LIMITS, candidates=answer((A, 0.5, 0), ([2, 0, 12, 10], 0.5, 0)))
    assert None not in {reason for *_, reason in reasons(reference, moved, both)}
    # at a top-k cut, more candidates may exist than are known
    cut = replace(limits, topk_scores=(0.5,))
    assert [reason for *_, reason in reasons(reference, moved, cut)] == ["at the cut of a level's candidates"] * 2
    full = replace(cut, max_detections=1)
    assert [reason for *_, reason in reasons(reference, moved, full)] == ["at the cut of a level's candidates"] * 2


def test_a_wrong_nms_threshold_is_not_excused_by_a_matched_box() -> None:
    inner = [0, 0, 6.3, 10]
    assert reasons(answer((A, 0.5, 0)), answer((A, 0.5, 0), (inner, 0.5, 0))) == [("exported", 1, None)]


def test_consequences_of_an_excused_difference_are_excused() -> None:
    # A and `near` are tied; `near` would suppress `far`, A does not reach it
    near, far = [2, 0, 12, 10], [4.2, 0, 14.2, 10]
    found = reasons(answer((A, 0.5, 0), (far, 0.4, 0)), answer((near, 0.5, 0)))
    assert found == [
        ("reference", 0, "tied with the box that suppresses it"),
        ("reference", 1, "follows from another"),
        ("exported", 0, "tied with the box that suppresses it"),
    ]
    # without an excused box above it, nothing follows
    assert [reason for *_, reason in reasons(answer((A, 0.6, 0), (far, 0.4, 0)), answer((near, 0.5, 0)))] == [None] * 3
