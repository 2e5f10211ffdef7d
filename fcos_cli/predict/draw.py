"""Draw detections on an image: boxes, and labels with class name and score.

Notable choices:
- Line width and font size scale with the image, so it looks the same on any screen. Lines are thinner on small boxes
  and lie outside the box, so that small objects stay visible.
- Each box has a thin black or white halo, whichever contrasts with its colour, so it is visible on any background.
- Each class index has a fixed colour: the seven of Okabe and Ito (Color Universal Design, 2008), then six of Tol's
  muted scheme (SRON/EPS/TN/09-002) that colour-blind people can also tell apart from them, then hues spaced by the
  golden ratio, which are not colour-blind safe. The label always shows the class name.
- A tracked object has its number in the label, and its colour is that of the number, so that it stays the same.
- Labels are placed in order of score, best first; boxes are drawn in the opposite order, so the best is on top.
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
from fcos_cli.console import visible
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.mark import MARK, png_mark
from fcos_cli.runtime.results import Detections

Colour = tuple[int, int, int]
MAX_LABEL_COVER, MAX_MEASURED = 0.06, 500
"""The font shrinks while the labels of the first `MAX_MEASURED` detections cover more than this part of the image."""
Rectangle = tuple[int, int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
TOL_MUTED = ("332288", "117733", "88CCEE", "882255", "999933", "DDCC77")  # without three that are too similar to others
OKABE_ITO = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")  # without black


def draw(
    image: npt.NDArray[np.uint8],
    detections: Detections,
    classes: ClassTable,
    *,
    max_side: int | None = None,
    min_side: int | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw the detections on a copy of `image`, uint8 [H, W, 3] RGB.

    max_side: reduce the result so that its longer side is at most this. min_side: enlarge it by the smallest integer
    factor that makes the longer side at least this, so that labels do not cover a tiny image. A label wider than the
    image is shortened, and omitted if not even three letters fit.
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
    font_size = _font_size(detections, classes, canvas.size)

    boxes = np.clip(np.rint(np.nan_to_num(detections.boxes) * scale), 0, np.tile(canvas.size, 2)).astype(int).tolist()
    best_first = np.argsort(-detections.scores, kind="stable").tolist()
    indices = detections.classes.tolist()
    ids = _identities(detections)
    colours = [colour(identity - 1 if identity else index) for index, identity in zip(indices, ids, strict=True)]
    labels: dict[int, tuple[Rectangle, str]] = {}
    placed: list[Rectangle] = []
    for i in best_first:
        text = _label_text(classes, indices[i], float(detections.scores[i]), font_size, ids[i])
        text = _shorten(text, canvas.size, font_size)
        if text:
            area = _place_label(boxes[i], _label_size(text, font_size), canvas.size, placed, gap=line + 1)
            placed.append(area)
            labels[i] = area, text

    pen = ImageDraw.Draw(canvas)
    for i in reversed(best_first):
        _draw_box(pen, boxes[i], colours[i], line, canvas.size)
    for i in reversed(best_first):
        if i in labels:
            _draw_label(pen, *labels[i], colours[i], font_size)
    return np.array(canvas)


JPEG_LIMIT = 65_500
"""Largest side of a JPEG file, in pixels."""


def save_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] as JPEG (quality 92, no chroma subsampling) or PNG, by the suffix of `path`.

    The write is atomic. Raises UsageError for any other suffix and for an image too large for JPEG.
    """
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"cannot write an image as {path.suffix!r}", where=path, remedy="use .jpg or .png")
    if kind == "JPEG" and max(image.shape) > JPEG_LIMIT:
        raise UsageError(
            "the image is too large for JPEG (at most 65,500 pixels per side)", where=path, remedy="use .png"
        )
    with atomic_write(path, binary=True) as stream:
        Image.fromarray(image).save(stream, kind, quality=92, subsampling=0, comment=MARK, pnginfo=png_mark())


def colour(index: int) -> Colour:
    """Return the fixed colour of a class index, RGB 0…255."""
    named = OKABE_ITO + TOL_MUTED
    if index < len(named):
        red, green, blue = bytes.fromhex(named[index])
        return red, green, blue
    step = index - len(named)
    rgb = colorsys.hsv_to_rgb(step * 0.618034 % 1, (0.85, 0.5)[step % 2], (1.0, 0.75, 0.9)[step % 3])
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


