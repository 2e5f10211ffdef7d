"""NMS: hand-made cases, exactness far from the origin, and comparison with torchvision's operator."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms as torchvision_nms

from fcos_cli.model.decode import Candidates
from fcos_cli.model.nms import BatchDetections, keep_mask, suppress, suppress_by_sweeps

Row = tuple[Sequence[float], float, int]
"""box, score, class"""


def candidates_of(*pictures: Sequence[Row]) -> Candidates:
    """Pad with empty slots (score 0) to the image with the most candidates."""
    most = max(len(rows) for rows in pictures)
    padded = [[*rows, *[([0, 0, 0, 0], 0.0, 0)] * (most - len(rows))] for rows in pictures]
    return Candidates(
        torch.tensor([[row[0] for row in rows] for rows in padded], dtype=torch.float32).reshape(-1, most, 4),
        torch.tensor([[row[1] for row in rows] for rows in padded], dtype=torch.float32).reshape(-1, most),
        torch.tensor([[row[2] for row in rows] for rows in padded], dtype=torch.int64).reshape(-1, most),
    )


def scores_left(*pictures: Sequence[Row], iou: float = 0.5, most: int = 100) -> list[list[float]]:
    left = suppress(candidates_of(*pictures), iou=iou, max_detections=most)
    return [
        [round(v, 4) for v in left.scores[i, : int(count)].tolist()] for i, count in enumerate(left.counts.tolist())
    ]


def test_worse_of_two_overlapping_boxes_is_removed() -> None:
    # 10 × 10 each, shifted by 2: 80 shared of 120, IoU 2/3
    rows = [([0, 0, 10, 10], 0.5, 0), ([2, 0, 12, 10], 0.9, 0)]
    assert scores_left(rows, iou=0.66) == [[0.9]]
    assert scores_left(rows, iou=0.67) == [[0.9, 0.5]]


def test_iou_exactly_at_the_threshold_is_kept() -> None:
    rows = [([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 5], 0.8, 0)]  # IoU 0.5, exact in binary
    assert scores_left(rows, iou=0.5) == [[0.9, 0.8]]


def test_classes_do_not_affect_each_other() -> None:
    assert scores_left([([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 10], 0.8, 1)]) == [[0.9, 0.8]]


def test_images_do_not_affect_each_other() -> None:
    row = ([0, 0, 10, 10], 0.9, 0)
    assert scores_left([row], [row]) == [[0.9], [0.9]]


def test_removed_box_removes_no_other() -> None:
    # A takes B, B would have taken C, but A and C hardly touch
    chain = [([0, 0, 10, 10], 0.9, 0), ([3, 0, 13, 10], 0.8, 0), ([6, 0, 16, 10], 0.7, 0)]
    assert scores_left(chain, iou=0.5) == [[0.9, 0.7]]


def test_no_candidates() -> None:
    left = suppress(candidates_of([([1, 1, 2, 2], 0.0, 1)], []), iou=0.5, max_detections=5)
    assert left.counts.tolist() == [0, 0]
    assert left.classes.tolist() == [[-1], [-1]]
    assert float(left.boxes.abs().sum() + left.scores.sum()) == 0
    none = Candidates(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64))
    assert suppress(none, iou=0.5, max_detections=5).counts.tolist() == [0, 0]


def test_empty_slots_are_ignored() -> None:
    left = suppress(
        candidates_of([([0, 0, 10, 10], 0.0, 0), ([0, 0, 10, 10], 0.3, 0)], [([0, 0, 10, 10], 0.0, 0)]),
        iou=0.5,
        max_detections=2,
    )
    assert left.counts.tolist() == [1, 0]
    assert left.classes.tolist() == [[0, -1], [-1, -1]]
    assert left.boxes[0].tolist() == [[0, 0, 10, 10], [0, 0, 0, 0]]


def test_earlier_of_tied_boxes_is_kept() -> None:
    apart = [([20 * i, 0, 20 * i + 10, 10], 0.5, i % 3) for i in range(50)]
    left = suppress(candidates_of(apart), iou=0.5, max_detections=30)
    assert left.boxes[0, :, 0].tolist() == [20 * i for i in range(30)]
    together = [([0.1 * i, 0, 10 + 0.1 * i, 10], 0.5, 0) for i in range(20)]
    left = suppress(candidates_of(together), iou=0.5, max_detections=30)
    assert left.counts.tolist() == [1]
    assert left.boxes[0, 0].tolist() == [0, 0, 10, 10]


def test_best_are_kept_if_there_are_too_many() -> None:
    rows = [([20 * i, 0, 20 * i + 10, 10], score, 0) for i, score in enumerate((0.2, 0.9, 0.4, 0.7))]
    assert scores_left(rows, most=2) == [[0.9, 0.7]]


def test_boxes_are_returned_unchanged() -> None:
    box = [1000.123, 0.456, 1100.789, 7.125]
    left = suppress(candidates_of([(box, 0.5, 79)]), iou=0.5, max_detections=1)
    assert torch.equal(left.boxes[0, 0], torch.tensor(box))


def test_box_without_area_overlaps_nothing() -> None:
    rows = [([5, 5, 5, 5], 0.9, 0), ([5, 5, 5, 5], 0.8, 0), ([0, 0, 10, 10], 0.7, 0)]
    assert scores_left(rows) == [[0.9, 0.8, 0.7]]


@pytest.mark.parametrize("index", [0, 1, 40, 79])
@pytest.mark.parametrize(("shift", "count"), [(24.999, 1), (25.001, 2)])
def test_decision_near_the_threshold_does_not_depend_on_the_class(index: int, shift: float, count: int) -> None:
    # 100 px wide, shifted by 25: IoU 75/125 = 0.6. A thousandth of a pixel decides; an offset of 79 · 1334 in float32
    # would round it away.
    x = 1100.0
    rows = [([x, 700, x + 100, 720], 0.9, index), ([x + shift, 700, x + 100 + shift, 720], 0.8, index)]
    others = [([x, 700, 1333, 720], 0.5 + i / 1000, i) for i in range(80) if i != index]
    mask = keep_mask(candidates_of([*rows, *others]), iou=0.6)
    assert int(mask[0, :2].sum()) == count
    assert int(mask[0, 2:].sum()) == 79


def oracle(candidates: Candidates, iou: float) -> list[list[int]]:
    """Return the kept indices per image, from torchvision's operator applied per class in float64."""
    kept = []
    for boxes, scores, classes in zip(*candidates, strict=True):
        places: list[int] = []
        for index in classes.unique().tolist():
            own = ((classes == index) & (scores > 0)).nonzero()[:, 0]
            places += own[torchvision_nms(boxes[own].double(), scores[own].double(), iou)].tolist()
        kept.append(sorted(places))
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_torchvision_keeps_the_same_boxes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(3, 400, 2, generator=generator) * 1000
    boxes = torch.cat((low, low + 20 + torch.rand(3, 400, 2, generator=generator) * 300), 2)
    scores = torch.rand(3, 400, generator=generator)
    scores = scores.where(scores > 0.1, 0)
    candidates = Candidates(boxes, scores, torch.randint(0, 4, (3, 400), generator=generator))
    mask = keep_mask(candidates, iou=0.5)
    assert [row.nonzero()[:, 0].tolist() for row in mask] == oracle(candidates, 0.5)
    assert 10 < int(mask.sum()) < int((scores > 0).sum())


