"""Targets: hand-made cases, properties, and comparison with torchvision."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection import fcos as torchvision_fcos

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.points import Points, all_points, make_grids
from fcos_cli.model.targets import Targets, Truth, assign_targets, centerness, to_box_ends

RANGES = (64.0, 128.0, 256.0, 512.0)
STRIDES = (8, 16, 32, 64, 128)


def points_of(side: int, *, offset: float = 0.5, strides: tuple[int, ...] = STRIDES) -> Points:
    sizes = [(-(-side // s), -(-side // s)) for s in strides]
    return all_points(make_grids(sizes, strides, conventions=Conventions(point_offset=offset)))


def truth_of(
    boxes: Sequence[Sequence[float]], classes: Sequence[int] | None = None, ignore: Sequence[bool] = ()
) -> Truth:
    n = len(boxes)
    return Truth(
        torch.tensor(boxes, dtype=torch.float32).reshape(1, n, 4),
        torch.tensor(list(range(n)) if classes is None else classes).reshape(1, n),
        torch.tensor(ignore or [False] * n, dtype=torch.bool).reshape(1, n),
    )


def place(points: Points, x: float, y: float, stride: int) -> int:
    hit = (points.xy == torch.tensor([x, y])).all(1) & (points.stride == stride)
    return int(hit.nonzero()[0, 0])


def run(truth: Truth, side: int = 256, **switches: object) -> tuple[Points, Targets]:
    points = points_of(side)
    return points, assign_targets(points, truth, ranges=RANGES, conventions=Conventions(**switches))  # type: ignore[arg-type]


def test_distances_of_the_point_at_the_box_center() -> None:
    points, targets = run(truth_of([[100, 100, 140, 132]], classes=[3]))
    centre = place(points, 116, 116, 8)
    assert targets.classes[0, centre] == 3
    assert targets.ltrb[0, centre].tolist() == [16, 16, 24, 16]
    assert targets.centerness[0, centre].item() == pytest.approx((16 / 24 * 16 / 16) ** 0.5)


def test_a_box_between_the_points_of_stride_8_has_points_of_stride_4() -> None:
    truth = truth_of([[13, 13, 19, 19]], classes=[2])  # 6 px, between the points 12 and 20 of stride 8
    _, coarse = run(truth)
    assert int((coarse.classes >= 0).sum()) == 0
    points = points_of(64, strides=(4, 8, 16, 32, 64))
    targets = assign_targets(points, truth, ranges=RANGES, conventions=Conventions())
    positive = targets.classes[0] == 2
    assert points.stride[positive].tolist() == [4] * 4
    assert points.xy[positive].tolist() == [[14, 14], [18, 14], [14, 18], [18, 18]]
    assert targets.ltrb[0, positive].tolist() == [[1, 1, 5, 5], [5, 1, 1, 5], [1, 5, 5, 1], [5, 5, 1, 1]]
    assert targets.centerness[0, positive].tolist() == pytest.approx([0.2] * 4)


def test_center_sampling_radius() -> None:
    points, targets = run(truth_of([[96, 96, 160, 160]]))  # centre (128, 128), level of stride 8
    positive = points.xy[targets.classes[0] >= 0]
    # |p - 128| < 12 on the grid 4, 12, 20, …: 116 is exactly 12 away and stays out, 124 and 132 are in
    assert sorted(positive.tolist()) == [[124, 124], [124, 132], [132, 124], [132, 132]]


def test_without_center_sampling_every_point_inside_the_box_is_positive() -> None:
    points, targets = run(truth_of([[96, 96, 128, 128]]), radius=0.0)
    assert int((targets.classes >= 0).sum()) == 16
    assert bool((points.stride[targets.classes[0] >= 0] == 8).all())


def test_point_on_the_edge_is_outside() -> None:
    points, targets = run(truth_of([[100, 96, 132, 128]]), radius=0.0)
    assert targets.classes[0, place(points, 100, 116, 8)] == -1  # left distance is 0
    assert targets.classes[0, place(points, 108, 116, 8)] == 0


def test_smaller_box_wins_a_shared_point() -> None:
    points, targets = run(truth_of([[80, 80, 176, 176], [108, 108, 140, 140]]), radius=0.0)
    assert targets.box[0, place(points, 124, 124, 8)] == 1
    assert targets.box[0, place(points, 100, 124, 8)] == -1  # longest distance 76: not this level's


def test_first_box_wins_a_tie() -> None:
    boxes = [[104, 96, 136, 128], [96, 104, 128, 136]]
    points, targets = run(truth_of(boxes), radius=0.0)
    shared = place(points, 116, 116, 8)
    assert targets.box[0, shared] == 0
    points, targets = run(truth_of(boxes[::-1]), radius=0.0)
    assert targets.box[0, shared] == 0


def test_areas_differing_by_one_square_pixel_are_distinguished() -> None:
    large = [0.0, 0.0, 250.0, 250.0]
    smaller = [0.0, 0.0, 250.0, 249.996]  # torchvision's float32 1e8 - area cannot see this
    _, targets = run(truth_of([large, smaller]), radius=0.0)
    positive = targets.classes >= 0
    assert bool((targets.box[positive] == 1).all())


@pytest.mark.parametrize(("ends", "levels"), [("half-open", [8]), ("closed", [8, 16]), ("open", [])])
def test_longest_distance_exactly_at_a_range_end(ends: str, levels: list[int]) -> None:
    # from (56, 56) of stride 16 and (60, 60) of stride 8 … a box whose longest distance is 64 from both
    found = []
    for stride, x in ((8, 60.0), (16, 56.0)):
        points, targets = run(truth_of([[x - 64, x - 10, x + 10, x + 10]]), radius=0.0, range_ends=ends)
        if targets.classes[0, place(points, x, x, stride)] >= 0:
            found.append(stride)
    assert found == levels


def test_level_depends_on_the_longest_distance_not_the_box_size() -> None:
    points, targets = run(truth_of([[20, 100, 220, 120]]), radius=0.0)  # 200 × 20
    middle = place(points, 120, 104, 16)
    assert targets.classes[0, middle] == 0  # distances 100 and 100: the second level
    assert targets.classes[0, place(points, 36, 108, 8)] == -1  # 184 to the right edge: too far for the first


def test_box_smaller_than_a_cell_may_have_no_point() -> None:
    _, hit = run(truth_of([[122, 122, 126, 126]]))
    assert int((hit.classes >= 0).sum()) == 1  # around (124, 124)
    _, missed = run(truth_of([[126, 126, 130, 130]]))
    assert int((missed.classes >= 0).sum()) == 0  # between 124 and 132


def test_points_in_ignored_boxes_are_marked() -> None:
    points, targets = run(truth_of([[96, 96, 160, 160], [120, 120, 136, 136]], ignore=[True, False]))
    assert set(targets.box[targets.classes >= 0].tolist()) == {1}
    assert not targets.ignored[0, place(points, 124, 124, 8)]  # it is a positive of the other box
    assert targets.ignored[0, place(points, 100, 100, 8)]
    assert not targets.ignored[0, place(points, 4, 4, 8)]


def test_batch_without_boxes_is_background() -> None:
    empty = Truth(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.bool))
    _, targets = run(empty)
    assert bool((targets.classes == -1).all())
    assert bool((targets.box == -1).all())
    assert targets.ltrb.shape == (2, targets.classes.shape[1], 4)
    assert float(targets.ltrb.sum() + targets.centerness.sum()) == 0
    assert not targets.ignored.any()


def test_targets_do_not_depend_on_the_batch() -> None:
    full = truth_of([[96, 96, 160, 160], [10, 10, 60, 40]], classes=[1, 0])
    padded = Truth(
        torch.cat((full.boxes, torch.zeros(1, 2, 4))),
        torch.cat((full.classes, torch.tensor([[-1, -1]]))),
        torch.cat((full.ignore, torch.zeros(1, 2, dtype=torch.bool))),
    )
    _, alone = run(full)
    _, both = run(padded)
    for a, b in zip(alone, both, strict=True):
        assert torch.equal(a[0], b[0])
    assert bool((both.classes[1] == -1).all())


def test_centerness_is_one_at_the_center_and_zero_on_an_edge() -> None:
    ltrb = torch.tensor([[5.0, 5, 5, 5], [1, 4, 9, 4], [0, 3, 6, 3]])
    assert centerness(ltrb).tolist() == pytest.approx([1.0, 1 / 3, 0.0])


box = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(1, 200), st.integers(1, 200))


@settings(max_examples=60, deadline=None)
@given(st.lists(box, min_size=1, max_size=6), st.sampled_from([0.0, 1.5]))
def test_properties_of_every_positive_point(rows: list[tuple[int, int, int, int]], radius: float) -> None:
    boxes = [[x, y, x + w, y + h] for x, y, w, h in rows]
    points, targets = run(truth_of(boxes), side=416, radius=radius)
    positive = targets.classes[0] >= 0
    assert bool((targets.ltrb[0, positive] > 0).all())
    # the distances lead back to the box, exactly: all are multiples of a half pixel
    matched = torch.tensor(boxes, dtype=torch.float32)[targets.box[0, positive]]
    xy, ltrb = points.xy[positive], targets.ltrb[0, positive]
    assert torch.equal(torch.cat((xy - ltrb[:, :2], xy + ltrb[:, 2:]), 1), matched)
    assert bool(((targets.centerness >= 0) & (targets.centerness <= 1)).all())


def torchvision_targets(points: Points, boxes: Tensor) -> Tensor:
    """Return the matched box index per point from torchvision's own loss code."""
    captured: list[Tensor] = []

    class Head(torch.nn.Module):
        def compute_loss(self, targets: object, outputs: object, anchors: object, matched: list[Tensor]) -> None:
            captured.extend(matched)

    size = (points.stride / 2)[:, None]
    anchors = torch.cat((points.xy - size, points.xy + size), 1)
    oracle = torchvision_fcos.FCOS.__new__(torchvision_fcos.FCOS)
    torch.nn.Module.__init__(oracle)
    oracle.center_sampling_radius = 1.5
    oracle.head = Head()
    counts = [int((points.level == i).sum()) for i in range(5)]
    oracle.compute_loss([{"boxes": boxes, "labels": torch.zeros(len(boxes))}], {}, [anchors], counts)
    return captured[0]


