"""A white sheet for figures: Pillow drawing in plain coordinates, smooth because it is drawn larger and shrunk."""

from __future__ import annotations

import math
import unicodedata
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcos_cli.atomic import atomic_write
from fcos_cli.explain.heatmaps import Bytes
from fcos_cli.predict.draw import BLACK, Colour

Place = tuple[float, float]
Box = tuple[float, float, float, float]
_FINER = 2


class Canvas:
    """`width` × `height` px. Everything is drawn in these pixels, (0, 0) is the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.size = math.ceil(width), math.ceil(height)
        self.sheet = Image.new("RGB", (self.size[0] * _FINER, self.size[1] * _FINER), "white")
        self.pen = ImageDraw.Draw(self.sheet)

    def paste(self, picture: Bytes, at: Place, *, size: tuple[float, float]) -> Box:
        """Lay a picture uint8 [H, W, 3] on the sheet, `size` (width, height) large; the box that it covers."""
        whole = max(1, round(size[0] * _FINER)), max(1, round(size[1] * _FINER))
        scaled = Image.fromarray(picture).resize(whole, Image.Resampling.LANCZOS)
        self.sheet.paste(scaled, (round(at[0] * _FINER), round(at[1] * _FINER)))
        return (*at, at[0] + size[0], at[1] + size[1])

    def line(self, places: list[Place], colour: Colour, *, width: float = 1, rim: Colour | None = None) -> None:
        """A line through the places; rim: the colour of a thin edge on both of its sides."""
        whole = [(x * _FINER, y * _FINER) for x, y in places]
        if rim is not None:
            self.pen.line(whole, fill=rim, width=round((width + 2) * _FINER), joint="curve")
        self.pen.line(whole, fill=colour, width=max(1, round(width * _FINER)), joint="curve")

    def dashed(self, start: Place, end: Place, colour: Colour, *, width: float, dash: float = 10) -> None:
        length = math.dist(start, end)
        at = 0.0
        while at < length:
            ends = [
                (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
                for share in (at / length, min(1.0, (at + dash) / length))
            ]
            self.line(ends, colour, width=width)
            at += 1.6 * dash

    def rectangle(self, box: Box, colour: Colour, *, width: float = 2, rim: Colour | None = None) -> None:
        x1, y1, x2, y2 = box
        self.line([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1), (x2, y1)], colour, width=width, rim=rim)

    def dashed_rectangle(self, box: Box, colour: Colour, *, width: float) -> None:
        x1, y1, x2, y2 = box
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
        for start, end in pairwise(corners):
            self.dashed(start, end, colour, width=width)

    def dot(self, at: Place, colour: Colour, *, radius: float, rim: Colour | None = None) -> None:
        for reach, fill in ((radius + 1, rim), (radius, colour)):
            if fill is not None:
                spot = [(v + sign * reach) * _FINER for sign in (-1, 1) for v in at]
                self.pen.ellipse(spot, fill=fill)

    def arrow(self, start: Place, end: Place, colour: Colour = BLACK, *, width: float = 1.5) -> None:
        """A line with a head at its end."""
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        back = end[0] - 6 * math.cos(angle), end[1] - 6 * math.sin(angle)
        self.line([start, back], colour, width=width)
        sides = [(end[0] - 8 * math.cos(angle + turn), end[1] - 8 * math.sin(angle + turn)) for turn in (-0.45, 0.45)]
        self.pen.polygon([(x * _FINER, y * _FINER) for x, y in (end, *sides)], fill=colour)

    def text(
        self,
        at: Place,
        words: str,
        *,
        size: float = 14,
        colour: Colour = BLACK,
        anchor: str = "lm",
        ground: Colour | None = None,
    ) -> None:
        """Words at a place; anchor as Pillow's (`mm` = centred). ground: colour of a patch behind them."""
        font = ImageFont.load_default(size=size * _FINER)
        place = at[0] * _FINER, at[1] * _FINER
        words = "".join(letter if _known(letter) else "?" for letter in _bare(words))
        if ground is not None:
            left, top, right, bottom = self.pen.textbbox(place, words, font=font, anchor=anchor)
            margin = 3 * _FINER
            self.pen.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=ground)
        self.pen.text(place, words, fill=colour, font=font, anchor=anchor)

    def pixels(self) -> Bytes:
        """The sheet, uint8 [height, width, 3]."""
        return np.asarray(self.sheet.resize(self.size, Image.Resampling.BOX))

    def write(self, path: Path) -> None:
        """As PNG; the file appears under its name only when it is whole."""
        with atomic_write(path, binary=True) as stream:
            Image.fromarray(self.pixels()).save(stream, "PNG")


def _bare(words: str) -> str:
    """Without accents: Pillow's own font knows little more than ASCII."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", words) if not unicodedata.combining(letter))


@lru_cache(maxsize=1024)
def _known(letter: str) -> bool:
    """Can the font write it? All that it lacks give the same sign."""
    font = ImageFont.load_default(size=20)
    return bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))
