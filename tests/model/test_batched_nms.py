"""Greedy NMS in groups, compared with torchvision's operator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import batched_nms, nms

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.decode import Candidates
from fcos_cli.model.nms import BUCKETS, MAX_OFFSET_BOXES, batched_keep_mask, keep_mask


def crowd(count: int, groups: int, *, seed: int, levels: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes with much overlap, some of them empty. levels: number of distinct scores (0 = all different)."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    sides = torch.rand(count, 2, generator=generator) * 40
    sides[::17] = 0
    scores = torch.rand(count, generator=generator)
    if levels:
        scores = (scores * levels).ceil() / levels
    group = (torch.rand(count, generator=generator) ** 3 * groups).long()  # some much larger than others
    return torch.cat((corners, corners + sides), 1), scores, group


def one_by_one(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    keep = torch.zeros(len(scores), dtype=torch.bool)
    for group in groups.unique():
        own = (groups == group).nonzero()[:, 0]
        keep[own[nms(boxes[own], scores[own], iou)]] = True
    return keep


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 600),
    groups=st.integers(1, 90),
    seed=st.integers(0, 10_000),
    iou=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    levels=st.sampled_from([0, 3]),
)
def test_groups_do_not_affect_each_other(count: int, groups: int, seed: int, iou: float, levels: int) -> None:
    boxes, scores, group = crowd(count, groups, seed=seed, levels=levels)
    for kind in (torch.float32, torch.float64):
        found = batched_keep_mask(boxes.to(kind), scores.to(kind), group, iou=iou)
        assert torch.equal(found, one_by_one(boxes.to(kind), scores.to(kind), group, iou))


@pytest.mark.parametrize("size", [1, *BUCKETS, BUCKETS[-1] + 1])
def test_groups_of_bucket_size_and_larger_than_all_buckets(size: int) -> None:
    boxes, scores, _ = crowd(2 * size, 1, seed=size)
    group = torch.arange(2 * size) % 2
    assert torch.equal(batched_keep_mask(boxes, scores, group, iou=0.5), one_by_one(boxes, scores, group, 0.5))


def test_long_chain_of_suppressions() -> None:
    """Each box overlaps the next one, so every other box is kept, however long the chain is."""
    count = BUCKETS[-1]
    left = torch.arange(count) * 4.0
    boxes = torch.stack((left, torch.zeros(count), left + 10, torch.full((count,), 10.0)), 1)
    scores = torch.linspace(1, 0.5, count)
    keep = batched_keep_mask(boxes, scores, torch.zeros(count, dtype=torch.int64), iou=0.4)
    assert keep.nonzero()[:, 0].tolist() == list(range(0, count, 2))


@pytest.mark.parametrize("rule", ["exact", "batched"])
def test_images_with_few_and_many_candidates_in_one_batch(rule: str) -> None:
    """If torchvision runs NMS per class, `batched` gives exactly its result."""
    most = 3 * MAX_OFFSET_BOXES
    boxes, scores, classes = (
        torch.stack(part) for part in zip(*(crowd(most, 80, seed=s) for s in (1, 2)), strict=True)
    )
    scores[1, MAX_OFFSET_BOXES:] = 0
    rules = Conventions(nms="batched" if rule == "batched" else "exact")
    keep = keep_mask(Candidates(boxes, scores, classes), iou=0.6, conventions=rules)
    for picture in (0, 1):
        alive = scores[picture] > 0
        expected = torch.zeros(most, dtype=torch.bool)
        expected[batched_nms(boxes[picture][alive], scores[picture][alive], classes[picture][alive], 0.6)] = True
        if rule == "batched":
            assert torch.equal(keep[picture], expected)
        else:
            exact = one_by_one(
                boxes[picture][alive].double(), scores[picture][alive].double(), classes[picture][alive], 0.6
            )
            assert torch.equal(keep[picture][alive], exact)
        assert not keep[picture][~alive].any()
