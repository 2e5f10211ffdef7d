"""Decoded images in memory that all data loader processes share, so that each file is decoded once per run."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from fcos_cli.data.samples import Sample
from fcos_cli.hardware import available_memory

START_METHOD = "fork" if sys.platform == "linux" else None
"""How data loader processes start; None: as Python does by default. Only forked ones inherit the cache, and Python
3.14 would no longer fork by default."""

SHARE_OF_MEMORY = 0.25
"""Share of the available memory that the cache may use."""

Pixels = npt.NDArray[np.uint8]


class ImageCache:
    """Slots for images [H, W, 3] uint8 in anonymous shared memory, which forked processes inherit.

    Each slot is filled by whichever process first needs its image. Two processes that fill the same slot at the same
    time write the same bytes.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self.shapes = shapes
        self.ends = list(accumulate(3 * height * width for height, width in shapes))
        self.memory = mmap.mmap(-1, max(1, self.ends[-1] + len(shapes)))
        self.buffer: Pixels = np.frombuffer(self.memory, np.uint8)

    @property
    def size(self) -> int:
        """Bytes that the cache takes once it is full."""
        return len(self.buffer)

    @classmethod
    def for_samples(cls, samples: Sequence[Sample], *, longest: int, processes: int = 1) -> ImageCache | None:
        """A cache for images whose longer side is reduced to `longest` pixels, or None if they do not fit in memory.

        processes: number of training processes on this machine, each of which has a cache.
        """
        if not samples or START_METHOD != "fork":
            return None
        shapes = [reduced_size(sample.height, sample.width, longest=longest) for sample in samples]
        needed = sum(3 * height * width for height, width in shapes)
        return cls(shapes) if needed * processes < SHARE_OF_MEMORY * available_memory() else None

    def get(self, index: int, load: Callable[[], Pixels]) -> Pixels:
        """The image of a slot, from memory or else from `load`. An image of another shape is not stored."""
        height, width = self.shapes[index]
        end, flag = self.ends[index], self.ends[-1] + index
        slot = self.buffer[end - 3 * height * width : end]
        if self.buffer[flag]:
            return slot.reshape(height, width, 3).copy()
        image = load()
        if image.shape == (height, width, 3):
            slot[:] = image.reshape(-1)
            self.buffer[flag] = 1
        return image


def reduced_size(height: int, width: int, *, longest: int) -> tuple[int, int]:
    """(height, width) of an image after its longer side is reduced to at most `longest` pixels."""
    factor = min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
