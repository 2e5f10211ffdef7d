"""The input shapes that an engine is built for: TensorRT's optimization profile, checked before the build."""

from __future__ import annotations

from dataclasses import dataclass

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.runtime.graph_io import SMALLEST
from fcos_cli.runtime.tensorrt.sidecar import Shape

BATCHES = (1, 1, 8)

SHAPES = ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (1, 1))
"""Width and height of usual images, relative to each other."""

Dimensions = tuple[int | None, int | None, int | None]
"""Batch, height and width of a graph's input; None = dynamic."""


@dataclass(frozen=True)
class Profile:
    """The engine accepts inputs from `min` to `max` and is fastest at `opt`. Raises UsageError for invalid values."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        for side, low, middle, high in zip(Shape._fields, self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= middle <= high:
                raise _profile_error(f"the {side} has min {low}, opt {middle}, max {high}; use 1 <= min <= opt <= max")

    @classmethod
    def default(cls, resize: ResizeRule, dimensions: Dimensions = (None, None, None)) -> Profile:
        """Profile for images resized by `resize`: batches of 1 to 8, the letterbox size or the canvases of the rule.

        If the shorter side is scaled, canvas sides range from SMALLEST to the rule's longest side, in steps of its
        divisor, and `opt` is the canvas of a 4:3 image. Very elongated images, whose canvas would be narrower than
        SMALLEST, do not fit. Fixed `dimensions` of the graph stay as they are.
        """
        if resize.mode == "letterbox":
            heights, widths = ((side,) * 3 for side in resize.size)
        else:
            short, long = (_round_up(side, resize.divisor) for side in resize.size)
            low, high = _round_up(SMALLEST, resize.divisor), _round_up(max(long, SMALLEST), resize.divisor)
            wide = _round_up(min(resize.size[0] * 4 / 3, resize.size[1]), resize.divisor)
            heights, widths = (low, max(short, low), high), (low, max(wide, low), high)
        columns = [
            (fixed,) * 3 if fixed is not None else free
            for fixed, free in zip(dimensions, (BATCHES, heights, widths), strict=True)
        ]
        return cls(*(Shape(*row) for row in zip(*columns, strict=True)))

    def check(self, dimensions: Dimensions, resize: ResizeRule) -> None:
        """Raise UsageError if the profile contradicts fixed dimensions or excludes the model's own images.

        Where images have any shape, those of one of SHAPES have to fit.
        """
        for side, fixed, values in zip(
            Shape._fields, dimensions, zip(self.min, self.opt, self.max, strict=True), strict=True
        ):
            if fixed is not None and set(values) != {fixed}:
                raise _profile_error(
                    f"the graph has a fixed {side} of {fixed}, but the profile has {min(values)} to {max(values)}"
                )
        low, high = self.min, self.max
        if resize.mode == "letterbox":
            height, width = resize.size
            if not (low.height <= height <= high.height and low.width <= width <= high.width):
                raise _profile_error(f"the model's images are {height} x {width} pixels, outside {low} to {high}")
            return
        canvases = [resize.canvas([resize.geometry(*shape)]) for shape in SHAPES]
        padded = [(max(height, SMALLEST), max(width, SMALLEST)) for height, width in canvases]
        if not any(low.height <= h <= high.height and low.width <= w <= high.width for h, w in padded):
            height, width = canvases[0]
            raise _profile_error(
                f"no usual image shape fits: 4:3 images are {height} x {width} pixels, outside {low} to {high}"
            )


def _round_up(side: float, divisor: int) -> int:
    return int(-(-side // divisor) * divisor)


def _profile_error(reason: str) -> UsageError:
    return UsageError(f"invalid engine profile: {reason}", where="profile", remedy="change or omit the profile")
