"""What the automatic settings look at: sizes, shapes and counts of a data set's images and boxes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcos_cli.data.repeat import image_shares
from fcos_cli.data.samples import Dataset, Sample

SAME_SHAPE = 1.15
"""Images have the same shape if their aspect ratios differ by at most this factor from the median."""

MOST = 0.8
"""Share of images that have to have the same shape, so that the network's input gets it."""

FEW = 20
"""Number of boxes of a class that shows what shape its objects have."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DataFacts:
    """Facts about a train split; ignored boxes do not count.

    width, height: medians, in source pixels. one_shape: whether most images have about the shape of the median.
    box_sides: √(width · height) of each box as a share of the longer side of its image, ascending, float64 [N].
    class_shares: share of the images that contain each class, float64 [C]. class_shapes: median of width / height of
    the boxes of each class, float64 [C]; NaN for those with fewer than FEW boxes, if others have more.
    """

    images: int
    width: float
    height: float
    one_shape: bool
    box_sides: Floats
    class_shares: Floats
    class_shapes: Floats

    @property
    def aspect(self) -> float:
        """The longer side of the median image relative to the shorter one."""
        return max(self.width, self.height) / min(self.width, self.height)

    @property
    def boxes(self) -> int:
        """Number of boxes."""
        return len(self.box_sides)

    def box_side(self, quantile: float) -> float:
        """A quantile (0…1) of `box_sides`; 1 without boxes."""
        return float(np.quantile(self.box_sides, quantile)) if self.boxes else 1.0


def facts_of(dataset: Dataset) -> DataFacts:
    """Facts about a split. Raises nothing: a split without images has sizes of 1."""
    samples = dataset.samples
    widths, heights = (np.array([getattr(sample, side) for sample in samples] or [1]) for side in ("width", "height"))
    aspects = np.log(widths / heights)
    sides = [
        np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1, dtype=np.float64)) / max(sample.width, sample.height)
        for sample in samples
        if len(boxes := sample.boxes[~sample.ignore])
    ]
    return DataFacts(
        images=len(samples),
        width=float(np.median(widths)),
        height=float(np.median(heights)),
        one_shape=bool(np.mean(np.abs(aspects - np.median(aspects)) <= np.log(SAME_SHAPE)) >= MOST),
        box_sides=np.sort(np.concatenate(sides)) if sides else np.zeros(0),
        class_shares=image_shares(samples, classes=len(dataset.classes)),
        class_shapes=_class_shapes(samples, classes=len(dataset.classes)),
    )


def _class_shapes(samples: Sequence[Sample], *, classes: int) -> Floats:
    found: list[list[float]] = [[] for _ in range(classes)]
    for sample in samples:
        for (x1, y1, x2, y2), label in zip(sample.boxes[~sample.ignore], sample.classes[~sample.ignore], strict=True):
            found[label].append(float((x2 - x1) / (y2 - y1)))
    least = FEW if any(len(shapes) >= FEW for shapes in found) else 1
    return np.array([np.median(shapes) if len(shapes) >= least else np.nan for shapes in found])
