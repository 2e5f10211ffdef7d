"""Training augmentation: torchvision.transforms.v2 on tv_tensors, images and boxes together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcos_cli.data.cache import reduced_size


class Augmentation:
    """Turn an image and its boxes into a training example of exactly `size` = (height, width).

    Multi-scale training happens inside a fixed canvas (large-scale jitter): the image is resized to `scale` times the
    canvas, then cropped or padded to it at a random position. A constant shape for the whole run is fastest on a CPU.
    Random numbers come from torch's global generator.
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
        fill: tuple[float, float, float] = (114, 114, 114),
    ) -> None:
        height, width = size
        fills = {tv_tensors.Image: tuple(round(value) for value in fill), "others": 0}
        sanitize = v2.SanitizeBoundingBoxes(min_size=1.0, labels_getter=_per_box)
        self.pipeline = v2.Compose(
            [
                _Bound(longest_side(size)),
                v2.RandomZoomOut(fill=fills, side_range=(1.0, zoom_out_max), p=zoom_out),
                v2.RandomApply([v2.RandomIoUCrop(min_scale=0.4, trials=20)], p=crop),
                sanitize,
                v2.RandomHorizontalFlip(flip),
                v2.RandomApply([_QuarterTurn()], p=turn),
                _ScaleJitter((height, width), scale),
                v2.RandomCrop((height, width), pad_if_needed=True, fill=fills),
                v2.ClampBoundingBoxes(),
                sanitize,
                v2.RandomApply([v2.RandomPhotometricDistort(p=0.5)], p=colour),
            ]
        )

    def __call__(
        self, image: Tensor, boxes: Tensor, classes: Tensor, ignore: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Augment one example.

        image: uint8 [3, h, w]; boxes: float32 [N, 4] xyxy in its pixels; classes: int64 [N]; ignore: bool [N]. Returns
        the same, with image uint8 [3, H, W] and boxes in its pixels; boxes that are no longer in the image are dropped.
        """
        example = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(image.shape[-2:])),
            "classes": classes,
            "ignore": ignore,
        }
        out = self.pipeline(example)
        plain = torch.Tensor.as_subclass
        return plain(out["image"], Tensor), plain(out["boxes"], Tensor).float(), out["classes"], out["ignore"]


def longest_side(size: tuple[int, int]) -> int:
    """Pixels of an image's longer side that training for an input of `size` can use; larger images are reduced."""
    return 2 * max(size)


class _Bound(v2.Transform):  # type: ignore[misc]  # torchvision ships no types
    """Reduce large photos with `reduced_size`, since no later step needs more pixels."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 (torchvision's signature)
        height, width = v2.functional.get_size(inpt)
        bound = reduced_size(height, width, longest=self.longest)
        return inpt if bound == (height, width) else v2.functional.resize(inpt, list(bound))


class _QuarterTurn(v2.Transform):  # type: ignore[misc]
    """Rotate by 90, 180 or 270 degrees with equal probability. No pixel is resampled and boxes stay tight."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 (torchvision's signature)
        return {"turns": int(torch.randint(1, 4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        turns = params["turns"]
        if isinstance(inpt, tv_tensors.Image):
            return tv_tensors.wrap(inpt.rot90(turns, dims=(-2, -1)), like=inpt)
        if not isinstance(inpt, tv_tensors.BoundingBoxes):
            return inpt
        height, width = inpt.canvas_size
        boxes = inpt.as_subclass(torch.Tensor)
        for _ in range(turns):  # counterclockwise: a point at x ends up `width - x` from the top
            x1, y1, x2, y2 = boxes.unbind(-1)
            boxes = torch.stack((y1, width - x2, y2, width - x1), dim=-1)
            height, width = width, height
        return tv_tensors.wrap(boxes, like=inpt, canvas_size=(height, width))


class _ScaleJitter(v2.Transform):  # type: ignore[misc]
    """Fit the image into `size` = (height, width) times a random factor from `scale`; no side becomes 0 pixels.

    torchvision's own transform reads `size` as (width, height) and returns 0 pixels for a 2000 × 3 panorama.
    """

    def __init__(self, size: tuple[int, int], scale: tuple[float, float]) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        sides = v2.functional.get_size(flat_inputs[0])
        low, high = self.scale
        factor = min(target / side for target, side in zip(self.size, sides, strict=True))
        factor *= low + float(torch.rand(1)) * (high - low)
        return {"size": [max(1, int(side * factor)) for side in sides]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return v2.functional.resize(inpt, params["size"])


def _per_box(example: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return example["classes"], example["ignore"]
