"""Resize and padding rules, forward and inverse. Numpy and Pillow only: prediction needs no torch.

Notable choices:
- Images are resized with Pillow's bilinear filter on uint8, which antialiases when it shrinks; two other filters exist
for weights that were trained with them.
- Sizes are rounded to whole pixels, so the scale is kept per axis: boxes map forward and back exactly even for a
1 × 5000 image.
- Padding is on the right and at the bottom, so `pad` is (0, 0); `Geometry` keeps it for rules that center the image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.errors import ModelError

Pixels = npt.NDArray[np.uint8 | np.float32]
"""Network input, 0…255: float32 if its resize rule does not round to whole values."""
Rounding = Literal["half-up", "twice", "floor", "short-first"]
Filter = Literal["pillow", "point", "float"]


MAX_SIDE = 32_768
"""Longest side of the network input, in pixels. A larger one needs more memory than any machine has."""


@dataclass(frozen=True)
class Geometry:
    """How one image was placed into the network input; invertible.

    source: (width, height) of the image; resized: (width, height) after resizing, before padding; pad: (left, top)
    offset of the resized image in the input. Scale per axis = resized / source.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    pad: tuple[int, int]

    def _axes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scale and offset as [x, y, x, y], in float64 to avoid rounding errors when mapping back."""
        scale = np.divide(self.resized, self.source)
        return np.tile(scale, 2), np.tile(np.asarray(self.pad, np.float64), 2)

    def forward(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map boxes xyxy [N, 4] from source pixels to network-input pixels, float32."""
        scale, pad = self._axes()
        return (np.asarray(boxes, np.float64).reshape(-1, 4) * scale + pad).astype(np.float32)

    def inverse(self, boxes: npt.NDArray[np.float32], *, inclusive: bool = False) -> npt.NDArray[np.float32]:
        """Map boxes xyxy [N, 4] from network-input pixels to source pixels, clipped to the image, float32.

        inclusive: the ends of the boxes are inclusive; one source pixel is added to make them exclusive.
        """
        scale, pad = self._axes()
        source = (np.asarray(boxes, np.float64).reshape(-1, 4) - pad) / scale
        source[:, 2:] += inclusive
        limit = np.tile(np.asarray(self.source, np.float64), 2)
        return np.clip(source, 0.0, limit).astype(np.float32)


