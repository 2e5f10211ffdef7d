"""A white canvas for figures: drawing with Pillow in plain coordinates, antialiased by supersampling."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcos_cli.atomic import atomic_write
from fcos_cli.console import visible
from fcos_cli.explain.heatmaps import Bytes
from fcos_cli.predict.draw import BLACK, Colour
from fcos_cli.predict.mark import png_mark

Point = tuple[float, float]
Box = tuple[float, float, float, float]
_SUPERSAMPLING = 2  # the sheet is drawn larger by this factor and then shrunk


class Canvas:
    """A canvas of `width` × `height` px. All coordinates are in these pixels; (0, 0) is the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.size = math.ceil(width), math.ceil(height)
        self.sheet = Image.new("RGB", (self.size[0] * _SUPERSAMPLING, self.size[1] * _SUPERSAMPLING), "white")
        self.pen = ImageDraw.Draw(self.sheet)

    def paste(self, image: Bytes, at: Point, *, size: tuple[float, float]) -> Box:
        """Paste an image uint8 [H, W, 3] at `size` (width, height). Returns the box that it covers."""
        pixels = max(1, round(size[0] * _SUPERSAMPLING)), max(1, round(size[1] * _SUPERSAMPLING))
        scaled = Image.fromarray(image).resize(pixels, Image.Resampling.LANCZOS)
        self.sheet.paste(scaled, (round(at[0] * _SUPERSAMPLING), round(at[1] * _SUPERSAMPLING)))
        return (*at, at[0] + size[0], at[1] + size[1])

    def line(self, points: list[Point], colour: Colour, *, width: float = 1, rim: Colour | None = None) -> None:
        """Draw a line through the points. rim: colour of a thin outline on both sides."""
        scaled = [(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in points]
        if rim is not None:
            self.pen.line(scaled, fill=rim, width=round((width + 2) * _SUPERSAMPLING), joint="curve")
        self.pen.line(scaled, fill=colour, width=max(1, round(width * _SUPERSAMPLING)), joint="curve")

    def dashed(self, start: Point, end: Point, colour: Colour, *, width: float, dash: float = 10) -> None:
        length = math.dist(start, end)
        position = 0.0
        while position < length:
            ends = [
                (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
                for share in (position / length, min(1.0, (position + dash) / length))
            ]
            self.line(ends, colour, width=width)
            position += 1.6 * dash

    def rectangle(self, box: Box, colour: Colour, *, width: float = 2, rim: Colour | None = None) -> None:
        x1, y1, x2, y2 = box
        self.line([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1), (x2, y1)], colour, width=width, rim=rim)

    def dashed_rectangle(self, box: Box, colour: Colour, *, width: float) -> None:
        x1, y1, x2, y2 = box
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
        for start, end in pairwise(corners):
            self.dashed(start, end, colour, width=width)

    def dot(self, at: Point, colour: Colour, *, radius: float, rim: Colour | None = None) -> None:
        for r, fill in ((radius + 1, rim), (radius, colour)):
            if fill is not None:
                box = [(v + sign * r) * _SUPERSAMPLING for sign in (-1, 1) for v in at]
                self.pen.ellipse(box, fill=fill)

    def arrow(self, start: Point, end: Point, colour: Colour = BLACK, *, width: float = 1.5) -> None:
        """Draw a line with an arrowhead at its end."""
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        back = end[0] - 6 * math.cos(angle), end[1] - 6 * math.sin(angle)
        self.line([start, back], colour, width=width)
        sides = [(end[0] - 8 * math.cos(angle + turn), end[1] - 8 * math.sin(angle + turn)) for turn in (-0.45, 0.45)]
        self.pen.polygon([(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in (end, *sides)], fill=colour)

    def text(
        self,
        at: Point,
        text: str,
        *,
        size: float = 14,
        colour: Colour = BLACK,
        anchor: str = "lm",
        background: Colour | None = None,
    ) -> None:
        """Write text at a point. anchor: as in Pillow (`mm` = centred). background: colour behind the text."""
        font = ImageFont.load_default(size=size * _SUPERSAMPLING)
        position = at[0] * _SUPERSAMPLING, at[1] * _SUPERSAMPLING
        text = "".join(letter if _has_glyph(letter) else "?" for letter in _without_accents(visible(text)))
        if background is not None:
            left, top, right, bottom = self.pen.textbbox(position, text, font=font, anchor=anchor)
            margin = 3 * _SUPERSAMPLING
            self.pen.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=background)
        self.pen.text(position, text, fill=colour, font=font, anchor=anchor)

    def pixels(self) -> Bytes:
        """The canvas as uint8 [height, width, 3]."""
        return np.asarray(self.sheet.resize(self.size, Image.Resampling.BOX))

    def write(self, path: Path) -> None:
        """Write the canvas as PNG, atomically."""
        with atomic_write(path, binary=True) as stream:
            Image.fromarray(self.pixels()).save(stream, "PNG", pnginfo=png_mark())


def _without_accents(text: str) -> str:
    """Remove accents, since Pillow's own font has little more than ASCII."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


@lru_cache(maxsize=1024)
def _has_glyph(letter: str) -> bool:
    """Whether the font has a glyph for `letter`; all missing ones look the same."""
    font = ImageFont.load_default(size=20)
    return bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
