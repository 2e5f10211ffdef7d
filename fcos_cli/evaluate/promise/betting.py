"""A test whether the mean of bounded numbers is at least zero, with a guarantee for every number of images.

Source: I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024),
arXiv:2010.09686. A player starts with a capital of 1 and stakes part of it on each image in turn: an image with gain
g multiplies the capital by 1 + λ·g. The stake λ ≥ 0 depends on earlier images only, and is so small that no image
can take everything. If the mean gain is below zero, the game is against the player, and the capital ever reaches 1/δ
with a probability of at most δ (Ville's inequality). Thus a capital of 1/δ shows, with confidence 1 - δ, that the mean
is not below zero. Nothing is assumed about how the gains are distributed, only that they are independent and bounded
from below.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LARGEST_LOSS = 0.9  # share of the capital that the worst possible image may take


def largest_capital(gains: Floats, worst: Floats, *, known: int, error: float) -> Floats:
    """Return the largest capital that each of T games reaches: float64 [T].

    gains [N, T]: of the images, in the order in which they are played. worst [T], > 0: no gain can be below -worst.
    known: the first images, at least one, which only teach the size of the first stake. error: δ, 0…1.
    """
    stakes = _stakes(gains, worst, known=known, error=error)
    growth = np.cumsum(np.log1p(stakes * gains[known:]), axis=0)
    return np.asarray(np.exp(np.minimum(growth.max(axis=0, initial=0.0), 700.0)))


def _stakes(gains: Floats, worst: Floats, *, known: int, error: float) -> Floats:
    """λ of each image after the known ones, from the variance of those before it: float64 [N - known, T].

    It is the best fixed stake for a mean near zero (equation 26 of the paper). The variance begins as if one image
    with a deviation of half the worst loss had been seen, so that a few equal images do not lead to high stakes.
    """
    before = np.arange(known, len(gains))[:, None]  # images seen when each stake is chosen
    total, squares = np.cumsum(gains, axis=0)[known - 1 : -1], np.cumsum(gains**2, axis=0)[known - 1 : -1]
    deviations = np.maximum(squares - total**2 / before, 0.0) + worst**2 / 4
    variance = deviations / (before + 1)
    best = np.sqrt(2 * np.log(1 / error) / (len(before) * variance))
    return np.asarray(np.minimum(best, LARGEST_LOSS / worst))
