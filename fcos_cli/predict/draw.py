"""Detections → a picture a person can read: boxes, and tags with name and score.

Notable choices:
- Line width and letters grow with the picture, so that it reads alike on any screen; lines grow thin on small boxes,
  and lie outside the box, so that small things are not painted over.
- Each box has a thin halo, black or white, whichever stands out from its colour: it shows on any background.
- Colours belong to the class index and never change: the seven of Okabe and Ito (Color Universal Design, 2008) and six
  of Tol's muted scheme (SRON/EPS/TN/09-002) that differ from them to colour-blind people too; then hues a golden ratio
  apart, which not everybody can tell apart. The name is always written beside.
- The best detection chooses the place of its tag first and is painted last.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections

Colour = tuple[int, int, int]
_COVER, _MANY = 0.06, 500
"""Tags of the first `_MANY` detections may cover this part of a picture before their letters shrink."""
Rectangle = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
TOL_MUTED = ("332288", "117733", "88CCEE", "882255", "999933", "DDCC77")  # without three too near to others
OKABE_ITO = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")  # without black


def draw(
    image: npt.NDArray[np.uint8],
    detections: Detections,
    classes: ClassTable,
    *,
    max_side: int | None = None,
    min_side: int | None = None,
) -> npt.NDArray[np.uint8]:
    """A copy of `image`, uint8 [H, W, 3] RGB, with the detections drawn on it.

    The answer has the same size, or is reduced so that its longer side is `max_side`, or enlarged by the least whole
    factor that makes its longer side `min_side`, so that tags do not cover all of a tiny picture. A tag is shortened
    where it is wider than the picture, and left out where not even three letters fit.
    """
    canvas = Image.fromarray(image)
    scale = min(1.0, max_side / max(canvas.size)) if max_side else 1.0
    if scale < 1:
        canvas = canvas.resize((max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale))))
    elif min_side:
        scale = math.ceil(min_side / max(canvas.size))
        canvas = canvas.resize((canvas.width * scale, canvas.height * scale), Image.Resampling.NEAREST)
    extent = math.sqrt(canvas.width * canvas.height)
    line = math.ceil(extent / 280)
    letters = _letters(detections, classes, canvas.size)

    boxes = np.clip(np.rint(np.nan_to_num(detections.boxes) * scale), 0, np.tile(canvas.size, 2)).astype(int).tolist()
    best_first = np.argsort(-detections.scores, kind="stable").tolist()
    indices = detections.classes.tolist()
    tags: dict[int, tuple[Rectangle, str]] = {}
    placed: list[Rectangle] = []
    for i in best_first:
        text = _fit(_label(classes, indices[i], float(detections.scores[i]), letters), canvas.size, letters)
        if text:
            spot = _place(boxes[i], _tag_size(text, letters), canvas.size, placed, gap=line + 1)
            placed.append(spot)
            tags[i] = spot, text

    pen = ImageDraw.Draw(canvas)
    for i in reversed(best_first):
        _box(pen, boxes[i], colour(indices[i]), line, canvas.size)
    for i in reversed(best_first):
        if i in tags:
            _tag(pen, *tags[i], colour(indices[i]), letters)
    return np.array(canvas)


def save_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] as JPEG (quality 92, colours in full resolution) or PNG, by the suffix of `path`.

    The file appears under its name only when it is whole. Raises UsageError for another suffix
    and for a picture too large for JPEG.
    """
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"cannot write a picture as {path.suffix!r}", where=path, remedy="use .jpg or .png")
    if kind == "JPEG" and max(image.shape) > 65_500:
        raise UsageError("JPEG holds 65,500 pixels a side at most", where=path, remedy="use .png")
    with atomic_write(path, binary=True) as stream:
        Image.fromarray(image).save(stream, kind, quality=92, subsampling=0)


def colour(index: int) -> Colour:
    """The fixed colour of a class index, RGB 0…255."""
    named = OKABE_ITO + TOL_MUTED
    if index < len(named):
        red, green, blue = bytes.fromhex(named[index])
        return red, green, blue
    step = index - len(named)
    rgb = colorsys.hsv_to_rgb(step * 0.618034 % 1, (0.85, 0.5)[step % 2], (1.0, 0.75, 0.9)[step % 3])
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has the higher contrast (WCAG 2) with `background`."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.179 else WHITE  # where (L + 0.05) / 0.05 = 1.05 / (L + 0.05)


# --- boxes -----------------------------------------------------------------------------------------------------------


