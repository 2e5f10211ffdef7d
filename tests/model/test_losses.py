"""Losses: values computed by hand, no ground truth, comparison with torchvision's functions."""

import math

import pytest
import torch
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from fcos_cli.model.conventions import Conventions
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.losses import box_terms, class_terms, compute_losses, iou
from fcos_cli.model.points import Points, all_points, make_grids
from fcos_cli.model.targets import Targets, centerness

STRIDES = (8, 16, 32, 64, 128)


def raw_outputs(batch: int = 2, classes: int = 3, *, seed: int = 0) -> tuple[RawOutputs, Points]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    leaf = [
        [torch.randn(batch, channels, h, w, generator=generator).requires_grad_() for h, w in sizes]
        for channels in (classes, 4, 1)
    ]
    raw = RawOutputs(leaf[0], [level.exp() * 8 for level in leaf[1]], leaf[2])
    return raw, all_points(make_grids(sizes, STRIDES, conventions=Conventions()))


def background(batch: int, points: Points) -> Targets:
    count = len(points.xy)
    nothing = torch.full((batch, count), -1)
    zeros = torch.zeros(batch, count, 4)
    return Targets(nothing, zeros, zeros[..., 0], nothing, torch.zeros(batch, count, dtype=torch.bool))


def with_positive(targets: Targets, place: tuple[int, int], class_index: int, ltrb: list[float]) -> Targets:
    targets.classes[place] = class_index
    targets.ltrb[place] = torch.tensor(ltrb)
    targets.centerness[place] = centerness(torch.tensor(ltrb))
    return targets


def test_without_positives_losses_are_zero_and_have_gradients() -> None:
    raw, points = raw_outputs()
    terms = compute_losses(raw, background(2, points), points)
    assert terms["box"].item() == 0
    assert terms["centerness"].item() == 0
    assert terms["cls"].item() > 0
    sum(terms.values()).backward()  # type: ignore[union-attr]
    for level in (*raw.cls, *raw.ctr):
        assert level.grad is not None
        assert bool(torch.isfinite(level.grad).all())


@pytest.mark.parametrize("box_loss", ["giou", "iou", "l1", "l2"])
@pytest.mark.parametrize("class_loss", ["focal", "logistic", "varifocal"])
def test_losses_are_finite_with_one_box_and_none(box_loss: str, class_loss: str) -> None:
    for some in (False, True):
        raw, points = raw_outputs()
        targets = background(2, points)
        if some:
            with_positive(targets, (1, 5), 2, [4, 4, 12, 4])
        terms = compute_losses(raw, targets, points, class_loss=class_loss, box_loss=box_loss)  # type: ignore[arg-type]
        total = torch.stack(list(terms.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(total)
        grads = [level.grad for level in (*raw.cls, *raw.ctr) if level.grad is not None]
        assert all(bool(torch.isfinite(g).all()) for g in grads)


def test_zero_predicted_distances_give_finite_gradients() -> None:
    predicted = torch.zeros(1, 1, 4, requires_grad=True)
    points = Points(torch.zeros(1, 2), torch.tensor([8.0]), torch.zeros(1, dtype=torch.int64))
    for kind in ("giou", "iou", "l1", "l2"):
        term = box_terms(predicted, torch.tensor([[[4.0, 4, 4, 4]]]), points, kind=kind)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(term.sum(), predicted)
        assert bool(torch.isfinite(gradient).all()), kind


def test_losses_are_divided_by_the_number_of_positives() -> None:
    raw, points = raw_outputs()
    one = compute_losses(raw, with_positive(background(2, points), (0, 3), 1, [4, 4, 4, 4]), points)
    targets = with_positive(background(2, points), (0, 3), 1, [4, 4, 4, 4])
    # the same box once more where the prediction is the same: sums double, and so does the count
    two = compute_losses(
        RawOutputs(*[[torch.cat((level, level)) for level in levels] for levels in raw]),
        Targets(*[torch.cat((part, part)) for part in targets]),
        points,
    )
    for name in one:
        assert two[name].item() == pytest.approx(one[name].item(), rel=1e-6)


def test_points_in_ignored_boxes_are_excluded_from_the_class_loss() -> None:
    raw, points = raw_outputs()
    everything_ignored = background(2, points)._replace(ignored=torch.ones(2, len(points.xy), dtype=torch.bool))
    assert compute_losses(raw, everything_ignored, points)["cls"].item() == 0


def test_class_losses_of_a_point_are_independent() -> None:
    logits = torch.tensor([[[0.0, 2.0, -2.0]]])
    truth = torch.tensor([[1]])
    by_hand = math.log(2) + math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))
    assert class_terms(logits, truth, kind="logistic").item() == pytest.approx(by_hand, rel=1e-6)
    # focal, by its definition: α_t (1 - p_t)² times that, class by class
    p = [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]
    focal = (
        0.75 * p[0] ** 2 * math.log(2)
        + 0.25 * (1 - p[1]) ** 2 * -math.log(p[1])
        + 0.75 * p[2] ** 2 * -math.log(1 - p[2])
    )
    assert class_terms(logits, truth, kind="focal").item() == pytest.approx(focal, rel=1e-6)


