"""Each automatic setting on synthetic data, and the reason it gives."""

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.model.config import STRIDES
from fcos_cli.train.recipe.choices import (
    choose_backbone_lr,
    choose_epochs,
    choose_freeze,
    choose_lr,
    choose_mosaic,
    choose_norm,
    choose_ranges,
    choose_repeat,
    choose_shape,
    choose_size,
    choose_strides,
    choose_turn,
    choose_val_every,
)
from fcos_cli.train.recipe.facts import DataFacts, facts_of
from tests.train.recipe.made import dataset, sample


def facts(width: int = 1280, height: int = 960, *, sides: tuple[float, ...] = (200,), images: int = 100) -> DataFacts:
    return facts_of(dataset([sample(width, height, sides=sides)] * images))


@pytest.mark.parametrize(
    ("made", "size", "reason"),
    [
        (facts(sides=(400,)), (256, 320), "enough for these boxes"),
        (facts(sides=(60,)), (384, 512), "24 px or larger"),
        (facts(sides=(12,)), (480, 640), "largest that is chosen"),
        (facts(960, 1280, sides=(60,)), (512, 384), "24 px or larger"),
        (facts(400, 300, sides=(4,)), (320, 416), "as large as the images"),
        (facts(64, 64, sides=(30,)), (64, 64), "enough for these boxes"),
    ],
    ids=["large", "middle", "tiny", "tall", "small images", "thumbnails"],
)
def test_the_input_is_as_large_as_the_boxes_need(made: DataFacts, size: tuple[int, int], reason: str) -> None:
    choice = choose_size(made, pixels=None)
    assert choice.value == size
    assert reason in choice.reason
    assert "the shape of most images" in choice.reason


def test_images_of_various_shapes_get_a_square() -> None:
    mixed = facts_of(dataset([sample(640, 480, sides=[300]), sample(480, 640, sides=[300])]))
    assert choose_size(mixed, pixels=None).value == (320, 320)


def test_a_time_limit_decides_between_the_smallest_and_the_largest() -> None:
    made = facts(sides=(60,), images=200)
    images = 12_000
    sizes = [choose_size(made, pixels=share * 480 * 640 * images).value for share in (0, 0.2, 0.5, 1, 9)]
    assert sizes == [(256, 320), (256, 320), (320, 448), (480, 640), (480, 640)]
    assert "time for 12,000 images" in choose_size(made, pixels=480 * 640 * images).reason
    many = facts(sides=(60,), images=5000)  # 200,000 images at the least
    assert choose_size(many, pixels=480 * 640 * images).value == (256, 320)


def test_a_larger_input_comes_before_a_finer_level() -> None:
    made = facts(sides=(18,), images=400)  # 6 px at 448 px, 9 px at 640 px
    pixels = 480 * 640 * 16_000
    assert choose_size(made, pixels=pixels, finer=3.0).value == (480, 640)
    assert choose_size(made, pixels=0.6 * pixels, finer=3.0).value == (256, 320)
    assert choose_size(made, pixels=0.6 * pixels, finer=1.0).value == (352, 480)


def test_without_time_for_any_size_the_reason_says_so() -> None:
    choice = choose_size(facts(sides=(60,)), pixels=0)
    assert choice == ((256, 320), "the shape of most images; the smallest: there is no time for 12,000 images")


def test_long_images_get_as_many_pixels_as_others() -> None:
    made = facts(8000, 1000, sides=(400,))
    assert choose_size(made, pixels=None).value == (96, 640)  # 320 × 160 of a 2:1 image has as many
    assert choose_size(facts(8000, 1000, sides=(20,)), pixels=None).value == (160, 1280)
    assert choose_size(facts(1000, 8000, sides=(20,)), pixels=None).value == (1280, 160)
    assert choose_size(facts(1280, 640, sides=(20,)), pixels=None).value == (320, 640)
    assert choose_ranges(STRIDES, size=(160, 1280)).value == (32, 64, 128, 256)


def test_many_tiny_boxes_get_a_finer_level() -> None:
    made = facts(640, 640, sides=(15, 15, 15, 17))  # at 320 px: 7.5 and 8.5 px
    assert choose_strides(made, size=(320, 320)) == ((4, 8, 16, 32, 64), "75% of the boxes are smaller than 8 px")
    assert choose_strides(made, size=(640, 640)) == (STRIDES, "0% of the boxes are smaller than 8 px")
    assert choose_strides(facts(640, 640, sides=(15, 17, 17, 17)), size=(320, 320)).value == STRIDES
    assert choose_strides(facts(sides=()), size=(320, 320)).value == STRIDES


@pytest.mark.parametrize("share", [None, 0.5, 0.75])
def test_each_optimizer_has_its_learning_rate(share: float | None) -> None:
    assert choose_lr("adamw", told_apart=lambda: share) == (0.002, "for adamw")
    assert choose_lr("sgd", told_apart=lambda: share) == (0.01, "for sgd")
    assert choose_backbone_lr(told_apart=lambda: share).value == 1
    assert choose_freeze(told_apart=lambda: share).value == 0


def test_what_the_backbone_knows_is_kept() -> None:
    reason = "the backbone knows such objects: 88% are told apart from their upside-down copies"
    assert choose_lr("adamw", told_apart=lambda: 0.88) == (0.001, reason)
    assert choose_lr("sgd", told_apart=lambda: 0.88) == (0.01, "for sgd")
    assert choose_backbone_lr(told_apart=lambda: 0.88) == (0.5, reason)
    assert choose_freeze(told_apart=lambda: 0.88) == (3, reason)
    assert choose_norm(batch=8, told_apart=lambda: 0.88) == ("frozen", reason)


