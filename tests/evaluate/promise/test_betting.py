"""The game: a case by hand, games that nobody can win, and games that are worth playing."""

from __future__ import annotations

import numpy as np
import pytest

from fcos_cli.evaluate.promise.betting import largest_capital

DRAWS = 4000


def test_three_images_by_hand():
    # One known image of gain 0.1: deviations 0 + 0.9²/4, of 1 + 1 images, so the variance is 0.10125 and the stake
    # √(2·ln 10 / (2·0.10125)) = 4.77, cut to 0.9/0.9 = 1. The capital is 1.1 after the second and 1.1² after the third.
    gains = np.array([[0.1], [0.1], [0.1]])
    assert largest_capital(gains, np.array([0.9]), known=1, error=0.1) == pytest.approx(1.21)


def test_a_stake_below_the_limit_by_hand():
    # Known gains -1 and 1: variance (2 + 1/4) / 3 = 0.75, stake √(2·ln 2 / (1·0.75)) = 1.36, cut to 0.9. With an error
    # of 0.9 it is √(2·0.10536/0.75) = 0.53, and a gain of 1 makes 1.53.
    gains = np.array([[-1.0], [1.0], [1.0]])
    assert largest_capital(gains, np.array([1.0]), known=2, error=0.5) == pytest.approx(1.9)
    assert largest_capital(gains, np.array([1.0]), known=2, error=0.9) == pytest.approx(1 + np.sqrt(0.2107210 / 0.75))


def test_the_largest_capital_counts_not_the_last():
    gains = np.array([[0.1], [0.1], [-0.9]])
    assert largest_capital(gains, np.array([0.9]), known=1, error=0.1) == pytest.approx(1.1)
    assert largest_capital(-gains[:2], np.array([0.9]), known=1, error=0.1) == pytest.approx(1)  # the start


@pytest.mark.parametrize("chance", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("images", [30, 300])
def test_a_fair_game_rarely_reaches_the_capital_that_is_taken_for_proof(chance, images):
    # a loss of 1 with this chance, else the gain that makes the mean zero: rare large losses are the hardest case
    rng = np.random.default_rng(0)
    gains = np.where(rng.random((images, DRAWS)) < chance, -1.0, chance / (1 - chance))
    for error in (0.1, 0.3):
        reached = largest_capital(gains, np.ones(DRAWS), known=3, error=error) >= 1 / error
        assert reached.mean() <= error + 3 * np.sqrt(error / DRAWS)


def test_a_game_in_ones_favour_is_won():
    rng = np.random.default_rng(0)
    gains = np.where(rng.random((300, DRAWS)) < 0.05, -0.9, 0.1)  # recall 0.95 against 0.9
    assert (largest_capital(gains, np.full(DRAWS, 0.9), known=30, error=0.1) >= 10).mean() > 0.8
    assert (largest_capital(gains, np.full(DRAWS, 0.9), known=30, error=1e-9) >= 1e9).mean() < 0.1
