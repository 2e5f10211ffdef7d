"""The complete model in one figure: picture → pyramid levels → class, centerness and box maps → final boxes.

Every map is the network's own answer to this picture; P7 stands at the top, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcos_cli.explain.canvas import Canvas, Place
from fcos_cli.explain.figures import GREY, field, legend, shown
from fcos_cli.explain.heatmaps import RAMP, Bytes, Floats, colours, over
from fcos_cli.explain.points import Explanation, LevelMaps
from fcos_cli.predict.draw import BLACK, colour, text_colour
from fcos_cli.predict.run import display_thresholds
from fcos_cli.runtime.results import Detections

_MARGIN, _GAP, _HEAD = 24, 16, 60
_INPUT, _PYRAMID, _FINAL, _ARROW, _SHARED = 250, 190, 330, 44, 40
_MAP = (150, 130)  # most a map may take up, width and height


def model_figure(explained: Explanation) -> Canvas:
    """The whole way of one picture through the network. Scores are those of the best class at each point."""
    ratio = explained.image.shape[0] / explained.image.shape[1]
    wide = max(20, min(_MAP[0], round(_MAP[1] / ratio)))
    size = wide, max(8, round(wide * ratio))
    row = max(size[1], 30) + _GAP
    body = max(row * len(explained.levels), min(round(_FINAL * ratio), 700))
    lefts = _columns(wide)
    canvas = Canvas(lefts["final"] + _FINAL + _MARGIN, _HEAD + body + 76)
    middle = _HEAD + body / 2

    _end(canvas, explained.image, lefts["input"], _INPUT, middle, "image")
    corner, width = _end(canvas, explained.image, lefts["final"], _FINAL, middle, "detections after NMS")
    _detections(canvas, explained, corner, width)
    _heads(canvas, explained, lefts, wide)
    picture = shown(explained, size)
    top = middle - row * len(explained.levels) / 2
    span = (top + row / 2, top + row * (len(explained.levels) - 0.5))
    for number, level in enumerate(reversed(explained.levels)):
        at = top + number * row + row / 2
        _pyramid(canvas, explained, level, lefts["pyramid"], at, size)
        _arrows(canvas, lefts, at, wide)
        for name, values in _maps(level, explained).items():
            canvas.paste(values(picture), (lefts[name], at - size[1] / 2), size=size)
    _shared_head(canvas, lefts["shared"], span)
    x = lefts["input"] + _INPUT
    canvas.arrow((x + 6, middle), (x + _ARROW - 6, middle))
    x = lefts["box"] + wide
    canvas.line([(x + 8, span[0]), (x + 14, span[0]), (x + 14, span[1]), (x + 8, span[1])], (0, 0, 0), width=1.5)
    canvas.arrow((x + 14, middle), (x + _ARROW - 4, middle))
    legend(canvas, "class, centerness, score; box: l, t, r, b as a share of the level's longest distance", RAMP)
    return canvas


def _columns(wide: int) -> dict[str, float]:
    """Left edges."""
    widths = {"input": _INPUT + _ARROW, "pyramid": _PYRAMID + _ARROW, "shared": _SHARED + _ARROW}
    widths |= dict.fromkeys(("class", "centerness", "score"), wide + _GAP)
    widths["box"] = wide + _ARROW
    lefts, at = {}, float(_MARGIN)
    for name, width in widths.items():
        lefts[name] = at
        at += width
    return {**lefts, "final": at}


def _maps(level: LevelMaps, explained: Explanation) -> dict[str, Callable[[Bytes], Bytes]]:
    """By column, what is shown there of a level, over a small picture."""
    longest = float(level.ltrb.max()) or 1.0

    def heat(values: Floats) -> Callable[[Bytes], Bytes]:
        return lambda picture: over(picture, field(explained, level, values, picture))

    def four(picture: Bytes) -> Bytes:
        """l and t above r and b."""
        parts = [colours(field(explained, level, side / longest, picture)) for side in level.ltrb]
        sheet = np.concatenate((np.concatenate(parts[:2], 1), np.concatenate(parts[2:], 1)))
        sheet[picture.shape[0] - 1 : picture.shape[0] + 1] = 255
        sheet[:, picture.shape[1] - 1 : picture.shape[1] + 1] = 255
        return sheet

    return {
        "class": heat(level.classes.max(0)),
        "centerness": heat(level.centerness),
        "score": heat(level.scores.max(0)),
        "box": four,
    }


def _detections(canvas: Canvas, explained: Explanation, corner: Place, width: float) -> None:
    """What the model's own thresholds let through, over a picture that lies at `corner`, `width` wide."""
    found, facts = explained.detections, explained.facts
    scale = width / explained.geometry.resized[0]
    visible = Detections(found.boxes, found.scores, found.classes).above(display_thresholds(facts))
    for number in reversed(range(len(visible))):
        fill = colour(int(visible.classes[number]))
        limit = (np.tile(explained.geometry.resized, 2) * scale).tolist()
        x1, y1, x2, y2 = (min(v * scale, end) for v, end in zip(visible.boxes[number].tolist(), limit, strict=True))
        box = corner[0] + x1, corner[1] + y1, corner[0] + x2, corner[1] + y2
        canvas.rectangle(box, fill, width=2.5, rim=text_colour(fill))
        words = f"{facts.classes.names[int(visible.classes[number])]} {visible.scores[number]:.2f}"
        canvas.text((box[0] + 5, box[1] + 11), words, size=13, colour=text_colour(fill), ground=fill)


