"""Figures for papers: what one picture's points say, level by level, and the points behind a detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fcos_cli.explain.canvas import Box, Canvas, Place
from fcos_cli.explain.heatmaps import RAMP, Bytes, Floats, normalize, over
from fcos_cli.explain.points import Explanation, LevelMaps
from fcos_cli.predict.draw import BLACK, WHITE, Colour, colour, text_colour

LOW, MIDDLE, HIGH = (213, 94, 0), (240, 228, 66), (0, 158, 115)  # Okabe and Ito's vermilion, yellow, bluish green
GREY = (110, 110, 110)
_MARGIN, _GAP, _TITLE = 24, 14, 26
_ROWS = 3  # classes in one figure


def classes_figure(explained: Explanation) -> Canvas:
    """Class probabilities per point: a panel per level (columns) for each class found (rows, at most three).

    A point is a dot, green and large where the class is likely, red and small where it is not.
    """
    rows = shown_classes(explained)
    width, height = panel_size(explained, 300)
    canvas, places = _panels(explained, (width, height), rows=[explained.facts.classes.names[row] for row in rows])
    pale = shown(explained, (width, height), fade=0.55)
    scale = width / explained.geometry.resized[0]
    for (left, top), (row, level) in zip(places, [(r, x) for r in rows for x in explained.levels], strict=True):
        canvas.paste(pale, (left, top), size=(width, height))
        reach = min(9.0, 0.42 * level.grid.stride * scale)
        for at, value in _points(level, level.classes[row]):
            place = left + at[0] * scale, top + at[1] * scale
            if place[0] < left + width and place[1] < top + height:
                canvas.dot(
                    place, _signal(value), radius=reach * (0.45 + 0.55 * value), rim=BLACK if value > 0.3 else None
                )
    legend(canvas, "probability of the class", [_signal(step / 40) for step in range(41)])
    return canvas


def centerness_figure(explained: Explanation) -> Canvas:
    """Centerness per point, a panel per level."""
    width, height = panel_size(explained, 300)
    canvas, places = _panels(explained, (width, height), rows=[""])
    picture = shown(explained, (width, height))
    for place, level in zip(places, explained.levels, strict=True):
        canvas.paste(over(picture, field(explained, level, level.centerness, picture)), place, size=(width, height))
    legend(canvas, "centerness", RAMP)
    return canvas


def detection_figure(explained: Explanation, detection: int = 0) -> Canvas:
    """A detection, the points that voted for it, and its own point's four distances. The picture where none is."""
    width, height = panel_size(explained, 960)
    canvas = Canvas(width + 2 * _MARGIN, height + 2 * _MARGIN + 2 * _TITLE)
    picture = shown(explained, (width, height))
    canvas.paste(picture, (_MARGIN, _MARGIN), size=(width, height))
    found = explained.detections
    if detection >= len(found):
        canvas.text((_MARGIN, height + _MARGIN + _TITLE), "nothing found", size=18)
        return canvas
    scale = width / explained.geometry.resized[0]
    votes = explained.votes.of(detection)
    fill = colour(int(found.classes[detection]))
    inside = _inside(_MARGIN, _MARGIN, width, height)
    canvas.rectangle(_on(found.boxes[detection].tolist(), scale), fill, width=4, rim=text_colour(fill))
    # points may lie in the padding, beside the picture
    seen = [n for n in reversed(range(len(votes))) if (votes.xy[n] < explained.geometry.resized).all()]
    for number in seen:
        _arms(canvas, votes.xy[number].tolist(), votes.ltrb[number].tolist(), scale, inside, first=number == 0)
    for number in seen:
        x, y = votes.xy[number].tolist()
        place = _MARGIN + x * scale, _MARGIN + y * scale
        first = number == 0
        canvas.dot(
            place, WHITE if first else fill, radius=8 if first else 3 + 4 * float(votes.score[number]), rim=BLACK
        )
    _number_arms(canvas, votes.xy[0].tolist(), votes.ltrb[0].tolist(), scale, inside)
    name = explained.facts.classes.names[int(found.classes[detection])]
    rule = "sqrt(class · centerness)" if explained.facts.conventions.score == "sqrt" else "class · centerness"
    canvas.text(
        (_MARGIN, height + _MARGIN + 18),
        f"{name} {found.scores[detection]:.2f} = {rule} of {votes.probability[0]:.2f} and {votes.centerness[0]:.2f}, "
        f"from {explained.levels[int(found.levels[detection])].name}",
        size=18,
    )
    canvas.text(
        (_MARGIN, height + _MARGIN + 44),
        f"{len(votes)} {'points' if len(votes) > 1 else 'point'} voted for it, {len(votes) - len(seen)} of them in the "
        "padding outside the picture; l, t, r, b in px of network input",
        size=15,
        colour=GREY,
    )
    return canvas


# --- what the figures share ------------------------------------------------------------------------------------------


def shown_classes(explained: Explanation) -> list[int]:
    """Classes with a detection at the model's own thresholds, best first; else the class with the highest score."""
    found, facts = explained.detections, explained.facts
    own = facts.class_thresholds or (facts.threshold,) * len(facts.classes)
    rows = [
        index for index, score in zip(found.classes.tolist(), found.scores.tolist(), strict=True) if score >= own[index]
    ]
    best = int(np.argmax(np.max([level.scores.max((1, 2)) for level in explained.levels], axis=0)))
    return list(dict.fromkeys(rows))[:_ROWS] or [best]