@dataclass(frozen=True)
class ResizeRule:
    """The rule by which images become network input; part of every artifact.

    mode `letterbox`: fit into `size` = (height, width) keeping the aspect ratio (enlarging if needed), then pad right
    and bottom to exactly `size`. mode `shortest`: resize the shorter side to size[0] unless the longer would exceed
    size[1] (the papers' 800/1333), then pad right and bottom to the next multiple of `divisor` and to the largest image
    of the batch. pad_value: gray value or RGB color of the padding, 0…255.

    rounding of sides in mode `shortest`: `half-up` (mmdetection); `twice`: scale for the shorter side, then for the
    longer, then round half up (Detectron2); `floor` (torchvision); `short-first`: round the shorter side, then scale
    the longer in proportion and round down (maskrcnn-benchmark, the authors' FCOS). filter: bilinear by `pillow`;
    `point` without antialiasing, rounded to whole values (as OpenCV, within 1); `float` without antialiasing and
    without rounding (torchvision). Invalid values raise ValueError naming the field.
    """

    mode: Literal["letterbox", "shortest"] = "letterbox"
    size: tuple[int, int] = (320, 320)
    divisor: int = 32
    pad_value: int | tuple[float, float, float] = 114
    rounding: Rounding = "half-up"
    filter: Filter = "pillow"

    def __post_init__(self) -> None:
        if self.mode not in ("letterbox", "shortest"):
            raise ValueError(f"mode must be 'letterbox' or 'shortest', not {self.mode!r}")
        if len(self.size) != 2 or not 1 <= min(self.size) <= max(self.size) <= MAX_SIDE:
            raise ValueError(f"size must be two whole numbers from 1 to {MAX_SIDE:,}, not {self.size!r}")
        if self.mode == "shortest" and self.size[0] > self.size[1]:
            raise ValueError(f"size must be (shorter, longer) in mode 'shortest', not {self.size!r}")
        if not 1 <= self.divisor <= MAX_SIDE:
            raise ValueError(f"divisor must be at least 1 and at most {MAX_SIDE:,}, not {self.divisor}")
        if not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"pad_value must be 0…255, not {self.pad_value}")
        if self.rounding not in get_args(Rounding) or self.filter not in get_args(Filter):
            wrong = "rounding" if self.rounding not in get_args(Rounding) else "filter"
            raise ValueError(f"{wrong} must not be {getattr(self, wrong)!r}")

    @property
    def colour(self) -> tuple[float, float, float]:
        """RGB color of the padding, 0…255."""
        return self.pad_value if isinstance(self.pad_value, tuple) else (self.pad_value,) * 3

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Dtype of the network input: float32 if the rule produces fractional values."""
        whole = self.filter != "float" and all(float(value).is_integer() for value in self.colour)
        return np.uint8 if whole else np.float32

    def geometry(self, width: int, height: int) -> Geometry:
        """Return where an image of `width` × `height` pixels would be placed, without touching pixels."""
        if width < 1 or height < 1:
            raise ValueError(f"an image must have at least 1 × 1 pixels, not {width} × {height}")
        resized = self._letterbox(width, height) if self.mode == "letterbox" else self._shortest(width, height)
        return Geometry((width, height), resized, (0, 0))

    def _letterbox(self, width: int, height: int) -> tuple[int, int]:
        high, wide = self.size
        scale = min(high / height, wide / width)
        # min() guards against floating-point error: round(width * (wide / width)) must not exceed the canvas
        return min(max(round(width * scale), 1), wide), min(max(round(height * scale), 1), high)

    def _shortest(self, width: int, height: int) -> tuple[int, int]:
        short, long = self.size
        if self.rounding == "short-first":
            less, more = min(width, height), max(width, height)
            fitted = max(round(long * less / more), 1) if more / less * short > long else short
            longer = more if fitted == less else int(fitted * more / less)
            return (fitted, longer) if width < height else (longer, fitted)
        if self.rounding == "twice":
            scale = short / min(width, height)
            sides = [short if side == min(width, height) else scale * side for side in (width, height)]
            sides = [side * (long / max(sides)) for side in sides] if max(sides) > long else sides
            return max(int(sides[0] + 0.5), 1), max(int(sides[1] + 0.5), 1)
        scale = min(short / min(width, height), long / max(width, height))
        rest = 0.5 if self.rounding == "half-up" else 0.0
        return max(int(width * scale + rest), 1), max(int(height * scale + rest), 1)

    def resize(self, image: npt.NDArray[np.uint8]) -> tuple[Pixels, Geometry]:
        """Resize uint8 HWC RGB; return HWC of `dtype` (not padded yet) and its geometry."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        geometry = self.geometry(image.shape[1], image.shape[0])
        if geometry.resized == geometry.source:
            return image, geometry
        if self.filter == "pillow":
            source = Image.fromarray(np.ascontiguousarray(image))
            return np.asarray(source.resize(geometry.resized, Image.Resampling.BILINEAR)), geometry
        resized: Pixels = _interpolate(image, geometry.resized)
        return np.rint(resized).astype(np.uint8) if self.filter == "point" else resized, geometry

    def batch(self, images: list[npt.NDArray[np.uint8]]) -> tuple[Pixels, list[Geometry]]:
        """Convert uint8 HWC RGB images of any size to network input [B, 3, H, W] of `dtype` and one geometry each.

        The array is contiguous and newly allocated. An empty list raises ValueError.
        """
        if not images:
            raise ValueError("a batch needs at least one image")
        resized = [self.resize(image) for image in images]
        geometries = [geometry for _, geometry in resized]
        height, width = self.canvas(geometries)
        out: Pixels = np.empty((len(images), 3, height, width), self.dtype)
        out[:] = np.array(self.colour, self.dtype).reshape(3, 1, 1)  # cast three numbers, not every pixel
        for target, (image, _) in zip(out, resized, strict=True):
            target[:, : image.shape[0], : image.shape[1]] = image.transpose(2, 0, 1)
        return out, geometries

    def canvas(self, geometries: list[Geometry]) -> tuple[int, int]:
        """(height, width) of the network input that holds these images."""
        if self.mode == "letterbox":
            return self.size
        width = max(geometry.resized[0] for geometry in geometries)
        height = max(geometry.resized[1] for geometry in geometries)
        return -(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON values that `from_json` reads back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ResizeRule:
        """Read the rule from an artifact. Raises ModelError naming a missing, unknown or invalid key.

        Files written before `rounding` and `filter` existed get their defaults.
        """
        known = [field.name for field in fields(cls)]
        for key in (*known[:4], *facts):
            if key not in facts or key not in known:
                problem = "lacks" if key not in facts else "has the unknown key"
                raise _wrong_rule(f"the resize rule {problem} {key!r}", key)
        if type(facts["divisor"]) is not int:
            raise _wrong_rule(f"divisor must be a whole number, not {facts['divisor']!r}", "divisor")
        size, pad = facts["size"], facts["pad_value"]
        if type(pad) is not int:
            if not isinstance(pad, (list, tuple)) or [type(value) in (int, float) for value in pad] != [True] * 3:
                raise _wrong_rule(f"pad_value must be a whole number or three numbers, not {pad!r}", "pad_value")
            pad = (float(pad[0]), float(pad[1]), float(pad[2]))
        if not isinstance(size, (list, tuple)) or [type(value) for value in size] != [int, int]:
            raise _wrong_rule(f"size must be two whole numbers, not {size!r}", "size")
        try:
            return cls(**{**facts, "size": (size[0], size[1]), "pad_value": pad})
        except ValueError as error:
            raise _wrong_rule(str(error), str(error).split()[0]) from error


def _interpolate(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize [H, W, 3] to `size` = (width, height) bilinearly without antialiasing; float32.

    Coordinates are computed in float32, as torch's `interpolate` does.
    """
    x0, x1, wx = _neighbors(image.shape[1], size[0])
    y0, y1, wy = _neighbors(image.shape[0], size[1])
    wy, wx = wy[:, None, None], wx[:, None]
    rows = image[y0] * (1 - wy) + image[y1] * wy
    return (rows[:, x0] * (1 - wx) + rows[:, x1] * wx).astype(np.float32, copy=False)


def _neighbors(before: int, after: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the two nearest input pixels per output pixel, and the weight of the second, 0…1."""
    centres = np.arange(after, dtype=np.float32) + np.float32(0.5)
    position = np.maximum(centres * np.float32(before / after) - np.float32(0.5), 0)
    first = position.astype(np.int64)
    return first, np.minimum(first + 1, before - 1), position - first.astype(np.float32)


def _wrong_rule(what: str, key: str) -> ModelError:
    return ModelError(what, where=f"geometry.{key} of the artifact", remedy="export the model again with this version")
