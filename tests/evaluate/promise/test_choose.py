"""The promise by simulation: many val splits of a known population, and what is true in that population."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from fcos_cli.evaluate.promise.choose import choose, highest_level
from fcos_cli.evaluate.promise.counts import Counts
from tests.evaluate.promise.populations import GRID, Population, crowds, single

DRAWS, ERROR = 300, 0.1
WORST = DRAWS * ERROR + 3 * np.sqrt(DRAWS * ERROR * (1 - ERROR))  # broken promises that chance may add

CASES = [
    (population, kind, level, images)
    for population in (crowds, single)
    for kind, level in (("recall", 0.8), ("recall", 0.93), ("precision", 0.85), ("precision", 0.93))
    for images in (60, 250)
]


@cache
def known(make, kind: str) -> Population:
    return make(kind)


@pytest.mark.parametrize(("make", "kind", "level", "images"), CASES)
def test_a_promise_is_broken_in_at_most_a_tenth_of_the_draws(make, kind, level, images):
    population, rng = known(make, kind), np.random.default_rng(3)
    truth, broken, broken_as_stated = population.pooled(), 0, 0
    for _ in range(DRAWS):
        choice = choose(kind, population.draw(rng, images), level=level, error=ERROR)
        if choice is not None:
            broken += truth[choice.index] < level
            broken_as_stated += population.capped(choice.index, choice.most) < level
    assert broken_as_stated <= WORST
    assert broken <= WORST  # also without the limit on full images


@pytest.mark.parametrize("kind", ["recall", "precision"])
def test_the_thresholds_that_val_itself_suggests_break_it_far_more_often(kind):
    """So the simulation can fail: the best threshold on val does not keep the promise."""
    population, rng, broken = known(crowds, kind), np.random.default_rng(3), 0
    for _ in range(DRAWS):
        reached = np.flatnonzero(population.draw(rng, 60).pooled >= 0.9)
        index = reached.max() if kind == "recall" else reached.min()
        broken += population.pooled()[index] < 0.9
    assert broken > 1.5 * WORST


@pytest.mark.parametrize(("kind", "level"), [("recall", 0.9), ("precision", 0.93)])
@pytest.mark.parametrize("make", [crowds, single])
def test_many_images_give_almost_the_best_threshold(make, kind, level):
    population, rng = known(make, kind), np.random.default_rng(4)
    keeping = np.flatnonzero(population.pooled() >= level)
    best = GRID[keeping.max() if kind == "recall" else keeping.min()]
    chosen = [choose(kind, population.draw(rng, 5000), level=level, error=ERROR) for _ in range(10)]
    assert all(choice is not None for choice in chosen)
    assert np.mean([abs(choice.threshold - best) for choice in chosen if choice]) < 0.06


def test_perfect_results_are_enough_from_about_fifty_images():
    # each image multiplies the capital by 1 + 0.9/0.95·0.05 = 1.0474: 50 of them make 10; the first tenth makes nothing
    def perfect(images: int) -> Counts:
        ones = np.ones((images, len(GRID)), np.int64)
        return Counts(GRID, ones, ones)

    assert choose("recall", perfect(54), level=0.95, error=ERROR) is None
    choice = choose("recall", perfect(56), level=0.95, error=ERROR)
    assert choice is not None
    assert (choice.threshold, choice.most, choice.images) == (GRID[-1], 1, 56)
    assert highest_level("recall", perfect(56), error=ERROR) == 0.95
    precision = choose("precision", perfect(56), level=0.95, error=ERROR)
    assert precision is not None
    assert precision.threshold == GRID[0]


def test_images_without_boxes_decide_nothing():
    ones, zeros = np.ones((60, len(GRID)), np.int64), np.zeros((500, len(GRID)), np.int64)
    counts = Counts(GRID, np.concatenate([zeros, ones]), np.concatenate([zeros, ones]))
    choice = choose("recall", counts, level=0.95, error=ERROR)
    assert choice is not None
    assert choice.images == 60
    for few in (counts.right[:500], counts.right[:501]):
        assert choose("recall", Counts(GRID, few, few), level=0.1, error=ERROR) is None
        assert highest_level("recall", Counts(GRID, few, few), error=ERROR) == 0


def test_the_highest_level_can_be_promised_and_the_next_cannot():
    counts = known(crowds, "recall").draw(np.random.default_rng(5), 300)
    highest = highest_level("recall", counts, error=ERROR)
    assert 0.8 < highest < counts.pooled[0]
    assert choose("recall", counts, level=highest, error=ERROR) is not None
    assert choose("recall", counts, level=highest + 0.01, error=ERROR) is None


def test_the_highest_level_is_below_the_one_that_failed():
    counts = known(crowds, "recall").draw(np.random.default_rng(5), 300)
    assert [highest_level("recall", counts, error=ERROR, below=level) for level in (0.7, 0.705, 0.57, 0.07)] == [
        *(0.69, 0.7, 0.56, 0.06)
    ]


def test_a_stricter_confidence_costs_recall():
    counts = known(crowds, "precision").draw(np.random.default_rng(5), 400)
    thresholds = [choose("precision", counts, level=0.9, error=error) for error in (0.1, 0.01)]
    assert all(thresholds)
    assert thresholds[0].threshold < thresholds[1].threshold
