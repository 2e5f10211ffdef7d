"""Weights and pictures that need no file: every tensor follows from its name and shape, to the last bit."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def uniform(name: str, shape: Sequence[int]) -> Tensor:
    """float32 in -1…1, a function of name and shape only. NumPy keeps its bit generators' streams for ever."""
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw(max(math.prod(shape), 1))
    values = (bits >> 11).astype(np.float64) * 2.0**-52 - 1
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def seeded_weight(name: str, shape: Sequence[int]) -> Tensor:
    """Values of plausible size: convolutions keep the variance of what goes in, norms and scales lie around 1.

    The body's convolutions reduce it to a hundredth and its norms' variances lie there: an eps of 1e-5 then shows.
    Those that give the offsets of deformable ones do not, so taps move by about a pixel.
    """
    small = 0.1 if re.match(r"backbone\.(?!fpn|top_block)(?!.*offset\.weight$)", name) else 1.0
    if name.endswith("num_batches_tracked"):
        return torch.zeros(tuple(shape), dtype=torch.int64)
    value = uniform(name, shape)
    if len(shape) == 4:
        return value * (small * math.sqrt(3 / math.prod(shape[1:])))
    if name.endswith("running_var"):
        return (1 + value / 2) * small**2
    if name.endswith(".scale") or (name.endswith(".weight") and len(shape) == 1):
        return 1 + value / 2
    return value / 10


def seeded_state(keys: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Names and shapes of a state dict (one of the `keys_*.json`) → a whole network's weights."""
    return {name: seeded_weight(name, shape) for name, shape in keys.items()}


def seeded_picture(height: int, width: int) -> Tensor:
    """A normalised picture [1, 3, height, width], values -2…2."""
    return uniform(f"picture {height}x{width}", (1, 3, height, width)) * 2
