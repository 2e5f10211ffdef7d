"""Training augmentation: an image and its boxes are cropped, resized, flipped, turned and recolored in one go."""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from fcos_cli.data.augment.colour import distort_colours
from fcos_cli.data.augment.mosaic import CLOSER
from fcos_cli.data.augment.placement import MIN_VISIBLE, Boxes, Region, crop, place, zoom_out

Drawn = tuple[Tensor, Tensor, Tensor, Tensor]
"""What a training example is made of: image, boxes, classes and ignore, as `Augmentation` returns them."""

LEAST_TURNED = 0.75
"""Least scale of an image after a quarter turn, relative to its usual one. 4:3 images fit whole at this scale."""


class Augmentation:
    """Turn an image and its boxes into a training example of exactly `size` = (height, width).

    Multi-scale training happens inside a fixed canvas (large-scale jitter): the image is resized to `scale` times the
    canvas, then cropped or padded to it at a random position. A constant shape for the whole run is fastest on a CPU.
    All of this is one linear map, so that pixels are resampled once. mosaic: probability that four images take the
    place of one; mixup: that a second one is laid over it. The caller joins them.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        flip: float,
        turn: float,
        crop: float,
        zoom_out: float,
        zoom_out_max: float,
        scale: tuple[float, float],
        colour: float,
        mosaic: float = 0.0,
        mixup: float = 0.0,
        fill: tuple[float, float, float] = (114, 114, 114),
    ) -> None:
        self.size, self.scale = size, scale
        self.flip, self.turn, self.colour = flip, turn, colour
        self.mosaic, self.mixup = mosaic, mixup
        self.crop, self.zoom_out, self.zoom_out_max = crop, zoom_out, zoom_out_max
        self.fill = torch.tensor([round(value) for value in fill], dtype=torch.uint8)

    def quarter(self, size: tuple[int, int]) -> Augmentation:
        """The same for one image of a mosaic."""
        other = copy(self)
        other.size, other.scale, other.mosaic = size, (self.scale[0], self.scale[1] * CLOSER), 0.0
        return other

    def _scale_of(self, turns: int, *, height: int, width: int) -> tuple[float, float]:
        """The range of scales; larger if an image of `height` × `width`, which fits into the canvas after a quarter
        turn, would become smaller than LEAST_TURNED of its usual size. A part of it is then cut off.
        """
        upright = min(self.size[0] / height, self.size[1] / width)
        sideways = min(self.size[1] / height, self.size[0] / width)
        grow = max(1.0, LEAST_TURNED * upright / sideways) if turns % 2 else 1.0
        return self.scale[0] * grow, self.scale[1] * grow

    def __call__(
        self, image: Tensor, boxes: Tensor, classes: Tensor, ignore: Tensor, *, random: np.random.Generator
    ) -> Drawn:
        """Augment one example.

        image: uint8 [3, h, w]; boxes: float32 [N, 4] xyxy in its pixels; classes: int64 [N]; ignore: bool [N]. Returns
        the same, with image uint8 [3, H, W] and boxes in its pixels. Boxes of less than a pixel are dropped.
        """
        truth: Boxes = boxes.numpy()
        chances = random.random(5)
        turns = int(random.integers(1, 4)) if chances[0] < self.turn else 0
        canvas = self.size if turns % 2 == 0 else (self.size[1], self.size[0])
        region = Region(0, 0, image.shape[2], image.shape[1])
        if chances[1] < self.zoom_out:
            region = zoom_out(region, largest=self.zoom_out_max, random=random)
        if chances[2] < self.crop:
            region = crop(region, truth, random=random)
        height, width = image.shape[1:]
        scale = self._scale_of(turns, height=height, width=width)
        placement = place(region, image=(height, width), canvas=canvas, scale=scale, random=random)
        truth, visible = placement.boxes(truth)
        (x1, y1, x2, y2), (u1, v1, u2, v2) = placement.source, placement.target
        drawn = self.fill.expand(*canvas, 3).clone().permute(2, 0, 1)
        if not placement.is_empty:
            part = resize(image[:, y1:y2, x1:x2], [v2 - v1, u2 - u1], antialias=True)
            drawn[:, v1:v2, u1:u2] = distort_colours(part, random=random) if chances[4] < self.colour else part
        if chances[3] < self.flip:
            drawn, truth = drawn.flip(-1), flipped(truth, width=canvas[1])
        if turns:
            drawn, truth = drawn.rot90(turns, dims=(-2, -1)), turned(truth, turns=turns, size=canvas)
        kept = torch.from_numpy((truth[:, 2:] - truth[:, :2] >= 1).all(1))
        hidden = torch.from_numpy(visible < MIN_VISIBLE)
        return drawn, torch.from_numpy(truth)[kept], classes[kept], (ignore | hidden)[kept]


def flipped(boxes: Boxes, *, width: int) -> Boxes:
    """Boxes [N, 4] in an image of `width` pixels that is mirrored left to right."""
    return np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


def turned(boxes: Boxes, *, turns: int, size: tuple[int, int]) -> Boxes:
    """Boxes [N, 4] in an image of size (height, width) after quarter turns counterclockwise."""
    height, width = size
    for _ in range(turns):  # a point at x ends up `width - x` from the top
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack((y1, width - x2, y2, width - x1), 1)
        height, width = width, height
    return boxes
