"""A large known population of images with ground truth and detections, to draw val splits from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcos_cli.evaluate.promise.counts import Counts, threshold_grid

GRID = threshold_grid(0.05)


@dataclass(frozen=True)
class Population:
    """right, total: int64 [N, T] of all images, for recall or precision."""

    right: np.ndarray
    total: np.ndarray

    def draw(self, rng, images: int) -> Counts:
        """A val split of this many images."""
        rows = rng.integers(0, len(self.right), images)
        return Counts(GRID, self.right[rows], self.total[rows])

    def pooled(self) -> np.ndarray:
        """The true recall or precision at each threshold [T]."""
        return self.right.sum(0) / np.maximum(self.total.sum(0), 1)

    def capped(self, index: int, most: int) -> float:
        """The same where an image counts for at most `most` boxes."""
        weight = np.minimum(1, most / np.maximum(self.total[:, index], 1))
        return float((weight * self.right[:, index]).sum() / (weight * self.total[:, index]).sum())


def crowds(kind: str, *, images: int = 20_000) -> Population:
    """Images with 0 to 60 boxes. Those of an image share its difficulty, which is greater in full ones; some boxes are
    never found. Background detections, also of very different numbers, have lower scores.
    """
    rng = np.random.default_rng(1)
    counts = np.minimum(rng.negative_binomial(2, 0.25, images), 60)
    difficulty = rng.normal(2.2, 1.0, images) - 0.02 * counts
    owner = np.repeat(np.arange(images), counts)
    scores = 1 / (1 + np.exp(-(difficulty[owner] + rng.normal(0, 0.8, len(owner)))))
    scores[rng.random(len(owner)) < 0.015] = -1
    background = np.repeat(np.arange(images), rng.poisson(np.exp(rng.normal(0.3, 0.7, images))))
    noise = rng.beta(1.2, 5, len(background))
    found = reached(owner, scores, images)
    if kind == "recall":
        return Population(found, np.repeat(counts[:, None], len(GRID), axis=1))
    return Population(found, found + reached(background, noise, images))


def single(kind: str, *, images: int = 20_000) -> Population:
    """One box or one detection per image, whose chance to be right falls or rises slowly with the threshold."""
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 1, images)
    everything = np.ones((images, len(GRID)), np.int64)
    if kind == "recall":
        return Population((scores[:, None] ** 0.3 >= GRID).astype(np.int64), everything)
    shown = (scores[:, None] >= GRID).astype(np.int64)
    return Population(shown * (rng.random(images) < 0.8 + 0.2 * scores)[:, None], shown)


def reached(owner, scores, images: int) -> np.ndarray:
    """How many scores of each image are at or above each threshold [N, T]."""
    return np.stack([np.bincount(owner[scores >= limit], minlength=images) for limit in GRID], axis=1)
