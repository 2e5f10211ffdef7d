"""Mixup: two images laid over each other, with the boxes of both (Zhang et al. 2019, arXiv:1902.04103, §3.1)."""

from __future__ import annotations

import torch

from fcos_cli.data.augment.transforms import Drawn


def mix(one: Drawn, other: Drawn) -> Drawn:
    """The mean of two examples of the same size.

    Equal shares, and objects of both count fully, as in YOLOX (§2.1 "Strong data augmentation").
    """
    image = torch.add(one[0].to(torch.int16), other[0]).div(2, rounding_mode="floor").to(torch.uint8)
    boxes, classes, ignore = (torch.cat((one[index], other[index])) for index in (1, 2, 3))
    return image, boxes, classes, ignore
