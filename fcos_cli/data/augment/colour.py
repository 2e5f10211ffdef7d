"""Random brightness, contrast, saturation and hue as one linear map of RGB: a single pass over the pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.125, 0.5, 0.5, 0.05
"""Largest change of each factor from 1, and of the hue in turns. Source: SSD's photometric distortion."""

GREY = np.array([0.299, 0.587, 0.114])
"""Luma of R, G, B (ITU-R BT.601)."""

Matrix = npt.NDArray[np.float64]


def distort_colours(image: Tensor, *, random: np.random.Generator) -> Tensor:
    """Change the colors of an image, uint8 [3, H, W]; each of the four changes with probability 0.5."""
    use = random.random(4) < 0.5
    brightness, contrast, saturation, hue = np.where(use, random.uniform(-1, 1, 4), 0.0).tolist()
    matrix = rotate_hue(HUE * hue) @ saturate(1 + SATURATION * saturation) * (1 + BRIGHTNESS * brightness)
    factor = 1 + CONTRAST * contrast
    pixels = image.permute(1, 2, 0).reshape(-1, 3).float()  # no copy for an image in channels last
    middle = float(GREY @ matrix @ pixels.mean(0).double().numpy())  # contrast changes around the mean grey
    changed = torch.addmm(
        torch.full((3,), (1 - factor) * middle + 0.5), pixels, torch.from_numpy(factor * matrix.T).float()
    )
    return changed.clamp_(0, 255).byte().view(*image.shape[1:], 3).permute(2, 0, 1)


def saturate(factor: float) -> Matrix:
    """RGB → RGB with `factor` times the saturation; the luma stays."""
    return factor * np.eye(3) + (1 - factor) * np.outer(np.ones(3), GREY)


def rotate_hue(turns: float) -> Matrix:
    """RGB → RGB with the hue rotated around the grey axis; grey and mean brightness stay."""
    angle = 2 * math.pi * turns
    axis = np.full(3, 1 / math.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * np.outer(axis, axis)
