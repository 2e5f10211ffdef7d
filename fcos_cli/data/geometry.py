"""Resize and padding rules, forward and back. Numpy and Pillow only: prediction needs no torch. (being written)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Geometry:
    """How one picture was placed into the network input; invertible.

    source: (width, height) of the picture; resized: (width, height) after resizing, before padding; pad: (left, top)
    offset of the resized picture in the input.  Scale per axis = resized / source.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    pad: tuple[int, int]

    def forward(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes xyxy [N, 4] in source pixels → network-input pixels."""
        raise NotImplementedError

    def inverse(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes xyxy [N, 4] in network-input pixels → source pixels, clipped to the picture."""
        raise NotImplementedError


@dataclass(frozen=True)
class ResizeRule:
    """The rule by which pictures become network input; part of every artifact.

    mode `letterbox`: fit into `size` = (height, width) keeping the aspect ratio (enlarging where needed), pad right
    and bottom to exactly `size`. mode `shortest`: shorter side to size[0] unless the longer would pass size[1] (the
    papers' 800/1333), pad right and bottom to the next multiple of `divisor` and to the largest picture of the batch.
    `pad_value`: 0…255, the grey of the padding.
    """

    mode: Literal["letterbox", "shortest"] = "letterbox"
    size: tuple[int, int] = (320, 320)
    divisor: int = 32
    pad_value: int = 114

    def geometry(self, width: int, height: int) -> Geometry:
        raise NotImplementedError

    def resize(self, image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], Geometry]:
        """uint8 HWC RGB → resized uint8 HWC (not padded yet) and its geometry."""
        raise NotImplementedError

    def batch(self, images: list[npt.NDArray[np.uint8]]) -> tuple[npt.NDArray[np.uint8], list[Geometry]]:
        """Pictures uint8 HWC RGB of any sizes → network input uint8 [B, 3, H, W] and one geometry each."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ResizeRule:
        raise NotImplementedError