def panel_size(explained: Explanation, longest: int) -> tuple[int, int]:
    """(width, height) of the picture with its longer side as given, and at least 24 px the other."""
    height, width = explained.image.shape[:2]
    scale = longest / max(width, height)
    return max(24, round(width * scale)), max(24, round(height * scale))


def shown(explained: Explanation, size: tuple[int, int], *, fade: float = 0.0) -> Bytes:
    """The picture at that (width, height), blended with white by `fade`."""
    picture = Image.fromarray(explained.image).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(Image.blend(picture, Image.new("RGB", size, "white"), fade))


def field(explained: Explanation, level: LevelMaps, values: Floats, picture: Bytes) -> Floats:
    """The values of a level as pixels of `picture`, which shows the whole picture at any size."""
    return normalize(values, level.grid, size=explained.geometry.resized, shape=(picture.shape[0], picture.shape[1]))


def legend(canvas: Canvas, words: str, ramp: Sequence[Colour]) -> None:
    """A bar of colours from 0 to 1 at the foot of the sheet."""
    left, foot, length = _MARGIN, canvas.size[1] - _MARGIN, 260
    canvas.text((left, foot), "0", size=14)
    steps = np.linspace(0, len(ramp) - 1, length)
    channels = [np.interp(steps, range(len(ramp)), [shade[c] for shade in ramp]) for c in range(3)]
    bar = np.rint(np.stack(channels, -1)).astype(np.uint8)[None].repeat(12, 0)
    canvas.paste(bar, (left + 16, foot - 6), size=(length, 12))
    canvas.text((left + length + 22, foot), "1", size=14)
    canvas.text((left + length + 44, foot), words, size=14, colour=GREY)


def _panels(explained: Explanation, size: tuple[int, int], *, rows: list[str]) -> tuple[Canvas, list[Place]]:
    """A sheet for levels (columns) × rows, titles written; the upper left corners of the panels, row by row."""
    width, height = size
    named = 20 if any(rows) else 0
    columns = len(explained.levels)
    canvas = Canvas(
        2 * _MARGIN + columns * (width + _GAP) - _GAP,
        2 * _MARGIN + _TITLE + len(rows) * (height + _GAP + named) + 18,
    )
    places: list[Place] = []
    for number, level in enumerate(explained.levels):
        words = f"{level.name}, stride {level.grid.stride}"
        canvas.text((_MARGIN + number * (width + _GAP) + width / 2, _MARGIN + 6), words, size=16, anchor="mm")
    for row, name in enumerate(rows):
        top = _MARGIN + _TITLE + row * (height + _GAP + named)
        canvas.text((_MARGIN, top + 4), name, size=15, colour=GREY)
        places += [(_MARGIN + number * (width + _GAP), top + named) for number in range(columns)]
    return canvas, places


def _points(level: LevelMaps, values: Floats) -> list[tuple[Place, float]]:
    """Every point of a level with its value, the lowest first, so that high ones are drawn over them."""
    down, across = level.grid.spacing
    offset = level.grid.offset
    marks = [(((x + offset) * across, (y + offset) * down), float(values[y, x])) for y, x in np.ndindex(*values.shape)]
    return sorted(marks, key=lambda mark: mark[1])


def _signal(value: float) -> Colour:
    """Vermilion at 0, yellow at a half, green at 1."""
    low, high, share = (LOW, MIDDLE, 2 * value) if value < 0.5 else (MIDDLE, HIGH, 2 * value - 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _on(box: Sequence[float], scale: float) -> Box:
    x1, y1, x2, y2 = (_MARGIN + value * scale for value in box)
    return x1, y1, x2, y2


def _inside(left: float, top: float, width: float, height: float) -> Box:
    return left, top, left + width, top + height


def _arms(
    canvas: Canvas, xy: Sequence[float], ltrb: Sequence[float], scale: float, inside: Box, *, first: bool
) -> None:
    """Lines from a point to the four edges that it predicts, cut off where the picture ends."""
    x1, y1, x2, y2 = _cut(_on((xy[0] - ltrb[0], xy[1] - ltrb[1], xy[0] + ltrb[2], xy[1] + ltrb[3]), scale), inside)
    x, y = _MARGIN + xy[0] * scale, _MARGIN + xy[1] * scale
    width, rim = (3.0, BLACK) if first else (1.0, None)
    shade = WHITE if first else (225, 225, 225)
    canvas.line([(x1, y), (x2, y)], shade, width=width, rim=rim)
    canvas.line([(x, y1), (x, y2)], shade, width=width, rim=rim)


def _number_arms(canvas: Canvas, xy: Sequence[float], ltrb: Sequence[float], scale: float, inside: Box) -> None:
    x, y = _MARGIN + xy[0] * scale, _MARGIN + xy[1] * scale
    x1, y1, x2, y2 = _cut(_on((xy[0] - ltrb[0], xy[1] - ltrb[1], xy[0] + ltrb[2], xy[1] + ltrb[3]), scale), inside)
    middles = (((x + x1) / 2, y), (x, (y + y1) / 2), ((x + x2) / 2, y), (x, (y + y2) / 2))
    for name, value, place in zip("ltrb", ltrb, middles, strict=True):
        canvas.text(place, f"{name} {value:.0f}", size=18, colour=WHITE, anchor="mm", ground=(30, 30, 30))


def _cut(box: Box, inside: Box) -> Box:
    left, top, right, bottom = inside
    return max(left, box[0]), max(top, box[1]), min(right, box[2]), min(bottom, box[3])
