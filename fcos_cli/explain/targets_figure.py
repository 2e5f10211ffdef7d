"""Figure of one image's targets: positive points in the colour of their box, and boxes without a point."""

from __future__ import annotations

from fcos_cli.explain.canvas import Canvas
from fcos_cli.explain.figures import GREY
from fcos_cli.explain.heatmaps import resized
from fcos_cli.explain.targets import TruthExplanation
from fcos_cli.predict.draw import BLACK, WHITE, colour, text_colour

RED, IGNORED = (213, 20, 10), (154, 160, 166)
_MARGIN, _LONGEST = 24, 960


def targets_figure(explained: TruthExplanation) -> Canvas:
    """Draw the positive points. Larger dots are of coarser levels; a rim has the colour of a box that lost the point.

    Boxes without a point are dashed red, ignored ones dashed grey.
    """
    image = resized(explained.image, longest=_LONGEST)
    height, width = image.shape[:2]
    lines = _captions(explained)
    canvas = Canvas(max(width, 480) + 2 * _MARGIN, height + 2 * _MARGIN + 24 * len(lines) + 8)
    canvas.paste(image, (_MARGIN, _MARGIN), size=(width, height))
    scale = width / explained.geometry.resized[0], height / explained.geometry.resized[1]

    def at(x: float, y: float) -> tuple[float, float]:
        return _MARGIN + x * scale[0], _MARGIN + y * scale[1]

    for number, box in sorted(enumerate(explained.boxes), key=lambda entry: entry[1].orphan):
        corners = (*at(*box.box[:2]), *at(*box.box[2:]))
        if box.orphan or box.ignore:
            canvas.dashed_rectangle(corners, RED if box.orphan else IGNORED, width=5 if box.orphan else 2)
        else:
            canvas.rectangle(corners, colour(number), width=3, rim=text_colour(colour(number)))
    for point in explained.points:
        radius, position = 4 + 1.2 * point.level, at(*point.xy)
        if point.rivals:
            canvas.dot(position, WHITE, radius=radius + 6, rim=BLACK)
            canvas.dot(position, colour(point.rivals[0]), radius=radius + 4)
        canvas.dot(position, colour(point.box), radius=radius, rim=BLACK)
    for number, box in sorted(enumerate(explained.boxes), key=lambda entry: entry[1].orphan):
        if box.ignore:
            continue
        fill = RED if box.orphan else colour(number)
        name = f"{number + 1} {explained.classes.names[box.index]}"
        x, y = at(*box.box[:2])
        canvas.text((x + 4, max(y - 11, _MARGIN + 11)), name, size=15, colour=text_colour(fill), background=fill)
    for number, (text, shade) in enumerate(lines):
        canvas.text((_MARGIN, height + _MARGIN + 22 + 24 * number), text, size=16, colour=shade)
    return canvas


def _captions(explained: TruthExplanation) -> list[tuple[str, tuple[int, int, int]]]:
    """Lines below the image with their colours."""
    contested = len(explained.contested)
    lines = [(f"{len(explained.points)} positive points, {contested} of them contested by several boxes", GREY)]
    for number in explained.orphans[:6]:
        box = explained.boxes[number]
        lines.append((f"{number + 1} {explained.classes.names[box.index]} gets no point: {box.reason}", RED))
    if len(explained.orphans) > 6:
        lines.append((f"and {len(explained.orphans) - 6} more boxes get no point", RED))
    return lines
