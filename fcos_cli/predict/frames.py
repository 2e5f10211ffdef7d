"""Images in memory, and the position of a frame in its clip."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Clip:
    """A video or a camera.

    rate: frames per second, the mean if it varies. total: number of frames, None if unknown. sound: whether there is
    an audio stream. live: a camera, which runs until the user stops it.
    """

    source: Path
    rate: Fraction
    total: int | None = None
    sound: bool = False
    live: bool = False


@dataclass(frozen=True)
class Moment:
    """Position of a frame in its clip. number: index from 0. time: seconds since the first frame."""

    clip: Clip
    number: int
    time: Fraction


@dataclass(frozen=True)
class Frame:
    """An image. data: uint8 [H, W, 3] RGB, the bytes of an image file, or the path of one."""

    source: Path
    data: npt.NDArray[np.uint8] | bytes | Path
    moment: Moment | None = None
