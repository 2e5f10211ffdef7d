"""The complete model in one figure: image → pyramid levels → class, centerness and box maps → final boxes.

All maps are the network's own outputs for this image. The coarsest level is at the top, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fcos_cli.explain.canvas import Canvas, Point
from fcos_cli.explain.figures import GREY, field, legend, shown
from fcos_cli.explain.heatmaps import RAMP, Bytes, Floats, colours, over
from fcos_cli.explain.points import Explanation, LevelMaps
from fcos_cli.predict.draw import BLACK, colour, text_colour
from fcos_cli.predict.selection import report_thresholds
from fcos_cli.runtime.results import Detections

_MARGIN, _GAP, _HEAD = 24, 16, 60
_INPUT, _PYRAMID, _FINAL, _ARROW, _SHARED = 250, 190, 330, 44, 40
_MAP = (150, 130)  # largest width and height of a map
_NARROWEST = 96  # column of maps, for its title


def model_figure(explained: Explanation, *, score: float | None = None) -> Canvas:
    """Draw the path of one image through the network. Scores are those of the best class at each point.

    score: lowest of the final detections; None = the model's own thresholds.
    """
    ratio = explained.image.shape[0] / explained.image.shape[1]
    size = _map_size(ratio)
    map_width = max(_NARROWEST, size[0])
    row = max(size[1], 30) + _GAP
    height = max(row * len(explained.levels), min(round(_FINAL * ratio), 700))
    lefts = _columns(map_width)
    canvas = Canvas(lefts["final"] + _FINAL + _MARGIN, _HEAD + height + 76)
    middle = _HEAD + height / 2

    _image(canvas, explained.image, lefts["input"], _INPUT, middle, "image")
    corner, width = _image(canvas, explained.image, lefts["final"], _FINAL, middle, "detections after NMS")
    _detections(canvas, explained, corner, width, score=score)
    _titles(canvas, explained, lefts, map_width)
    image = shown(explained, size)
    top = middle - row * len(explained.levels) / 2
    span = (top + row / 2, top + row * (len(explained.levels) - 0.5))
    for number, level in enumerate(explained.levels):
        y = top + (len(explained.levels) - 1 - number) * row + row / 2
        _pyramid(canvas, explained, number, lefts["pyramid"], y, size)
        _arrows(canvas, lefts, y, map_width)
        for name, render in _maps(level, explained).items():
            canvas.paste(render(image), (lefts[name] + (map_width - size[0]) / 2, y - size[1] / 2), size=size)
    _shared_head(canvas, lefts["shared"], span)
    x = lefts["input"] + _INPUT
    canvas.arrow((x + 6, middle), (x + _ARROW - 6, middle))
    x = lefts["box"] + map_width
    canvas.line([(x + 8, span[0]), (x + 14, span[0]), (x + 14, span[1]), (x + 8, span[1])], (0, 0, 0), width=1.5)
    canvas.arrow((x + 14, middle), (x + _ARROW - 4, middle))
    legend(canvas, "class, centerness, score; box: l, t, r, b as a share of the level's longest distance", RAMP)
    return canvas


def _map_size(ratio: float) -> tuple[int, int]:
    """(width, height) of a map of an image with this height / width: as large as fits in _MAP, at least 8 px each."""
    width = min(_MAP[0], _MAP[1] / ratio)
    return max(8, round(width)), max(8, round(width * ratio))


def _columns(map_width: int) -> dict[str, float]:
    """Left edge of each column."""
    widths = {"input": _INPUT + _ARROW, "pyramid": _PYRAMID + _ARROW, "shared": _SHARED + _ARROW}
    widths |= dict.fromkeys(("class", "centerness", "score"), map_width + _GAP)
    widths["box"] = map_width + _ARROW
    lefts, left = {}, float(_MARGIN)
    for name, width in widths.items():
        lefts[name] = left
        left += width
    return {**lefts, "final": left}


def _maps(level: LevelMaps, explained: Explanation) -> dict[str, Callable[[Bytes], Bytes]]:
    """For each column, a function that renders the map of a level over a small image."""
    longest = float(level.ltrb.max()) or 1.0

    def heat(values: Floats) -> Callable[[Bytes], Bytes]:
        return lambda image: over(image, field(explained, level, values, image))

    def distances(image: Bytes) -> Bytes:
        """l and t above r and b."""
        parts = [colours(field(explained, level, side / longest, image)) for side in level.ltrb]
        sheet = np.concatenate((np.concatenate(parts[:2], 1), np.concatenate(parts[2:], 1)))
        sheet[image.shape[0] - 1 : image.shape[0] + 1] = 255
        sheet[:, image.shape[1] - 1 : image.shape[1] + 1] = 255
        return sheet

    return {
        "class": heat(level.classes.max(0)),
        "centerness": heat(level.centerness),
        "score": heat(level.scores.max(0)),
        "box": distances,
    }


def _detections(canvas: Canvas, explained: Explanation, corner: Point, width: float, *, score: float | None) -> None:
    """Draw the detections that `fcos predict` shows over an image of width `width` at `corner`."""
    detections, facts = explained.detections, explained.facts
    scale = width / explained.geometry.resized[0]
    visible = Detections(detections.boxes, detections.scores, detections.classes).above(
        report_thresholds(facts, score=score, chosen=None)
    )
    for number in reversed(range(len(visible))):
        fill = colour(int(visible.classes[number]))
        x1, y1, x2, y2 = (visible.boxes[number] * scale).tolist()
        box = corner[0] + x1, corner[1] + y1, corner[0] + x2, corner[1] + y2
        canvas.rectangle(box, fill, width=2.5, rim=text_colour(fill))
        label = f"{facts.classes.names[int(visible.classes[number])]} {visible.scores[number]:.2f}"
        canvas.text((box[0] + 5, box[1] + 11), label, size=13, colour=text_colour(fill), background=fill)


def _image(canvas: Canvas, image: Bytes, left: float, width: int, middle: float, title: str) -> tuple[Point, float]:
    """Draw an image with a title, vertically centred at `middle`, at most 700 px high. Returns its corner and width."""
    scale = min(width / image.shape[1], 700 / image.shape[0])
    size = image.shape[1] * scale, image.shape[0] * scale
    corner = left + (width - size[0]) / 2, middle - size[1] / 2
    canvas.paste(image, corner, size=size)
    canvas.text((left + width / 2, corner[1] - 14), title, size=16, anchor="mm")
    return corner, size[0]


def _titles(canvas: Canvas, explained: Explanation, lefts: dict[str, float], map_width: int) -> None:
    rule = "sqrt(cl. · cent.)" if explained.facts.conventions.score == "sqrt" else "class · centern."
    names = {"class": "class", "centerness": "centerness", "score": "score", "box": "box"}
    notes = {"class": f"best of {len(explained.facts.classes)}", "score": rule, "box": "l t / r b"}
    for text, height, size in (("feature pyramid", 34, 16), ("activation strength", 14, 12)):
        position = lefts["pyramid"] + 40 + map_width / 2, _HEAD - height
        canvas.text(position, text, size=size, colour=GREY if size == 12 else BLACK, anchor="mm")
    for name, title in names.items():
        canvas.text((lefts[name] + map_width / 2, _HEAD - 34), title, size=16, anchor="mm")
        canvas.text((lefts[name] + map_width / 2, _HEAD - 14), notes.get(name, ""), size=12, colour=GREY, anchor="mm")


def _pyramid(canvas: Canvas, explained: Explanation, number: int, left: float, y: float, size: tuple[int, int]) -> None:
    """Draw the features of level `number` (0 = finest), smaller for coarser levels, with its name."""
    level = explained.levels[number]
    share = 1 - 0.14 * number
    width, height = size[0] * share, size[1] * share
    middle = left + 40 + max(_NARROWEST, size[0]) / 2
    if level.features is not None:
        small = shown(explained, size)
        grey = 255 * (1 - 0.9 * field(explained, level, level.features, small))
        sheet = np.rint(grey)[..., None].repeat(3, -1).astype(np.uint8)
        box = canvas.paste(sheet, (middle - width / 2, y - height / 2), size=(width, height))
        canvas.rectangle(box, GREY, width=1)
    canvas.text((left, y - 8), level.name, size=16)
    canvas.text((left, y + 10), f"/{level.grid.stride}", size=12, colour=GREY)


def _arrows(canvas: Canvas, lefts: dict[str, float], y: float, map_width: int) -> None:
    start = lefts["pyramid"] + 40 + map_width + 4
    canvas.arrow((start, y), (lefts["shared"] - 3, y))
    canvas.arrow((lefts["shared"] + _SHARED + 3, y), (lefts["class"] - 5, y))


def _shared_head(canvas: Canvas, left: float, span: Point) -> None:
    box = (left, span[0] - 24, left + _SHARED, span[1] + 24)
    canvas.rectangle(box, GREY, width=1.5)
    for number, letter in enumerate("shared"):
        canvas.text((left + _SHARED / 2, (span[0] + span[1]) / 2 - 80 + 18 * number), letter, size=15, anchor="mm")
    for number, letter in enumerate("head"):
        canvas.text((left + _SHARED / 2, (span[0] + span[1]) / 2 + 44 + 18 * number), letter, size=15, anchor="mm")