def crowd(seed: int, *, count: int = 300) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(2, count, 2, generator=generator) * 200
    boxes = torch.cat((low, low + 20 + torch.rand(2, count, 2, generator=generator) * 80), 2)
    scores = torch.rand(2, count, generator=generator)
    return Candidates(boxes, scores.where(scores > 0.1, 0), torch.randint(0, 3, (2, count), generator=generator))


@pytest.mark.parametrize("seed", range(4))
def test_iterative_nms_equals_greedy_nms(seed: int) -> None:
    candidates = crowd(seed)
    expected = suppress(candidates, iou=0.5, max_detections=100)
    found, converged = suppress_by_sweeps(candidates, iou=0.5, max_detections=100, sweeps=16, best=300)
    assert converged.tolist() == [True, True]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_chain_longer_than_the_iterations_is_detected() -> None:
    # each box overlaps only its neighbours, so every second one stays, and the last box is decided last
    rows = [([4 * i, 0, 4 * i + 10, 10], 0.9 - i / 100, 0) for i in range(20)]
    candidates = candidates_of(rows)
    exact = suppress(candidates, iou=0.4, max_detections=100)
    assert exact.counts.tolist() == [10]
    short, converged = suppress_by_sweeps(candidates, iou=0.4, max_detections=100, sweeps=6, best=20)
    assert converged.tolist() == [False]
    assert short.counts.tolist() != [10]
    whole, converged = suppress_by_sweeps(candidates, iou=0.4, max_detections=100, sweeps=24, best=20)
    assert converged.tolist() == [True]
    assert torch.equal(whole.boxes, exact.boxes)


def test_uncompared_candidates_are_detected_unless_not_needed() -> None:
    candidates = candidates_of([([20 * i, 0, 20 * i + 10, 10], 0.9 - i / 100, 0) for i in range(12)])
    few, converged = suppress_by_sweeps(candidates, iou=0.5, max_detections=100, sweeps=4, best=8)
    assert (few.counts.tolist(), converged.tolist()) == ([8], [False])
    full, converged = suppress_by_sweeps(candidates, iou=0.5, max_detections=8, sweeps=4, best=8)
    assert (full.counts.tolist(), converged.tolist()) == ([8], [True])


def test_iterative_nms_with_empty_boxes_and_slots() -> None:
    rows = [([5, 5, 5, 5], 0.9, 0), ([5, 5, 5, 5], 0.8, 0), ([0, 0, 10, 10], 0.7, 0)]
    found, converged = suppress_by_sweeps(candidates_of(rows, []), iou=0.5, max_detections=5, sweeps=4, best=3)
    assert found.counts.tolist() == [3, 0]
    assert converged.tolist() == [True, True]


corner = st.integers(0, 12)
row = st.tuples(corner, corner, st.integers(1, 8), st.integers(1, 8), st.integers(0, 4), st.integers(0, 1))


@settings(max_examples=80, deadline=None)
@given(st.lists(row, min_size=1, max_size=12), st.sampled_from([0.3, 0.5, 0.7]))
def test_nms_properties(rows: list[tuple[int, ...]], iou: float) -> None:
    given_ = candidates_of([([x, y, x + w, y + h], score / 4, index) for x, y, w, h, score, index in rows])
    left: BatchDetections = suppress(given_, iou=iou, max_detections=100)
    count = int(left.counts[0])
    boxes, scores, classes = left.boxes[0, :count], left.scores[0, :count], left.classes[0, :count]
    assert bool((scores[1:] <= scores[:-1]).all())
    overlap = overlaps(boxes, boxes) * (classes[:, None] == classes)
    assert bool((overlap.fill_diagonal_(0) <= iou).all())
    for box, score, index in zip(*(part[0] for part in given_), strict=True):
        if score > 0:  # it stayed, or a box at least as good of its class covers it
            better = (scores >= score) & (classes == index)
            covered = overlaps(box[None].double(), boxes[better].double()) > iou
            assert bool(covered.any()) or bool((boxes[better] == box).all(1).any())


def overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU [N, M] in float64."""
    a, b = a.double(), b.double()
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)
