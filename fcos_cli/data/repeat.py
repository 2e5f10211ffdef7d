"""How often each image comes in an epoch: images of rare classes more than once, as in LVIS. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Sample

Floats = npt.NDArray[np.float64]


def image_shares(samples: Sequence[Sample], *, classes: int) -> Floats:
    """For each class, the share of images that contain it (0…1), [classes]. Ignored boxes do not count."""
    counts = np.zeros(classes)
    for sample in samples:
        counts[np.unique(sample.classes[~sample.ignore])] += 1
    return counts / max(1, len(samples))


def repeat_factors(samples: Sequence[Sample], *, classes: int, threshold: float) -> Floats:
    """How often each image comes per epoch on average, at least 1: [images].

    A class in a share f < threshold of the images gets the factor √(threshold / f); an image has the largest factor of
    its classes. Source: LVIS (Gupta et al. 2019), repeat factor sampling.
    """
    shares = image_shares(samples, classes=classes)
    of_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(shares, 1e-9)))
    return np.array([of_class[sample.classes[~sample.ignore]].max(initial=1.0) for sample in samples])


def epoch_length(factors: Floats) -> int:
    """Number of images in an epoch."""
    return int(np.floor(factors.sum() + 1e-9))


def draw_epoch(factors: Floats, *, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Indices of an epoch's images in random order, `epoch_length` of them.

    Each image comes as often as its factor says, rounded up or down at random.
    """
    ends = np.floor(np.cumsum(factors) + 1e-9 + random.random()).astype(np.int64)
    indices = np.repeat(np.arange(len(factors)), np.diff(ends, prepend=0))
    return random.permutation(indices)[: epoch_length(factors)]
