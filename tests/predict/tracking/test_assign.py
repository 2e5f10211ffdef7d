"""The assignment, compared with trying everything."""

from itertools import permutations

import numpy as np
import pytest

from fcos_cli.predict.tracking.assign import assign


def best_sum(gain: np.ndarray) -> float:
    """The largest sum of gains over all partial assignments, by trying every one."""
    gain = np.clip(gain if gain.shape[0] <= gain.shape[1] else gain.T, 0, None)
    rows = range(gain.shape[0])
    return max(sum(gain[row, order[row]] for row in rows) for order in permutations(range(gain.shape[1]), len(rows)))


@pytest.mark.parametrize("kind", ["any", "sparse", "ties"])
def test_the_sum_is_that_of_trying_everything(kind):
    rng = np.random.default_rng(0)
    for _ in range(150):
        shape = tuple(rng.integers(1, 6, 2))
        gain = rng.uniform(-0.5, 1, shape)
        if kind == "sparse":
            gain[rng.random(shape) < 0.6] = 0
        if kind == "ties":
            gain = rng.integers(-1, 3, shape) / 2
        pairs = assign(gain)
        assert all(gain[pair] > 0 for pair in pairs)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert sum(gain[pair] for pair in pairs) == pytest.approx(best_sum(gain))


def test_the_sum_counts_and_not_the_best_pair():
    assert assign(np.array([[0.9, 0.8], [0.8, 0.1]])) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_nothing_to_gain_is_no_pair(shape):
    assert assign(np.zeros(shape)) == []


def test_large_ones_take_little_time_and_are_permutations():
    order = np.random.default_rng(0).permutation(300)
    gain = np.full((300, 300), 0.1)
    gain[np.arange(300), order] = 0.5
    assert assign(gain) == list(enumerate(order.tolist()))