def _box(pen: ImageDraw.ImageDraw, box: Rectangle, fill: Colour, line: int, size: tuple[int, int]) -> None:
    """The coloured line just outside the box (inside it along the picture's edge), a halo on both of its sides."""
    x1, y1, x2, y2 = box
    line = max(math.ceil(line / 3), min(line, min(x2 - x1, y2 - y1) // 6))
    halo = max(1, line // 3) if min(size) >= 64 else 0  # on a tiny picture it would hide more than it shows
    for reach, width, shade in ((line + halo, line + 2 * halo, text_colour(fill)), (line, line, fill)):
        inset = line + halo - reach
        left, top = max(inset, x1 - reach), max(inset, y1 - reach)
        right, bottom = min(size[0] - 1 - inset, x2 - 1 + reach), min(size[1] - 1 - inset, y2 - 1 + reach)
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=shade, width=width)


# --- tags ------------------------------------------------------------------------------------------------------------


def _letters(detections: Detections, classes: ClassTable, size: tuple[int, int]) -> int:
    """Height of the letters in pixels: by the picture, and less by quarters where the tags would cover much of it."""
    extent = math.sqrt(size[0] * size[1])
    least = max(10, min(12, min(size) // 10), round(extent / 110))
    letters = max(least, round(extent / 42))
    rows = list(zip(detections.classes.tolist(), detections.scores.tolist(), strict=True))[:_MANY]
    while letters > least:
        tags = (_tag_size(_label(classes, index, score, letters), letters) for index, score in rows)
        if sum(width * height for width, height in tags) <= _COVER * extent**2:
            break
        letters = max(least, letters * 3 // 4)
    return letters


@lru_cache(maxsize=8)
def _font(letters: int) -> Font:
    return ImageFont.load_default(size=letters)


def _label(classes: ClassTable, index: int, score: float, letters: int) -> str:
    return f"{_writable(classes.names[index], letters) or f'class {classes.ids[index]}'} {score:.2f}"


@lru_cache(maxsize=1024)
def _writable(name: str, letters: int) -> str:
    """`name` as the font can write it: as it is, or without accents, or not at all (empty).

    Pillow's own font knows little more than ASCII; all letters that it lacks give the same sign.
    """
    font = _font(letters)
    lacking = bytes(font.getmask("\uffff"))
    bare = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    for text in (name, bare):
        if all(bytes(font.getmask(letter)) != lacking for letter in set(text)):
            return text
    return ""


def _margin(letters: int) -> int:
    return max(1, letters // 5)


def _tag_size(text: str, letters: int) -> tuple[int, int]:
    left, _, right, _ = _font(letters).getbbox(text)
    return round(right - left) + 2 * _margin(letters) + 1, letters + 2 * _margin(letters)


def _fit(text: str, size: tuple[int, int], letters: int) -> str:
    """`text`, shortened to the width of the picture; empty where it cannot be written at all."""
    if _tag_size("", letters)[1] > size[1]:
        return ""
    if _tag_size(text, letters)[0] <= size[0]:
        return text
    for length in range(min(len(text) - 1, 100), 2, -1):
        short = text[:length].rstrip() + "…"
        if _tag_size(short, letters)[0] <= size[0]:
            return short
    return ""


def _place(
    box: Rectangle, tag: tuple[int, int], size: tuple[int, int], placed: list[Rectangle], *, gap: int
) -> Rectangle:
    """Where the tag covers least of the tags placed before; of equals the first in the order of `_spots`."""
    corners = np.clip(np.array(list(_spots(box, tag, gap))), 0, np.subtract(size, tag))
    spots, others = np.hstack([corners, corners + tag])[:, None], np.array(placed, int).reshape(-1, 4)
    sides = np.minimum(spots[..., 2:], others[:, 2:]) - np.maximum(spots[..., :2], others[:, :2])
    covered = np.clip(sides, 0, None).prod(axis=2).sum(axis=1)
    x1, y1, x2, y2 = spots[covered.argmin(), 0].tolist()
    return x1, y1, x2, y2


def _spots(box: Rectangle, tag: tuple[int, int], gap: int) -> Iterator[tuple[int, int]]:
    """Top-left corners to try: above, inside at the top, below, inside at the bottom; left, right, then between."""
    x1, y1, x2, y2 = box
    above = [y1 - tag[1] - gap] if y1 >= tag[1] + gap else []
    for x in (x1 - gap, x2 + gap - tag[0], (x1 + x2 - tag[0]) // 2):
        yield from ((x, y) for y in (*above, y1, y2 + gap, y2 - tag[1]))
    for x in (x1 - tag[0] - gap, x2 + gap):  # beside the box, from top to bottom
        yield from ((x, y) for y in range(y1, max(y1 + 1, y2), tag[1] + 1))


def _tag(pen: ImageDraw.ImageDraw, spot: Rectangle, text: str, fill: Colour, letters: int) -> None:
    margin, font = _margin(letters), _font(letters)
    pen.rectangle(
        (spot[0], spot[1], spot[2] - 1, spot[3] - 1), fill=fill, outline=text_colour(fill), width=max(1, letters // 24)
    )
    # "lm": the middle of the line of letters, so that names with and without descenders stand alike.
    pen.text((spot[0] + margin + 1, (spot[1] + spot[3]) / 2), text, fill=text_colour(fill), font=font, anchor="lm")
