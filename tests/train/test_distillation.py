"""Distillation: what the teacher says, what differs from it costs, and which detectors can teach a network."""

import math
from typing import Any

import pytest
import torch

from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.model.conventions import Conventions
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.points import all_points, make_grids
from fcos_cli.train.distillation import Lesson, Teacher, check_teacher, distillation_loss
from tests.tiny import CLASSES, tiny_artifact, tiny_config, tiny_model

POINTS = all_points(make_grids([(1, 2)], (8,), conventions=Conventions()))
ONE = torch.tensor(1.0)


def outputs(logits: list[float], ltrb: list[list[float]], ctr: list[float]) -> RawOutputs:
    """One image, one class and one level with two points."""
    boxes = torch.tensor(ltrb).T.reshape(1, 4, 1, 2)
    return RawOutputs([torch.tensor(logits).reshape(1, 1, 1, 2)], [boxes], [torch.tensor(ctr).reshape(1, 1, 1, 2)])


def lesson(classes: list[float], ltrb: list[list[float]], centerness: list[float]) -> Lesson:
    return Lesson(torch.tensor([classes])[..., None], torch.tensor([ltrb]), torch.tensor([centerness]))


def test_a_loss_worked_by_hand() -> None:
    raw = outputs([0.0, -50.0], [[2, 2, 2, 2], [9, 9, 9, 9]], [0.0, 0.0])
    said = lesson([0.9, 0.0], [[2, 2, 2, 2], [1, 1, 1, 1]], [0.5, 0.5])
    # point 1: p = 0.5, so BCE = ln 2, weighted by 0.4²; its box is right, and centerness is ln 2, weighted by 0.9 · 0.5
    # point 2: both see nothing
    loss = distillation_loss(raw, said, POINTS, divide_by=torch.tensor(2.0))
    assert loss.item() == pytest.approx(math.log(2) * (0.16 + 0.45) / 2, rel=1e-5)


def test_a_box_counts_as_much_as_the_teacher_is_sure() -> None:
    right, wrong = [[4.0, 4, 4, 4]] * 2, [[4.0, 4, 0, 4]] * 2  # IoU 0.5, and GIoU the same
    said = lesson([0.8, 0.0], right, [0.5, 1.0])
    losses = [
        distillation_loss(outputs([1.0, -9.0], boxes, [0.0, 0.0]), said, POINTS, divide_by=ONE).item()
        for boxes in (right, wrong)
    ]
    assert losses[1] - losses[0] == pytest.approx(0.5 * 0.8 * 0.5, abs=1e-5)


def test_a_network_differs_from_itself_in_nothing_but_what_it_is_unsure_of() -> None:
    artifact, images = tiny_artifact(), torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    network = artifact.build()
    raw, said = network(images), Teacher(artifact, config=artifact.config, classes=CLASSES)(images)
    assert not said.ltrb.requires_grad
    loss = distillation_loss(raw, said, network.points(raw), divide_by=ONE)
    p = said.centerness
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    assert loss.item() == pytest.approx((entropy * said.classes.amax(-1) * p).sum().item(), rel=1e-4)
    other = tiny_artifact(weights=tiny_model(seed=1).state_dict())
    others = Teacher(other, config=other.config, classes=CLASSES)(images)
    assert distillation_loss(raw, others, network.points(raw), divide_by=ONE).item() > 1.05 * loss.item()


def test_classes_are_matched_by_name() -> None:
    artifact, images = tiny_artifact(), torch.zeros(1, 3, 64, 64)
    some = ClassTable(("triangle", "circle"), (5, 9))
    said = Teacher(artifact, config=artifact.config, classes=some)(images).classes
    both = Teacher(artifact, config=artifact.config, classes=CLASSES)(images).classes
    assert torch.allclose(said, both[..., [2, 0]])
    assert not torch.allclose(said, both[..., [0, 2]])


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"strides": (4, 8, 16, 32, 64)}, r"model.strides = \(8, 16, 32, 64, 128\), and the network \(4, 8"),
        ({"conventions": Conventions(point_offset=0.0)}, "model.conventions.point_offset = 0.5, and the network 0.0"),
        ({"conventions": Conventions(quality="iou")}, "model.conventions.quality = centerness, and the network iou"),
    ],
)
def test_a_teacher_with_other_points_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        check_teacher(tiny_artifact(), config=tiny_config(**changes), classes=CLASSES)


def test_a_teacher_that_lacks_a_class_is_refused() -> None:
    with pytest.raises(UsageError, match="does not know the class 'star', only circle, square, triangle"):
        check_teacher(tiny_artifact(), config=tiny_config(), classes=ClassTable(("circle", "star"), (1, 2)))