@pytest.mark.parametrize("seed", range(10))
def test_torchvision_assigns_the_same_boxes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(20, 2, generator=generator) * 300
    boxes = torch.cat((low, low + 10 + torch.rand(20, 2, generator=generator) * 200), 1)
    points = points_of(512)
    truth = Truth(boxes[None], torch.zeros(1, 20, dtype=torch.int64), torch.zeros(1, 20, dtype=torch.bool))
    ours = assign_targets(points, truth, ranges=(64, 128, 256, 512), conventions=Conventions(range_ends="open"))
    theirs = torchvision_targets(points, boxes)
    # boxes whose areas differ by less than 8 px² tie in torchvision's float32
    differ = (ours.box[0] != theirs).nonzero()[:, 0]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for point in differ.tolist():
        a, b = int(ours.box[0, point]), int(theirs[point])
        assert min(a, b) >= 0
        assert abs(float(area[a] - area[b])) <= 8


def test_inclusive_boxes_are_shortened_by_one_pixel() -> None:
    truth = Truth(torch.tensor([[[8.0, 12.0, 48.0, 36.0]]]), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    assert to_box_ends(truth, Conventions()) is truth
    inclusive = to_box_ends(truth, Conventions(box_ends="inclusive"))
    assert inclusive.boxes.tolist() == [[[8, 12, 47, 35]]]
    assert truth.boxes.tolist() == [[[8, 12, 48, 36]]]
