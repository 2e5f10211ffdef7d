"""Images of rare classes come more often."""

from pathlib import Path

import numpy as np
import pytest

from fcos_cli.data.repeat import draw_epoch, epoch_length, image_shares, repeat_factors
from fcos_cli.data.samples import Sample
from fcos_cli.data.training_set import EpochBatches


def sample(*classes: int, ignored: tuple[int, ...] = ()) -> Sample:
    every = [*classes, *ignored]
    return Sample(
        image=Path("a.png"),
        image_id=1,
        width=10,
        height=10,
        boxes=np.tile(np.array([[1, 1, 5, 5]], np.float32), (len(every), 1)),
        classes=np.array(every, np.int64),
        ignore=np.arange(len(every)) >= len(classes),
        areas=np.full(len(every), 16.0),
    )


# class 0 in 16 of 20 images, class 1 in 4, class 2 in 1
SAMPLES = [*(sample(0, 0) for _ in range(14)), sample(0, 1), sample(0, 1, 2), *(sample(1) for _ in range(2)), sample()]
SAMPLES += [sample(ignored=(2,))]


def test_shares_count_images_not_boxes() -> None:
    assert image_shares(SAMPLES, classes=4).tolist() == [0.8, 0.2, 0.05, 0]


def test_an_image_has_the_largest_factor_of_its_classes() -> None:
    factors = repeat_factors(SAMPLES, classes=4, threshold=0.45)
    common, with_1, with_2 = 1.0, 1.5, 3.0  # √(0.45 / 0.2), √(0.45 / 0.05)
    assert factors.tolist() == pytest.approx([common] * 14 + [with_1, with_2, with_1, with_1, common, common])
    assert repeat_factors(SAMPLES, classes=4, threshold=0.01).tolist() == [1.0] * 20


def test_images_come_as_often_as_their_factors_say() -> None:
    factors = repeat_factors(SAMPLES, classes=4, threshold=0.3)
    length = epoch_length(factors)
    assert length == int(factors.sum())
    counts = np.zeros(len(factors))
    for seed in range(500):
        drawn = draw_epoch(factors, random=np.random.default_rng(seed))
        assert len(drawn) == length
        counts += np.bincount(drawn, minlength=len(factors))
    assert counts / 500 == pytest.approx(factors, abs=0.08)


def test_factors_of_one_give_every_image_once() -> None:
    ones = np.ones(9)
    for seed in range(5):
        assert sorted(draw_epoch(ones, random=np.random.default_rng(seed)).tolist()) == list(range(9))


def test_batches_repeat_images_with_other_augmentation() -> None:
    factors = np.array([3.0, 1.0, 1.0, 1.0])
    batches = list(EpochBatches(4, batch=2, seed=0, epoch=0, repeats=factors))
    assert len(batches) == 3
    keys = [key for batch in batches for key in batch]
    assert sorted(key.number for key in keys) == [0, 0, 0, 1, 2, 3]
    assert len({key.seed for key in keys}) == 6
