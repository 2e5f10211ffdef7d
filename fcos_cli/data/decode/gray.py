"""Gray with more than 8 bits → 8 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FULL_16 = 65535
_FLOAT32_MAX = float(np.finfo(np.float32).max)
"""Mapping software writes it, with either sign, where nothing was measured."""


def scale_gray(
    pixels: npt.NDArray[np.generic],
    *,
    white: int | None = None,
    nodata: float | None = None,
    white_is_zero: bool = False,
) -> npt.NDArray[np.uint8]:
    """Convert gray [H, W], integers or floats, to uint8 [H, W].

    white: the value that becomes 255, while 0 stays 0; rounded. If it is None, unsigned 16-bit pixels have 65535, and
    for others, whose files do not say which range they use, it is inferred from the values: if all are within 0…1
    (floats), 0…255 or 0…65535, that range is used; otherwise the values are stretched from minimum to maximum.
    Infinities become the ends of the range.

    NaN, `nodata` and the largest float32 value of either sign are pixels without a measurement. They do not count
    for the range, and become black. nodata applies only where the range is inferred. white_is_zero: the lowest value
    is white, the highest black.
    """
    if white is None and pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        white = FULL_16
    if white is not None:
        scaled = ((pixels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
        return 255 - scaled if white_is_zero else scaled
    values = pixels.astype(np.float64)
    empty = np.isnan(values)
    if pixels.dtype.kind == "f":
        empty |= np.isfinite(values) & (np.abs(values) >= _FLOAT32_MAX)
    if nodata is not None:
        empty |= values == float(pixels.dtype.type(nodata) if pixels.dtype.kind == "f" else nodata)
    low, high = _range(values[np.isfinite(values) & ~empty], is_float=pixels.dtype.kind == "f")
    values = np.nan_to_num(np.where(empty, low, values), posinf=high, neginf=low)
    scaled = np.rint((values - low) * (255.0 / max(high - low, 1e-30))).astype(np.uint8)
    return np.where(empty, np.uint8(0), 255 - scaled if white_is_zero else scaled)


def _range(measured: npt.NDArray[np.float64], *, is_float: bool) -> tuple[float, float]:
    """Return the values of the lowest and the highest gray level, as in `scale_gray`."""
    low, high = (float(measured.min()), float(measured.max())) if measured.size else (0.0, 1.0)
    if low >= 0 and high <= FULL_16:
        ceilings = [1.0, 255.0, float(FULL_16)] if is_float else [255.0, float(FULL_16)]
        return 0.0, next(ceiling for ceiling in ceilings if high <= ceiling)
    return low, high