def _end(canvas: Canvas, image: Bytes, left: float, width: int, middle: float, words: str) -> tuple[Place, float]:
    """A picture at one end of the figure, centred at the height `middle`, at most 700 px high: its corner and width."""
    height, wide = image.shape[:2]
    scale = min(width / wide, 700 / height)
    size = wide * scale, height * scale
    at = left + (width - size[0]) / 2, middle - size[1] / 2
    canvas.paste(image, at, size=size)
    canvas.text((left + width / 2, at[1] - 14), words, size=16, anchor="mm")
    return at, size[0]


def _heads(canvas: Canvas, explained: Explanation, lefts: dict[str, float], wide: int) -> None:
    rule = "sqrt(cl. · cent.)" if explained.facts.conventions.score == "sqrt" else "class · centern."
    names = {"class": "class", "centerness": "centerness", "score": "score", "box": "box"}
    notes = {"class": f"best of {len(explained.facts.classes)}", "score": rule, "box": "l t / r b"}
    for words, height, size in (("feature pyramid", 34, 16), ("of the backbone: strength of features", 14, 12)):
        place = lefts["pyramid"] + 40 + wide / 2, _HEAD - height
        canvas.text(place, words, size=size, colour=GREY if size == 12 else BLACK, anchor="mm")
    for name, words in names.items():
        canvas.text((lefts[name] + wide / 2, _HEAD - 34), words, size=16, anchor="mm")
        canvas.text((lefts[name] + wide / 2, _HEAD - 14), notes.get(name, ""), size=12, colour=GREY, anchor="mm")


def _pyramid(
    canvas: Canvas, explained: Explanation, level: LevelMaps, left: float, at: float, size: tuple[int, int]
) -> None:
    """A level's features, the smaller the coarser, with its name."""
    number = int(level.name[1:]) - 3
    share = 1 - 0.14 * number
    width, height = size[0] * share, size[1] * share
    middle = left + 40 + size[0] / 2
    if level.features is not None:
        small = shown(explained, size)
        grey = 255 * (1 - 0.9 * field(explained, level, level.features, small))
        sheet = np.rint(grey)[..., None].repeat(3, -1).astype(np.uint8)
        box = canvas.paste(sheet, (middle - width / 2, at - height / 2), size=(width, height))
        canvas.rectangle(box, GREY, width=1)
    canvas.text((left, at - 8), level.name, size=16)
    canvas.text((left, at + 10), f"/{level.grid.stride}", size=12, colour=GREY)


def _arrows(canvas: Canvas, lefts: dict[str, float], at: float, wide: int) -> None:
    start = lefts["pyramid"] + 40 + wide + 4
    canvas.arrow((start, at), (lefts["shared"] - 3, at))
    canvas.arrow((lefts["shared"] + _SHARED + 3, at), (lefts["class"] - 5, at))


def _shared_head(canvas: Canvas, left: float, span: Place) -> None:
    box = (left, span[0] - 24, left + _SHARED, span[1] + 24)
    canvas.rectangle(box, GREY, width=1.5)
    for number, letter in enumerate("shared"):
        canvas.text((left + _SHARED / 2, (span[0] + span[1]) / 2 - 80 + 18 * number), letter, size=15, anchor="mm")
    for number, letter in enumerate("head"):
        canvas.text((left + _SHARED / 2, (span[0] + span[1]) / 2 + 44 + 18 * number), letter, size=15, anchor="mm")
