"""Test vectors: small pictures and what PyTorch finds in them, in the metadata of an exported file. No torch.

With them, `fcos verify` repeats the end-to-end part of the parity check wherever the file is copied. Notable choices:

- They are in the file itself, so that whoever copies one file has the proof too: about 140 kB.
- The pictures are the bundled photos, never the user's: a model is shared more freely than its data. What they show
  does not matter. Even a detector of blood cells finds dozens of boxes above its candidate threshold in them.
- Pixels are stored as lossless PNG with 32 values per channel, which halves the size. The expected detections are those
  of the stored pixels.
- The picture is in the upper left corner of the network input, which may be larger; the rest is padding.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.data.geometry import MAX_SIDE, Pixels, ResizeRule
from fcos_cli.errors import ModelError
from fcos_cli.parity.matching import ImageDetections
from fcos_cli.runtime.facts import Facts

VERSION = 1
LARGEST_PICTURE, LARGEST_INPUT, MOST = 1024, 4 << 20, 16
"""Pixels of a picture's side, pixels of a network input, and number of pictures. A file with more is not ours."""

LARGEST_NUMBER, MOST_NUMBERS = 1e6, 1_000_000
"""No coordinate or score is as large, and no picture has as many."""

NOTHING = ImageDetections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Vector:
    """One picture and the reference's detections in it.

    picture: uint8 [h, w, 3] RGB. size: (height, width) of the network input, at least that of the picture. expected: in
    pixels of the network input, best first. others: candidates that NMS or the limit of detections removed, some of
    which may stay where the last digits differ. cuts: lowest kept score of each level that reached its top-k limit.
    """

    name: str
    picture: npt.NDArray[np.uint8] = field(repr=False)
    size: tuple[int, int]
    expected: ImageDetections = field(default=NOTHING, repr=False)
    others: ImageDetections = field(default=NOTHING, repr=False)
    cuts: tuple[float, ...] = ()

    @property
    def candidates(self) -> ImageDetections:
        """All candidates that may be detections on another machine."""
        found, others = self.expected, self.others
        return ImageDetections(
            np.concatenate([found.boxes, others.boxes]),
            np.concatenate([found.scores, others.scores]),
            np.concatenate([found.classes, others.classes]),
        )

    @property
    def inside(self) -> npt.NDArray[np.int64]:
        """(height, width) of the picture in the network input, int64 [1, 2]."""
        return np.array([self.picture.shape[:2]], np.int64)

    def images(self, rule: ResizeRule) -> Pixels:
        """The network input [1, 3, H, W], padded with the colour of `rule` and of its dtype."""
        out: Pixels = np.empty((1, 3, *self.size), rule.dtype)
        out[:] = np.array(rule.colour, rule.dtype).reshape(3, 1, 1)
        height, width = self.picture.shape[:2]
        out[0, :, :height, :width] = self.picture.transpose(2, 0, 1)
        return out


def write_vectors(vectors: Sequence[Vector]) -> str:
    """The text that `read_vectors` reads: JSON with base64 PNG, and x1, y1, x2, y2, score, class of each detection."""
    return json.dumps({"version": VERSION, "pictures": [_to_json(vector) for vector in vectors]})


def _to_json(vector: Vector) -> dict[str, Any]:
    png = io.BytesIO()
    Image.fromarray(vector.picture).save(png, "PNG", optimize=True)
    return {
        "name": vector.name,
        "size": list(vector.size),
        "png": base64.b64encode(png.getvalue()).decode("ascii"),
        "cuts": [float(f"{cut:.7g}") for cut in vector.cuts],
        "detections": _rows(vector.expected, digits=(4, 7)),
        "others": _rows(vector.others, digits=(2, 5)),
    }


def _rows(detections: ImageDetections, *, digits: tuple[int, int]) -> list[list[float]]:
    """x1, y1, x2, y2, score, class of each. digits: decimal places of boxes and scores."""
    boxes, scores, classes = (part.tolist() for part in detections)
    return [
        [*(round(edge, digits[0]) for edge in box), round(score, digits[1]), label]
        for box, score, label in zip(boxes, scores, classes, strict=True)
    ]


def read_vectors(facts: Facts, *, where: Path) -> list[Vector]:
    """The test vectors of a file; empty if it has none. Raises ModelError naming the file and the entry."""
    if not facts.vectors:
        return []
    place = "vectors"
    try:
        content = json.loads(facts.vectors)
        if content["version"] != VERSION:
            raise ValueError(f"they have version {content['version']!r}, and this fcos reads {VERSION}")
        pictures = list(content["pictures"])
        if not 1 <= len(pictures) <= MOST:
            raise ValueError(f"there are {len(pictures)} pictures, not 1 to {MOST}")
        vectors = []
        for number, entry in enumerate(pictures):
            place = f"vectors.pictures[{number}]"
            vectors.append(_from_json(entry, facts))
        return vectors
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f"the test vectors of this file cannot be read: {reason}",
            where=f"{where}, {place}",
            remedy="copy the file again, or export the model again with this version",
        ) from error


def _from_json(entry: dict[str, Any], facts: Facts) -> Vector:
    """Raises ValueError, KeyError or TypeError for anything but a vector for a model with these facts."""
    height, width = (_whole(side, MAX_SIDE) for side in entry["size"])
    if height * width > LARGEST_INPUT:
        raise ValueError(f"a network input of {height} x {width} pixels is too large")
    picture = _decode(entry["png"], (height, width))
    expected, others = (_detections(entry[key], classes=len(facts.classes)) for key in ("detections", "others"))
    if len(expected.scores) > facts.max_detections:
        raise ValueError(f"{len(expected.scores)} detections are more than the limit of {facts.max_detections}")
    cuts = _numbers(entry["cuts"])
    return Vector(str(entry["name"]), picture, (height, width), expected, others, tuple(cuts.tolist()))


def _detections(rows: Any, *, classes: int) -> ImageDetections:
    """The inverse of `_rows`, for a model with this many classes."""
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 6 for row in rows):
        raise ValueError("a detection is not six numbers")
    values = _numbers([value for row in rows for value in row]).reshape(-1, 6)
    labels = values[:, 5]
    if not ((labels == labels.round()) & (labels >= 0) & (labels < classes)).all():
        raise ValueError(f"an expected class is not from 0 to {classes - 1}")
    return ImageDetections(values[:, :4].astype(np.float32), values[:, 4].astype(np.float32), labels.astype(np.int64))


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    """A list of numbers as float64 [N]. Raises ValueError for anything else, and for what no box or score can be."""
    if not isinstance(values, list) or len(values) > MOST_NUMBERS:
        raise ValueError("the expected values are not a list, or a very long one")
    if not all(type(value) in (int, float) and abs(value) < LARGEST_NUMBER for value in values):
        raise ValueError("an expected value is not a number of this size")  # NaN and infinity are not, either
    return np.array(values, np.float64)


def _whole(value: Any, largest: int) -> int:
    if type(value) is not int or not 1 <= value <= largest:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number from 1 to {largest:,}")
    return value


def _decode(text: Any, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The pixels of a base64 PNG that fits into `size` = (height, width). Its size is checked before it is decoded."""
    try:
        content = base64.b64decode(text, validate=True)
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            warnings.simplefilter("ignore")
            if image.mode != "RGB" or max(image.size) > LARGEST_PICTURE:
                raise ValueError(f"the picture is {image.mode} of {image.width} x {image.height} pixels")
            if image.height > size[0] or image.width > size[1]:
                raise ValueError("the picture is larger than the network input")
            return np.asarray(image)
    except (OSError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise ValueError(f"the picture is damaged ({error})") from error
