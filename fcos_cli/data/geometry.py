"""Resize and padding rules, forward and back. Numpy and Pillow only: prediction needs no torch.

Notable choices:
- Pictures are resized by Pillow's bilinear filter on uint8, which averages over the source when it shrinks; two other
  filters are for weights that were trained with them.
- Sizes are rounded to whole pixels, so the scale is kept per axis: a box goes forward and back exactly even for a
  picture of 1 × 5000.
- Padding sits on the right and at the bottom, hence `pad` is (0, 0); it stays in `Geometry` for rules that centre.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.errors import ModelError

Pixels = npt.NDArray[np.uint8 | np.float32]
"""Network input, 0…255: float32 where its resize rule does not round to whole grey values."""
Rounding = Literal["half-up", "twice", "floor", "short-first"]
Filter = Literal["pillow", "point", "float"]


@dataclass(frozen=True)
class Geometry:
    """How one picture was placed into the network input; invertible.

    source: (width, height) of the picture; resized: (width, height) after resizing, before padding; pad: (left, top)
    offset of the resized picture in the input.  Scale per axis = resized / source.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    pad: tuple[int, int]

    def _axes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scale and offset as [x, y, x, y], float64 so that going there and back loses nothing to rounding."""
        scale = np.divide(self.resized, self.source)
        return np.tile(scale, 2), np.tile(np.asarray(self.pad, np.float64), 2)

    def forward(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes xyxy [N, 4] in source pixels → network-input pixels, float32."""
        scale, pad = self._axes()
        return (np.asarray(boxes, np.float64).reshape(-1, 4) * scale + pad).astype(np.float32)

    def inverse(self, boxes: npt.NDArray[np.float32], *, inclusive: bool = False) -> npt.NDArray[np.float32]:
        """Boxes xyxy [N, 4] in network-input pixels → source pixels, clipped to the picture, float32.

        inclusive: the boxes name their last pixel; the answer ends one source pixel behind it.
        """
        scale, pad = self._axes()
        source = (np.asarray(boxes, np.float64).reshape(-1, 4) - pad) / scale
        source[:, 2:] += inclusive
        limit = np.tile(np.asarray(self.source, np.float64), 2)
        return np.clip(source, 0.0, limit).astype(np.float32)


