"""Images in memory, and the position of a frame in its clip."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from fcos_cli.predict.sources.address import Source


@dataclass(frozen=True)
class Clip:
    """A video, a camera or a stream.

    rate: frames per second, the mean if it varies. total: number of frames, None if unknown. sound: whether there is an
    audio stream. live: a camera or a stream, which runs until the user stops it. pixel_aspect: width of a pixel of the
    upright frame divided by its height; players stretch the frames by it.
    """

    source: Source
    rate: Fraction
    total: int | None = None
    sound: bool = False
    live: bool = False
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class Moment:
    """Position of a frame in its clip. number: index from 0. time: seconds since the first frame."""

    clip: Clip
    number: int
    time: Fraction


class FrameClock:
    """Times of the frames of a clip in seconds, strictly increasing from 0 even if the file is damaged."""

    def __init__(self, rate: Fraction) -> None:
        self.step = 1 / rate
        self.time = -self.step
        """Time of the latest frame; negative before the first."""
        self._start: Fraction | None = None

    @property
    def end(self) -> Fraction:
        """Time at which the latest frame ends."""
        return self.time + self.step

    def advance(self, timestamp: Fraction | None) -> Fraction:
        """Return the time of the next frame: one step later if its timestamp is missing or not later."""
        if self._start is None:
            self._start = timestamp
        elapsed = None if timestamp is None or self._start is None else timestamp - self._start
        self.time = self.end if elapsed is None or elapsed <= self.time else elapsed
        return self.time


@dataclass(frozen=True)
class Frame:
    """An image. data: uint8 [H, W, 3] RGB, the bytes of an image file, the path of one, or one that can be read."""

    source: Source
    data: npt.NDArray[np.uint8] | bytes | Path | BinaryIO
    moment: Moment | None = None