def test_varifocal_loss_aims_at_the_overlap_of_the_box() -> None:
    logits = torch.tensor([[[0.0, 2.0], [0.0, 2.0]]])
    p = 1 / (1 + math.exp(-2))
    # class 1 with an IoU of 0.8; class 0 is background. A box beside its target is background in every class
    true = 0.8 * -(0.8 * math.log(p) + 0.2 * math.log(1 - p))
    background = [0.75 * 0.25 * math.log(2), 0.75 * p**2 * -math.log(1 - p)]
    terms = class_terms(logits, torch.tensor([[1, 1]]), kind="varifocal", overlap=torch.tensor([[0.8, 0.0]]))
    assert terms[0].tolist() == pytest.approx([true + background[0], sum(background)], rel=1e-5)


def test_varifocal_loss_takes_the_overlap_of_predicted_boxes() -> None:
    raw, points = raw_outputs()
    targets = with_positive(background(2, points), (0, 3), 1, [8.0, 8.0, 8.0, 8.0])
    targets.ignored[:] = True
    targets.ignored[0, 3] = False
    logits, ltrb, _ = raw.flat()
    overlap = iou(ltrb[:1, 3:4], targets.ltrb[:1, 3:4])
    assert 0.05 < overlap.item() < 0.95
    expected = class_terms(logits[:1, 3:4], torch.tensor([[1]]), kind="varifocal", overlap=overlap)
    found = compute_losses(raw, targets, points, class_loss="varifocal")["cls"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_focal_loss_equals_torchvision() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 7, 4, generator=generator)
    classes = torch.tensor([[0, 1, 2, 3, -1, -1, 2]] * 2)
    expected = torch.zeros(2, 7, 4)
    for b in range(2):
        for p, c in enumerate(classes[b].tolist()):
            if c >= 0:
                expected[b, p, c] = 1
    theirs = sigmoid_focal_loss(logits, expected).sum(-1)
    assert torch.allclose(class_terms(logits, classes, kind="focal"), theirs, rtol=1e-6)


@pytest.mark.parametrize("kind", ["focal", "logistic"])
def test_class_losses_and_their_gradients_are_those_of_one_hot_vectors(kind: str) -> None:
    generator = torch.Generator().manual_seed(3)
    # as `RawOutputs.flat` gives them: not contiguous
    logits = torch.randn(2, 5, 50, generator=generator).transpose(1, 2).requires_grad_()
    classes = torch.randint(-1, 5, (2, 50), generator=generator)
    truth = torch.nn.functional.one_hot(classes + 1, 6)[..., 1:].float()
    loss = sigmoid_focal_loss if kind == "focal" else torch.nn.functional.binary_cross_entropy_with_logits
    expected = loss(logits, truth, reduction="none").sum(-1)
    found = class_terms(logits, classes, kind=kind)  # type: ignore[arg-type]
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(terms.sum(), logits)[0] for terms in (found, expected)]
    assert torch.equal(*gradients)


def test_box_losses_computed_by_hand() -> None:
    points = Points(torch.zeros(1, 2), torch.tensor([8.0]), torch.zeros(1, dtype=torch.int64))
    truth, predicted = torch.tensor([[[8.0, 8, 8, 8]]]), torch.tensor([[[8.0, 8, 0, 8]]])
    # boxes 16×16 and 8×16, one inside the other: IoU 1/2, no empty space in their hull
    assert box_terms(predicted, truth, points, kind="iou").item() == pytest.approx(math.log(2), rel=1e-5)
    assert box_terms(predicted, truth, points, kind="giou").item() == pytest.approx(0.5, rel=1e-5)
    assert box_terms(predicted, truth, points, kind="l1").item() == pytest.approx(1 / 4)  # 8 px = 1 stride, in one of 4
    assert box_terms(predicted, truth, points, kind="l2").item() == pytest.approx(1 / 4)
    for kind in ("iou", "giou", "l1", "l2"):
        assert box_terms(truth, truth, points, kind=kind).item() == pytest.approx(0, abs=1e-6)  # type: ignore[arg-type]


def test_iou_and_giou_of_distances_equal_those_of_boxes() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.rand(50, 4, generator=generator) * 100 + 1 for _ in range(2))
    point = torch.tensor([200.0, 300, 200, 300])
    sign = torch.tensor([-1.0, -1, 1, 1])
    points = Points(torch.zeros(50, 2), torch.full((50,), 8.0), torch.zeros(50, dtype=torch.int64))
    giou = torch.diag(generalized_box_iou(point + a * sign, point + b * sign))
    assert torch.allclose(1 - box_terms(a[None], b[None], points, kind="giou")[0], giou, atol=1e-5)

    assert torch.allclose(iou(a, b), torch.diag(box_iou(point + a * sign, point + b * sign)), atol=1e-5)


def test_l2_loss_does_not_depend_on_the_level() -> None:
    near = Points(torch.zeros(1, 2), torch.tensor([8.0]), torch.zeros(1, dtype=torch.int64))
    far = Points(torch.zeros(1, 2), torch.tensor([32.0]), torch.zeros(1, dtype=torch.int64))
    a = box_terms(torch.full((1, 1, 4), 16.0), torch.full((1, 1, 4), 8.0), near, kind="l2")
    b = box_terms(torch.full((1, 1, 4), 64.0), torch.full((1, 1, 4), 32.0), far, kind="l2")
    assert a.item() == b.item() == 1.0