@dataclass(frozen=True)
class ResizeRule:
    """The rule by which pictures become network input; part of every artifact.

    mode `letterbox`: fit into `size` = (height, width) keeping the aspect ratio (enlarging where needed), pad right
    and bottom to exactly `size`. mode `shortest`: shorter side to size[0] unless the longer would pass size[1] (the
    papers' 800/1333), pad right and bottom to the next multiple of `divisor` and to the largest picture of the batch.
    `pad_value`: 0…255, the grey of the padding, or its RGB colour.

    rounding, of sides in mode `shortest`: `half-up` (mmdetection); `twice`: scaled for the shorter side, then for the
    longer, then half-up (Detectron2); `floor` (torchvision); `short-first`: the shorter side first, rounded, the longer
    in proportion to it, rounded down (maskrcnn-benchmark, the authors' FCOS). filter: bilinear by `pillow`; `point`
    without averaging when it shrinks, in whole grey values (OpenCV's, within one of them); `float` without averaging
    and without rounding (torchvision). Wrong values raise ValueError
    naming the field.
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
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be two whole numbers of at least 1, not {self.size!r}")
        if self.mode == "shortest" and self.size[0] > self.size[1]:
            raise ValueError(f"size must be (shorter, longer) in mode 'shortest', not {self.size!r}")
        if self.divisor < 1:
            raise ValueError(f"divisor must be at least 1, not {self.divisor}")
        if not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"pad_value must be 0…255, not {self.pad_value}")
        if self.rounding not in get_args(Rounding) or self.filter not in get_args(Filter):
            wrong = "rounding" if self.rounding not in get_args(Rounding) else "filter"
            raise ValueError(f"{wrong} must not be {getattr(self, wrong)!r}")

    @property
    def colour(self) -> tuple[float, float, float]:
        """RGB of the padding, 0…255."""
        return self.pad_value if isinstance(self.pad_value, tuple) else (self.pad_value,) * 3

    @property
    def dtype(self) -> type[np.uint8] | type[np.float32]:
        """Of the network input: float32 where whole grey values cannot hold what the rule makes."""
        whole = self.filter != "float" and all(float(value).is_integer() for value in self.colour)
        return np.uint8 if whole else np.float32

    def geometry(self, width: int, height: int) -> Geometry:
        """Where a picture of `width` × `height` pixels would be placed. No pixel is touched."""
        if width < 1 or height < 1:
            raise ValueError(f"a picture has at least 1 × 1 pixels, not {width} × {height}")
        resized = self._letterbox(width, height) if self.mode == "letterbox" else self._shortest(width, height)
        return Geometry((width, height), resized, (0, 0))

    def _letterbox(self, width: int, height: int) -> tuple[int, int]:
        high, wide = self.size
        scale = min(high / height, wide / width)
        # The min() guards the last bit of a float: round(width * (wide / width)) must never exceed the canvas.
        return min(max(round(width * scale), 1), wide), min(max(round(height * scale), 1), high)

    def _shortest(self, width: int, height: int) -> tuple[int, int]:
        short, long = self.size
        if self.rounding == "short-first":
            less, more = min(width, height), max(width, height)
            fitted = round(long * less / more) if more / less * short > long else short
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
        """uint8 HWC RGB → resized HWC of `dtype` (not padded yet) and its geometry."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"a picture is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        geometry = self.geometry(image.shape[1], image.shape[0])
        if geometry.resized == geometry.source:
            return image, geometry
        if self.filter == "pillow":
            picture = Image.fromarray(np.ascontiguousarray(image))
            return np.asarray(picture.resize(geometry.resized, Image.Resampling.BILINEAR)), geometry
        resized: Pixels = _between_points(image, geometry.resized)
        return np.rint(resized).astype(np.uint8) if self.filter == "point" else resized, geometry

    def batch(self, images: list[npt.NDArray[np.uint8]]) -> tuple[Pixels, list[Geometry]]:
        """Pictures uint8 HWC RGB of any sizes → network input [B, 3, H, W] of `dtype` and one geometry each.

        The array is contiguous and newly allocated. An empty list raises ValueError.
        """
        if not images:
            raise ValueError("a batch has at least one picture")
        placed = [self.resize(image) for image in images]
        geometries = [geometry for _, geometry in placed]
        height, width = self.canvas(geometries)
        out: Pixels = np.empty((len(images), 3, height, width), self.dtype)
        out[:] = np.array(self.colour, self.dtype).reshape(3, 1, 1)  # cast three numbers, not every pixel
        for target, (picture, _) in zip(out, placed, strict=True):
            target[:, : picture.shape[0], : picture.shape[1]] = picture.transpose(2, 0, 1)
        return out, geometries

    def canvas(self, geometries: list[Geometry]) -> tuple[int, int]:
        """(height, width) of the network input that holds these pictures."""
        if self.mode == "letterbox":
            return self.size
        width = max(geometry.resized[0] for geometry in geometries)
        height = max(geometry.resized[1] for geometry in geometries)
        return -(-height // self.divisor) * self.divisor, -(-width // self.divisor) * self.divisor

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values; `from_json` reads it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> ResizeRule:
        """The rule an artifact carries. Raises ModelError naming the key that is missing, unknown or wrong.

        Files written before `rounding` and `filter` existed mean their defaults.
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


def _between_points(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """[H, W, 3] resized to `size` = (width, height), bilinearly between the four nearest pixels however much it
    shrinks; float32. Places are worked out in float32, as torch's `interpolate` does."""
    (x0, x1, right), (y0, y1, down) = (_places(image.shape[1], size[0]), _places(image.shape[0], size[1]))
    down, right = down[:, None, None], right[:, None]
    rows = image[y0] * (1 - down) + image[y1] * down
    return (rows[:, x0] * (1 - right) + rows[:, x1] * right).astype(np.float32, copy=False)


def _places(before: int, after: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each of `after` pixels: the two of `before` that it lies between, and how near it is to the second, 0…1."""
    centres = np.arange(after, dtype=np.float32) + np.float32(0.5)
    place = np.maximum(centres * np.float32(before / after) - np.float32(0.5), 0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, before - 1), place - first.astype(np.float32)


def _wrong_rule(what: str, key: str) -> ModelError:
    return ModelError(what, where=f"geometry.{key} of the artifact", remedy="export the model again with this version")