def text_colour(background: Colour) -> Colour:
    """Return black or white, whichever has the higher contrast (WCAG 2) with `background`."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return BLACK if luminance > 0.179 else WHITE  # both contrasts are equal where (L + 0.05) / 0.05 = 1.05 / (L + 0.05)


# --- boxes -----------------------------------------------------------------------------------------------------------


def _draw_box(pen: ImageDraw.ImageDraw, box: Rectangle, fill: Colour, line: int, size: tuple[int, int]) -> None:
    """Draw a coloured line just outside the box (inside it at the image border), with a halo on both sides."""
    x1, y1, x2, y2 = box
    line = max(math.ceil(line / 3), min(line, min(x2 - x1, y2 - y1) // 6))
    halo = max(1, line // 3) if min(size) >= 64 else 0  # in a tiny image it would hide too much
    for outset, width, outline in ((line + halo, line + 2 * halo, text_colour(fill)), (line, line, fill)):
        inset = line + halo - outset
        left, top = max(inset, x1 - outset), max(inset, y1 - outset)
        right, bottom = min(size[0] - 1 - inset, x2 - 1 + outset), min(size[1] - 1 - inset, y2 - 1 + outset)
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=outline, width=width)


# --- labels ----------------------------------------------------------------------------------------------------------


def _font_size(detections: Detections, classes: ClassTable, size: tuple[int, int]) -> int:
    """Return the font size in pixels: by the size of the image, and smaller if the labels would cover much of it."""
    extent = math.sqrt(size[0] * size[1])
    min_size = max(10, min(12, min(size) // 10), round(extent / 110))
    font_size = max(min_size, round(extent / 42))
    columns = (detections.classes.tolist(), detections.scores.tolist(), _identities(detections))
    rows = list(zip(*columns, strict=True))[:MAX_MEASURED]
    while font_size > min_size:
        labels = (_label_size(_label_text(classes, c, score, font_size, i), font_size) for c, score, i in rows)
        if sum(width * height for width, height in labels) <= MAX_LABEL_COVER * extent**2:
            break
        font_size = max(min_size, font_size * 3 // 4)
    return font_size


@lru_cache(maxsize=8)
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _identities(detections: Detections) -> list[int]:
    return [0] * len(detections) if detections.ids is None else detections.ids.tolist()


def _label_text(classes: ClassTable, index: int, score: float, font_size: int, identity: int) -> str:
    name = _renderable(visible(classes.names[index]), font_size) or f"class {classes.ids[index]}"
    return f"{name}{f' #{identity}' if identity else ''} {score:.2f}"


@lru_cache(maxsize=1024)
def _renderable(name: str, font_size: int) -> str:
    """Return `name` if the font has all its characters, else the name without accents, else an empty string.

    Pillow's default font covers little more than ASCII and draws all missing characters as the same glyph.
    """
    font = _font(font_size)
    missing_glyph = bytes(font.getmask("\uffff"))
    without_accents = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    for text in (name, without_accents):
        if all(bytes(font.getmask(letter)) != missing_glyph for letter in set(text)):
            return text
    return ""


def _padding(font_size: int) -> int:
    return max(1, font_size // 5)


def _label_size(text: str, font_size: int) -> tuple[int, int]:
    """Return width and height in pixels, including the padding."""
    left, _, right, _ = _font(font_size).getbbox(text)
    return round(right - left) + 2 * _padding(font_size) + 1, font_size + 2 * _padding(font_size)


def _shorten(text: str, size: tuple[int, int], font_size: int) -> str:
    """Shorten `text` to the width of the image. Returns an empty string if it cannot fit."""
    if _label_size("", font_size)[1] > size[1]:
        return ""
    if _label_size(text, font_size)[0] <= size[0]:
        return text
    for length in range(min(len(text) - 1, 100), 2, -1):
        short = text[:length].rstrip() + "…"
        if _label_size(short, font_size)[0] <= size[0]:
            return short
    return ""


def _place_label(
    box: Rectangle, label: tuple[int, int], size: tuple[int, int], placed: list[Rectangle], *, gap: int
) -> Rectangle:
    """Return the area that overlaps labels already placed least; ties go to the first of `_label_positions`."""
    corners = np.clip(np.array(list(_label_positions(box, label, gap))), 0, np.subtract(size, label))
    areas, others = np.hstack([corners, corners + label])[:, None], np.array(placed, int).reshape(-1, 4)
    sides = np.minimum(areas[..., 2:], others[:, 2:]) - np.maximum(areas[..., :2], others[:, :2])
    overlap = np.clip(sides, 0, None).prod(axis=2).sum(axis=1)
    x1, y1, x2, y2 = areas[overlap.argmin(), 0].tolist()
    return x1, y1, x2, y2


def _label_positions(box: Rectangle, label: tuple[int, int], gap: int) -> Iterator[tuple[int, int]]:
    """Yield top-left corners: at the left, right and centre of the box, each above, inside at the top, below and inside
    at the bottom; then down its left and right sides."""
    x1, y1, x2, y2 = box
    width, height = label
    above = [y1 - height - gap] if y1 >= height + gap else []
    for x in (x1 - gap, x2 + gap - width, (x1 + x2 - width) // 2):
        yield from ((x, y) for y in (*above, y1, y2 + gap, y2 - height))
    for x in (x1 - width - gap, x2 + gap):
        yield from ((x, y) for y in range(y1, max(y1 + 1, y2), height + 1))


def _draw_label(pen: ImageDraw.ImageDraw, area: Rectangle, text: str, fill: Colour, font_size: int) -> None:
    x1, y1, x2, y2 = area
    border = max(1, font_size // 24)
    pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=fill, outline=text_colour(fill), width=border)
    # anchor "lm": the vertical centre of the line, so that names with and without descenders are aligned
    position = (x1 + _padding(font_size) + 1, (y1 + y2) / 2)
    pen.text(position, text, fill=text_colour(fill), font=_font(font_size), anchor="lm")
