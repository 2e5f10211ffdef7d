"""Which sizes of input an engine is built for: TensorRT's optimisation profile, checked before it is built."""

from __future__ import annotations

from dataclasses import dataclass

from fcos_cli.data.geometry import ResizeRule
from fcos_cli.errors import UsageError
from fcos_cli.runtime.graph_io import SMALLEST
from fcos_cli.runtime.tensorrt.sidecar import Shape

BATCHES = (1, 1, 8)

Dimensions = tuple[int | None, int | None, int | None]
"""Batch, height, width of a graph's input; None = free."""


@dataclass(frozen=True)
class Profile:
    """Inputs from `min` to `max` are taken, those of `opt` are the fastest. Wrong values raise UsageError."""

    min: Shape
    opt: Shape
    max: Shape

    def __post_init__(self) -> None:
        for side, low, middle, high in zip(Shape._fields, self.min, self.opt, self.max, strict=True):
            if not 1 <= low <= middle <= high:
                raise _wrong(f"the {side} has min {low}, opt {middle}, max {high}; they must rise, and from 1")

    @classmethod
    def default(cls, resize: ResizeRule, dimensions: Dimensions = (None, None, None)) -> Profile:
        """What pictures placed by `resize` need: batches of 1 to 8, the letterbox's size or every canvas of the rule.

        Where the shorter side is scaled, a canvas has sides from SMALLEST (a very long picture) to the rule's longest,
        in steps of its divisor; opt is the canvas of a 4:3 picture. Fixed `dimensions` of the graph stay as they are.
        """
        if resize.mode == "letterbox":
            heights, widths = ((side,) * 3 for side in resize.size)
        else:
            short, long = (_rounded(side, resize.divisor) for side in resize.size)
            low, high = _rounded(SMALLEST, resize.divisor), _rounded(max(long, SMALLEST), resize.divisor)
            wide = _rounded(min(resize.size[0] * 4 / 3, resize.size[1]), resize.divisor)
            heights, widths = (low, max(short, low), high), (low, max(wide, low), high)
        columns = [
            (fixed,) * 3 if fixed is not None else free
            for fixed, free in zip(dimensions, (BATCHES, heights, widths), strict=True)
        ]
        return cls(*(Shape(*row) for row in zip(*columns, strict=True)))

    def check(self, dimensions: Dimensions, resize: ResizeRule) -> None:
        """Raises UsageError where the profile leaves what the graph fixes, or its own pictures do not fit into it."""
        for side, fixed, values in zip(
            Shape._fields, dimensions, zip(self.min, self.opt, self.max, strict=True), strict=True
        ):
            if fixed is not None and set(values) != {fixed}:
                raise _wrong(f"the graph has a fixed {side} of {fixed}, the profile {min(values)} to {max(values)}")
        low, high = self.min, self.max
        if resize.mode == "letterbox":
            height, width = resize.size
            if not (low.height <= height <= high.height and low.width <= width <= high.width):
                raise _wrong(f"the model's pictures are {height} x {width} pixels, outside of {low} to {high}")
        elif max(high.height, high.width) < _rounded(resize.size[0], resize.divisor):
            raise _wrong(f"the shorter side of the model's pictures is {resize.size[0]} pixels, more than {high} holds")


def _rounded(side: float, divisor: int) -> int:
    return int(-(-side // divisor) * divisor)


def _wrong(what: str) -> UsageError:
    return UsageError(
        f"the engine's profile does not work: {what}", where="profile", remedy="change it or leave it out"
    )
