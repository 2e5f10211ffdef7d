"""Facts about synthetic data sets."""

from dataclasses import replace

import numpy as np
import pytest

from fcos_cli.train.recipe.facts import facts_of
from tests.train.recipe.made import dataset, sample


def test_sizes_are_shares_of_each_images_longer_side() -> None:
    facts = facts_of(dataset([sample(640, 480, sides=[64, 32]), sample(240, 320, sides=[80])]))
    assert facts.box_sides.tolist() == pytest.approx([0.05, 0.1, 0.25])
    assert (facts.images, facts.boxes) == (2, 3)
    assert facts.box_side(0.5) == pytest.approx(0.1)


def test_medians_and_shapes() -> None:
    wide, tall = sample(640, 480, sides=[9]), sample(480, 640, sides=[9])
    facts = facts_of(dataset([wide] * 9 + [tall]))
    assert (facts.width, facts.height, facts.one_shape) == (640, 480, True)
    assert not facts_of(dataset([wide] * 6 + [tall] * 4)).one_shape
    assert facts_of(dataset([sample(600 + 8 * i, 480, sides=[9]) for i in range(10)])).one_shape


def test_class_shares_and_ignored_boxes() -> None:
    ignored = sample(100, 100, sides=[50], ignore=True)
    facts = facts_of(dataset([sample(100, 100, sides=[10, 10], classes=[0, 2]), ignored], classes=3))
    assert facts.class_shares.tolist() == [0.5, 0, 0.5]
    assert facts.boxes == 2


def test_class_shapes_are_medians_of_width_to_height() -> None:
    made = sample(100, 100, sides=[10, 20, 30, 40], classes=[0, 0, 0, 1])
    made = replace(made, boxes=np.array([[0, 0, 20, 10], [0, 0, 30, 10], [0, 0, 90, 10], [0, 0, 10, 40]], np.float32))
    assert facts_of(dataset([made], classes=3)).class_shapes.tolist() == pytest.approx([3, 0.25, np.nan], nan_ok=True)


def test_a_few_boxes_say_nothing_about_the_shape_of_a_class() -> None:
    wide = replace(sample(100, 100, sides=[10], classes=[1]), boxes=np.array([[0, 0, 30, 10]], np.float32))
    squares = sample(100, 100, sides=[10] * 20)
    facts = facts_of(dataset([squares, wide], classes=2))
    assert facts.class_shapes.tolist() == pytest.approx([1, np.nan], nan_ok=True)
    assert facts_of(dataset([squares] + [wide] * 20, classes=2)).class_shapes.tolist() == [1, 3]


def test_without_boxes_or_images_there_are_still_facts() -> None:
    facts = facts_of(dataset([sample(64, 48)]))
    assert (facts.boxes, facts.box_side(0.1)) == (0, 1.0)
    nothing = facts_of(dataset([]))
    assert (nothing.images, nothing.width, nothing.box_sides.dtype) == (0, 1, np.float64)
