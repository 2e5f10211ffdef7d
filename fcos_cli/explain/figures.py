"""Figures of one image: per-point outputs level by level, and the points behind a detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from fcos_cli.explain.canvas import Box, Canvas, Point
from fcos_cli.explain.heatmaps import RAMP, Bytes, Floats, normalize, over
from fcos_cli.explain.points import Explanation, LevelMaps
from fcos_cli.predict.draw import BLACK, WHITE, Colour, colour, text_colour
from fcos_cli.predict.selection import report_thresholds

LOW, MIDDLE, HIGH = (213, 94, 0), (240, 228, 66), (0, 158, 115)  # vermilion, yellow, bluish green (Okabe and Ito)
GREY = (110, 110, 110)
_MARGIN, _GAP, _TITLE = 24, 14, 26
_MAX_CLASSES = 3  # rows of a figure


def classes_figure(explained: Explanation, *, score: float | None = None) -> Canvas:
    """Class probabilities per point: a panel per level (columns) and detected class (rows, at most three).

    Each point is a dot: green and large for a high probability, red and small for a low one. score: lowest of a
    detection; None = the model's own thresholds.
    """
    rows = shown_classes(explained, score=score)
    width, height = panel_size(explained, 300)
    canvas, corners = _panels(explained, (width, height), rows=[explained.facts.classes.names[row] for row in rows])
    image = shown(explained, (width, height), fade=0.55)
    scale = width / explained.geometry.resized[0]
    for (left, top), (row, level) in zip(corners, [(r, x) for r in rows for x in explained.levels], strict=True):
        canvas.paste(image, (left, top), size=(width, height))
        radius = min(9.0, 0.42 * level.grid.stride * scale)
        for (px, py), value in _points(level, level.classes[row]):
            x, y = left + px * scale, top + py * scale
            if x < left + width and y < top + height:
                rim = BLACK if value > 0.3 else None
                canvas.dot((x, y), _signal(value), radius=radius * (0.45 + 0.55 * value), rim=rim)
    legend(canvas, "class probability", [_signal(step / 40) for step in range(41)])
    return canvas


def centerness_figure(explained: Explanation) -> Canvas:
    """Centerness per point, one panel per level."""
    width, height = panel_size(explained, 300)
    canvas, corners = _panels(explained, (width, height), rows=[""])
    image = shown(explained, (width, height))
    for corner, level in zip(corners, explained.levels, strict=True):
        canvas.paste(over(image, field(explained, level, level.centerness, image)), corner, size=(width, height))
    legend(canvas, "centerness", RAMP)
    return canvas


def detection_figure(explained: Explanation, detection: int = 0) -> Canvas:
    """A detection, the points that voted for it, and the four distances of its own point.

    Without such a detection, the figure shows only the image.
    """
    width, height = panel_size(explained, 960)
    canvas = Canvas(width + 2 * _MARGIN, height + 2 * _MARGIN + 2 * _TITLE)
    canvas.paste(shown(explained, (width, height)), (_MARGIN, _MARGIN), size=(width, height))
    detections = explained.detections
    if detection >= len(detections):
        canvas.text((_MARGIN, height + _MARGIN + _TITLE), "no detections", size=18)
        return canvas
    scale = width / explained.geometry.resized[0]
    votes = explained.votes.of(detection)
    fill = colour(int(detections.classes[detection]))
    frame = (_MARGIN, _MARGIN, _MARGIN + width, _MARGIN + height)
    canvas.rectangle(_on_canvas(detections.boxes[detection].tolist(), scale), fill, width=4, rim=text_colour(fill))
    # points may be in the padding, outside the image
    visible = [n for n in reversed(range(len(votes))) if (votes.xy[n] < explained.geometry.resized).all()]
    for number in visible:
        _draw_distances(canvas, votes.xy[number].tolist(), votes.ltrb[number].tolist(), scale, frame, own=number == 0)
    for number in visible:
        x, y = votes.xy[number].tolist()
        point = _MARGIN + x * scale, _MARGIN + y * scale
        own = number == 0
        canvas.dot(point, WHITE if own else fill, radius=8 if own else 3 + 4 * float(votes.score[number]), rim=BLACK)
    _label_distances(canvas, votes.xy[0].tolist(), votes.ltrb[0].tolist(), scale, frame)
    name = explained.facts.classes.names[int(detections.classes[detection])]
    rule = "sqrt(class · centerness)" if explained.facts.conventions.score == "sqrt" else "class · centerness"
    canvas.text(
        (_MARGIN, height + _MARGIN + 18),
        f"{name} {detections.scores[detection]:.2f} = {rule}: class {votes.probability[0]:.2f}, centerness "
        f"{votes.centerness[0]:.2f}, from {explained.levels[int(detections.levels[detection])].name}",
        size=18,
    )
    canvas.text(
        (_MARGIN, height + _MARGIN + 44),
        f"{len(votes)} {'points' if len(votes) > 1 else 'point'} voted for it, {len(votes) - len(visible)} of them in "
        "the padding outside the image; l, t, r, b in px of network input",
        size=15,
        colour=GREY,
    )
    return canvas


# --- shared parts ----------------------------------------------------------------------------------------------------


def shown_classes(explained: Explanation, *, score: float | None = None) -> list[int]:
    """Classes with a detection at `score`, or else the model's own thresholds, best first; else the class with the
    highest score.
    """
    detections = explained.detections
    thresholds = report_thresholds(explained.facts, score=score, chosen=None)
    classes = detections.classes[detections.scores >= thresholds[detections.classes]].tolist()
    best = int(np.argmax(np.max([level.scores.max((1, 2)) for level in explained.levels], axis=0)))
    return list(dict.fromkeys(classes))[:_MAX_CLASSES] or [best]


def panel_size(explained: Explanation, longest: int) -> tuple[int, int]:
    """(width, height) of the image with its longer side scaled to `longest`, at least 24 px each."""
    height, width = explained.image.shape[:2]
    scale = longest / max(width, height)
    return max(24, round(width * scale)), max(24, round(height * scale))


def shown(explained: Explanation, size: tuple[int, int], *, fade: float = 0.0) -> Bytes:
    """The image resized to (width, height), blended with white by `fade`."""
    image = Image.fromarray(explained.image).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(Image.blend(image, Image.new("RGB", size, "white"), fade))


def field(explained: Explanation, level: LevelMaps, values: Floats, image: Bytes) -> Floats:
    """The values of a level, one per pixel of `image`, which is the whole image at any size."""
    return normalize(values, level.grid, size=explained.geometry.resized, shape=(image.shape[0], image.shape[1]))


def legend(canvas: Canvas, label: str, ramp: Sequence[Colour]) -> None:
    """Draw a colour bar from 0 to 1 at the bottom of the canvas."""
    left, bottom, length = _MARGIN, canvas.size[1] - _MARGIN, 260
    canvas.text((left, bottom), "0", size=14)
    steps = np.linspace(0, len(ramp) - 1, length)
    channels = [np.interp(steps, range(len(ramp)), [shade[c] for shade in ramp]) for c in range(3)]
    bar = np.rint(np.stack(channels, -1)).astype(np.uint8)[None].repeat(12, 0)
    canvas.paste(bar, (left + 16, bottom - 6), size=(length, 12))
    canvas.text((left + length + 22, bottom), "1", size=14)
    canvas.text((left + length + 44, bottom), label, size=14, colour=GREY)


def _panels(explained: Explanation, size: tuple[int, int], *, rows: list[str]) -> tuple[Canvas, list[Point]]:
    """A canvas for levels (columns) × rows with titles, and the upper left corners of its panels, row by row."""
    width, height = size
    label = 20 if any(rows) else 0
    columns = len(explained.levels)
    canvas = Canvas(
        2 * _MARGIN + columns * (width + _GAP) - _GAP,
        2 * _MARGIN + _TITLE + len(rows) * (height + _GAP + label) + 18,
    )
    corners: list[Point] = []
    for number, level in enumerate(explained.levels):
        title = f"{level.name}, stride {level.grid.stride}"
        canvas.text((_MARGIN + number * (width + _GAP) + width / 2, _MARGIN + 6), title, size=16, anchor="mm")
    for row, name in enumerate(rows):
        top = _MARGIN + _TITLE + row * (height + _GAP + label)
        canvas.text((_MARGIN, top + 4), name, size=15, colour=GREY)
        corners += [(_MARGIN + number * (width + _GAP), top + label) for number in range(columns)]
    return canvas, corners


def _points(level: LevelMaps, values: Floats) -> list[tuple[Point, float]]:
    """Every point of a level with its value, lowest first, so that high values are drawn on top."""
    dy, dx = level.grid.spacing
    offset = level.grid.offset
    points = [(((x + offset) * dx, (y + offset) * dy), float(values[y, x])) for y, x in np.ndindex(*values.shape)]
    return sorted(points, key=lambda point: point[1])


def _signal(value: float) -> Colour:
    """Vermilion at 0, yellow at 0.5, green at 1."""
    low, high, share = (LOW, MIDDLE, 2 * value) if value < 0.5 else (MIDDLE, HIGH, 2 * value - 1)
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _on_canvas(box: Sequence[float], scale: float) -> Box:
    x1, y1, x2, y2 = (_MARGIN + value * scale for value in box)
    return x1, y1, x2, y2


def _draw_distances(
    canvas: Canvas, xy: Sequence[float], ltrb: Sequence[float], scale: float, frame: Box, *, own: bool
) -> None:
    """Draw lines from a point to its four predicted edges, clipped to the image."""
    x1, y1, x2, y2 = _clip(
        _on_canvas((xy[0] - ltrb[0], xy[1] - ltrb[1], xy[0] + ltrb[2], xy[1] + ltrb[3]), scale), frame
    )
    x, y = _MARGIN + xy[0] * scale, _MARGIN + xy[1] * scale
    width, rim = (3.0, BLACK) if own else (1.0, None)
    shade = WHITE if own else (225, 225, 225)
    canvas.line([(x1, y), (x2, y)], shade, width=width, rim=rim)
    canvas.line([(x, y1), (x, y2)], shade, width=width, rim=rim)


def _label_distances(canvas: Canvas, xy: Sequence[float], ltrb: Sequence[float], scale: float, frame: Box) -> None:
    x, y = _MARGIN + xy[0] * scale, _MARGIN + xy[1] * scale
    x1, y1, x2, y2 = _clip(
        _on_canvas((xy[0] - ltrb[0], xy[1] - ltrb[1], xy[0] + ltrb[2], xy[1] + ltrb[3]), scale), frame
    )
    middles = (((x + x1) / 2, y), (x, (y + y1) / 2), ((x + x2) / 2, y), (x, (y + y2) / 2))
    for name, value, middle in zip("ltrb", ltrb, middles, strict=True):
        canvas.text(middle, f"{name} {value:.0f}", size=18, colour=WHITE, anchor="mm", background=(30, 30, 30))


def _clip(box: Box, frame: Box) -> Box:
    left, top, right, bottom = frame
    return max(left, box[0]), max(top, box[1]), min(right, box[2]), min(bottom, box[3])
