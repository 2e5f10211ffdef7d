"""What the pipeline takes besides files: pictures in memory, and where a frame stands in its clip."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Clip:
    """A video or a camera.

    rate: frames per second, the mean where it varies. total: frames, None where nobody knows. sound: whether it has
    any. live: a camera, which ends when the user says so.
    """

    source: Path
    rate: Fraction
    total: int | None = None
    sound: bool = False
    live: bool = False


@dataclass(frozen=True)
class Moment:
    """Where a frame stands in its clip: `number` counts from 0, `time` is in seconds from the first frame's."""

    clip: Clip
    number: int
    time: Fraction


@dataclass(frozen=True)
class Frame:
    """A picture in memory: uint8 [H, W, 3] RGB, or the bytes of a picture file; or that file's path."""

    source: Path
    data: npt.NDArray[np.uint8] | bytes | Path
    moment: Moment | None = None