def test_boxes_that_are_large_anyway_leave_time_for_more_images() -> None:
    made, pixels = facts(sides=(160,)), 480 * 640 * 12_000  # 60 px at 480 px
    assert choose_size(made, pixels=pixels).value == (352, 480)
    assert "more images help more" in choose_size(made, pixels=pixels).reason
    assert choose_size(made, pixels=2 * pixels).value == (480, 640)
    assert "time for 24,000 images" in choose_size(made, pixels=2 * pixels).reason
    assert choose_size(facts(sides=(100,)), pixels=pixels).value == (480, 640)


def test_ranges_are_multiples_of_the_strides() -> None:
    assert choose_ranges(STRIDES, size=(320, 320)).value == (32, 64, 128, 256)
    assert choose_ranges(STRIDES, size=(480, 640)).value == (64, 128, 256, 512)
    assert choose_ranges((4, 8, 16, 32, 64), size=(320, 320)).value == (16, 32, 64, 128)


@pytest.mark.parametrize(("images", "epochs"), [(20, 750), (300, 41), (5000, 12)])
def test_small_sets_get_more_epochs(images: int, epochs: int) -> None:
    choice = choose_epochs(images=images, batch=8)
    assert choice.value == epochs
    assert f"{epochs * (images // 8):,} steps" in choice.reason


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (42, 1), (99, 1), (100, 2), (750, 15), (1500, 30)])
def test_many_short_epochs_are_not_all_validated(epochs: int, every: int) -> None:
    choice = choose_val_every(epochs=epochs)
    assert choice.value == every
    assert choice.reason == f"{-(-epochs // every)} validations in {epochs} epochs"


def test_rare_classes_come_more_often() -> None:
    common, rare = sample(64, 64, sides=[9], classes=[0]), sample(64, 64, sides=[9], classes=[1])
    assert choose_repeat(facts_of(dataset([common] * 19 + [rare], classes=3))).value == 0.1
    assert choose_repeat(facts_of(dataset([common] * 10 + [rare] * 9, classes=3))).value == 0
    assert choose_repeat(facts()).value == 0
    tail = [sample(64, 64, sides=[9], classes=[label]) for label in (0, 1, 1, 2, 2, 3, 4)]
    many = [sample(64, 64, sides=[9] * 2, classes=[5, 5])] * 93  # the others: 1 or 2 % of the images, median 1.5 %
    assert choose_repeat(facts_of(dataset(tail + many, classes=6))).value == pytest.approx(0.015)
    assert choose_repeat(facts(sides=())).value == 0


def test_a_named_network_gets_the_shape_of_the_images() -> None:
    assert choose_shape(facts(), longer=512).value == (384, 512)
    assert "made for 512 px" in choose_shape(facts(), longer=512).reason


def test_batch_norm_is_frozen_for_small_batches() -> None:
    assert "too few" in choose_norm(batch=2, told_apart=lambda: None).reason
    assert choose_norm(batch=2, told_apart=lambda: None).value == "frozen"
    assert choose_norm(batch=8, told_apart=lambda: 0.6).value == "trained"


@pytest.mark.parametrize(
    ("made", "mosaic", "reason"),
    [
        (facts(sides=(200, 300)), 0.5, "2.0 boxes per image are few"),
        (facts(sides=(200,) * 5), 0.5, "5.0 boxes per image"),
        (facts(sides=(200,) * 6), 0, "6.0 boxes per image are already many"),
        (facts(640, 640, sides=(31, 33, 33)), 0, "33% of the boxes would become smaller than 8 px"),
        (facts(640, 640, sides=(33, 33)), 0.5, "few"),
        (facts(sides=()), 0.5, "0.0 boxes per image"),
    ],
    ids=["few", "limit", "many", "tiny", "small", "none"],
)
def test_few_objects_are_shown_four_images_at_a_time(made: DataFacts, mosaic: float, reason: str) -> None:
    choice = choose_mosaic(made, size=(320, 320))
    assert choice.value == mosaic
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("told_apart", "turn", "reason"),
    [
        (0.5, 0.75, "no upright orientation: 50%"),
        (0.75, 0.75, "no upright orientation"),
        (0.9, 0, "have an upright orientation: 90%"),
        (None, 0, "not known"),
    ],
)
def test_objects_without_an_upright_orientation_are_turned(told_apart: float | None, turn: float, reason: str) -> None:
    choice = choose_turn(facts(), names=["cell"], told_apart=lambda: told_apart)
    assert choice.value == turn
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [((1.1, 0.5), "rod boxes are 2.0 times as tall"), ((1.2, np.nan), "cell boxes are 1.2 times as wide")],
)
def test_objects_of_one_shape_are_not_turned(shapes: tuple[float, float], reason: str) -> None:
    def never() -> float:
        raise AssertionError("the boxes say enough")

    made = replace(facts(), class_shapes=np.array(shapes))
    assert choose_turn(made, names=["cell", "rod"], told_apart=never) == (0, reason)


@pytest.mark.parametrize("names", [["turn left", "turn right"], ["6", "9"], ["stop", "arrow up"]])
def test_directions_and_characters_are_not_turned(names: list[str]) -> None:
    choice = choose_turn(facts(), names=names, told_apart=lambda: 0.5)
    assert choice.value == 0
    assert "may look like another class" in choice.reason
    assert choose_turn(facts(), names=names[-1:], told_apart=lambda: 0.5).value == 0.75  # there is no other class


def test_without_boxes_nothing_is_turned() -> None:
    assert choose_turn(facts(sides=()), names=["a"], told_apart=lambda: 0.5).value == 0
