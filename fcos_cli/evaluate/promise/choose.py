"""Choose a score threshold at which a recall or a precision can be promised for new images.

The guarantee. Let the images of val and the new ones be independent draws from the same source. Then, with a
probability of at least 1 - δ over the choice of val, either no threshold is returned, or the one returned has, over all
new images,

    expected number of right boxes per image  ≥  level · expected number of boxes per image,

where an image with more than M boxes counts as M of them, in the same proportion. It is the pooled recall (or
precision), a ratio of two means. The boxes within an image may depend on each other in any way: an image is one draw.
M is needed because a single image with unboundedly many missed boxes could undo any promise.

The method is Learn then Test (Angelopoulos et al., arXiv:2110.01052) with a split fixed sequence:

- Images are shuffled with a fixed seed. The first tenth sets M, the order of the thresholds and the first stakes of
  the test. The others decide.
- Thresholds are tested one after the other at the full δ until one fails. The last one that passed is returned. A
  false promise would need the first wrong threshold of the sequence to pass, so testing many costs nothing.
- Recall falls as the threshold rises: the sequence goes from the lowest threshold up, towards fewer false positives.
  Precision mostly rises with it, but too few detections are left at high ones: the sequence starts where the first
  tenth suggests the clearest success, and goes down, towards more detections.
- The test of one threshold is `betting`: an image gains w·(right - level·total), at least -level·M, where w is
  min(1, M / total).
- M is a multiple of the mean number of boxes, since few images cannot promise much if one may count for many. The
  multiple grows with the number of images, until M is the largest number of the first tenth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcos_cli.evaluate.matches import Ints
from fcos_cli.evaluate.promise.betting import Floats, largest_capital
from fcos_cli.evaluate.promise.counts import Counts, Kind

KNOWN_SHARE = 0.1
SEED = 0
LEAST_MULTIPLE = 1.5  # of the mean number of boxes


@dataclass(frozen=True)
class Choice:
    """A threshold, 0…1, with its index in the counts. most: M, boxes that an image counts as at most. images: those
    that have boxes, or are used for precision.
    """

    threshold: float
    index: int
    most: int
    images: int


def choose(kind: Kind, counts: Counts, *, level: float, error: float) -> Choice | None:
    """Return the best threshold that keeps `level`, 0…1, with confidence 1 - `error`, or None if none is shown to."""
    games = _Games.of(counts)
    if games is None:
        return None
    order = games.order(kind, level)
    passed = games.capital(level, error)[order] >= 1 / error
    if not passed[:1].any():
        return None
    last = order[int(np.argmin(passed)) - 1 if not passed.all() else -1]
    return Choice(float(counts.thresholds[last]), int(last), int(games.most[last]), len(games.right))


def highest_level(kind: Kind, counts: Counts, *, error: float, below: float = 1.0) -> float:
    """Return the highest level below `below`, in whole hundredths, that `choose` finds a threshold for; 0 if none.

    A level can fail where a higher one passes, so `below` is the one that failed.
    """
    low, high = 0, int(np.ceil(round(100 * below, 9)))
    while high - low > 1:
        middle = (low + high) // 2
        if choose(kind, counts, level=middle / 100, error=error) is None:
            high = middle
        else:
            low = middle
    return low / 100


@dataclass(frozen=True)
class _Games:
    """right, total: float64 [N, T], shuffled; images with more than `most` boxes are scaled to it. most: M [T].

    known: how many of the first images set M, the order of the thresholds and the first stakes; the others decide.
    """

    right: Floats
    total: Floats
    most: Floats
    known: int

    @classmethod
    def of(cls, counts: Counts) -> _Games | None:
        """None if there are fewer than two images with boxes."""
        used = np.flatnonzero(counts.total.any(axis=1))
        if len(used) < 2:
            return None
        used = np.random.default_rng(SEED).permutation(used)
        right, total = counts.right[used].astype(np.float64), counts.total[used].astype(np.float64)
        known = int(np.ceil(KNOWN_SHARE * len(used)))
        multiple = max(LEAST_MULTIPLE, np.sqrt(known) / 2)
        most = np.minimum(np.ceil(multiple * total[:known].mean(axis=0)), total[:known].max(axis=0))
        most = np.maximum(most, 1.0)
        scale = np.minimum(1.0, most / np.maximum(total, 1.0))
        return cls(right * scale, total * scale, most, known)

    def gains(self, level: float) -> Floats:
        return self.right - level * self.total

    def capital(self, level: float, error: float) -> Floats:
        return largest_capital(self.gains(level), level * self.most, known=self.known, error=error)

    def order(self, kind: Kind, level: float) -> Ints:
        """Indices of the thresholds in the order of the tests, from the known images only."""
        if kind == "recall":
            return np.arange(len(self.most))
        return np.arange(self._start(level), -1, -1)

    def _start(self, level: float) -> int:
        """The threshold with the clearest evidence: the highest ratio of the sum of gains to its deviation.

        One imaginary image is added that loses half of the worst, so that a chance success on few does not win.
        """
        gains = self.gains(level)[: self.known]
        imagined = -level * self.most / 2
        total, squares = gains.sum(axis=0) + imagined, (gains**2).sum(axis=0) + imagined**2
        return int(np.argmax(total / np.sqrt(squares)))
