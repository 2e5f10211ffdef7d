"""Charts as inline SVG: lines, columns, a reliability diagram, an interval.

Colors come from classes of the page's style sheet, so charts follow the light and dark themes. Coordinates are CSS
pixels in a frame of 440 × 280, which scales with the width of its column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fcos_cli.evaluate.report import page

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 44


@dataclass(frozen=True)
class Line:
    """Points of a curve, in data units; NaN breaks the line.

    name: shown as a tooltip. css: CSS classes. key: identifies the line in a chooser.
    """

    name: str
    points: Sequence[tuple[float, float]]
    css: str = "one"
    key: str = ""


@dataclass(frozen=True)
class Axis:
    """Range low…high, with a label and ticks (value, text)."""

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def fraction(self, value: float) -> float:
        """Return the position of `value` on the axis: 0 at low, 1 at high, clamped."""
        return min(1.0, max(0.0, (value - self.low) / ((self.high - self.low) or 1.0)))


UNIT_TICKS = [(v / 5, f"{v / 5:g}") for v in range(6)]


def unit(label: str) -> Axis:
    """Return an axis from 0 to 1."""
    return Axis(label, 0, 1, UNIT_TICKS)


RECALL, PRECISION = unit("recall"), unit("precision")
THRESHOLD, F1 = unit("threshold"), unit("F1")
SCORE, BIN_PRECISION = unit("score"), unit("precision")
BOX_SIZE = "lower edge of the box size in px (square root of the area)"


def nice_ticks(label: str, low: float, high: float, *, whole: bool = False) -> Axis:
    """Return an axis over low…high with about five round ticks. whole: use integers only."""
    if not math.isfinite(low) or not math.isfinite(high) or high <= low:
        low, high = (low, low + 1) if math.isfinite(low) else (0.0, 1.0)
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    step = max(step, 1) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [(i * step, _tick(i * step)) for i in range(first, last + 1)]
    return Axis(label, ticks[0][0], ticks[-1][0], ticks)


def _tick(value: float) -> str:
    """Format a tick, such as 1,000 or 0.25 or 2e-4, short enough for the margin."""
    return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 0.01 else f"{value:,.6g}"


def line_chart(title: str, lines: Sequence[Line], *, x: Axis, y: Axis, marks: Sequence[Line] = ()) -> str:
    """Draw curves on shared axes. marks: points drawn as dots, selected together with the line of the same key."""
    body = [_axes(x, y)]
    for line in lines:
        path = _path(line.points, x, y)
        if path:
            body.append(f'<path class="line {line.css}"{_key(line.key)} d="{path}">{_title(line.name)}</path>')
    for mark in marks:
        body += [
            f'<circle class="dot {mark.css}"{_key(mark.key)} cx="{_x(x, a):.1f}" cy="{_y(y, b):.1f}" r="5">'
            f"{_title(mark.name)}</circle>"
            for a, b in mark.points
        ]
    return _svg(title, body)


def column_chart(
    title: str, names: Sequence[str], series: Sequence[tuple[str, str, Sequence[float]]], *, x: str
) -> str:
    """Draw groups of columns from 0 to 1. Negative values are omitted.

    series: (name, CSS class, one value per group).
    """
    y = unit("")
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(names))
    column_width = slot * 0.8 / len(series)
    label_step = math.ceil(len(names) / 12)
    body = [_axes(Axis(x, 0, 1, []), y)]
    for position, (label, css, values) in enumerate(series):
        for i, value in enumerate(values):
            if value >= 0:
                left, top = LEFT + slot * (i + 0.1) + column_width * position, _y(y, value)
                body.append(
                    f'<rect class="column {css}" x="{left:.1f}" y="{top:.1f}" width="{column_width:.1f}"'
                    f' height="{HEIGHT - BOTTOM - top:.1f}">{_title(f"{names[i]}: {label} {value:.3f}")}</rect>'
                )
    for i, name in enumerate(names):
        if i % label_step == 0:
            body.append(_text(LEFT + slot * (i + 0.5), HEIGHT - BOTTOM + 16, name, "middle"))
    return _svg(title, body)


def reliability_chart(title: str, bins: Sequence[tuple[float, float, float, float, int]]) -> str:
    """Draw columns of precision per score bin against the diagonal; bins with few detections are faint.

    bins: (low, high, mean score, precision, count).
    """
    x, y = SCORE, BIN_PRECISION
    body, dots = [_axes(x, y)], []
    for low, high, confidence, accuracy, count in bins:
        if not count:
            continue
        text = (
            f"{count:,} detections with scores {low:.1f} to {high:.1f}:"
            f" mean score {confidence:.3f}, precision {accuracy:.3f}"
        )
        left, top = _x(x, low) + 1, _y(y, accuracy)
        body.append(
            f'<rect class="column{" faint" if count < 20 else ""}" x="{left:.1f}" y="{top:.1f}"'
            f' width="{_x(x, high) - left - 1:.1f}" height="{HEIGHT - BOTTOM - top:.1f}">{_title(text)}</rect>'
        )
        dots.append(f'<circle class="dot on" cx="{_x(x, confidence):.1f}" cy="{top:.1f}" r="4">{_title(text)}</circle>')
    diagonal = f'<path class="line diagonal" d="M{_x(x, 0):.1f} {_y(y, 0):.1f}L{_x(x, 1):.1f} {_y(y, 1):.1f}"/>'
    return _svg(title, [*body, diagonal, *dots])


def legend(rows: Sequence[tuple[str, str]]) -> str:
    """Return a legend of (name, CSS class) per curve, for charts that need one."""
    items = "".join(
        f'<li><svg viewBox="0 0 28 10" aria-hidden="true"><path class="line {css}" d="M1 5H27"/></svg>'
        f"{page.text(name)}</li>"
        for name, css in rows
    )
    return f'<ul class="legend">{items}</ul>'


def interval(low: float, middle: float, high: float, *, reach: float) -> str:
    """Draw a small interval on a scale of ± `reach` around zero, for a table cell next to its numbers."""

    def at(value: float) -> float:
        return 80 + 76 * max(-1.0, min(1.0, value / (reach or 1.0)))

    css = "better" if low > 0 else "worse" if high < 0 else "even"
    return (
        '<svg class="interval" viewBox="0 0 160 20" aria-hidden="true" focusable="false">'
        '<path class="zero" d="M80 0V20"/>'
        f'<path class="{css}" d="M{at(low):.1f} 10H{at(high):.1f}"/>'
        f'<circle class="{css}" cx="{at(middle):.1f}" cy="10" r="4"/></svg>'
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _svg(title: str, body: Sequence[str]) -> str:
    name = page.text(title)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(body)}</svg>'


def _axes(x: Axis, y: Axis) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, text in y.ticks:
        at = _y(y, value)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>' + _text(LEFT - 6, at + 4, text, "end"))
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    parts += [_text(_x(x, value), bottom + 16, text, "middle") for value, text in x.ticks]
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x.label, "middle"))
    if y.label:
        middle = (TOP + bottom) / 2
        parts.append(
            f'<text x="12" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 12 {middle:.1f})">'
            f"{page.text(y.label)}</text>"
        )
    return "".join(parts)


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.fraction(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return TOP + (1 - axis.fraction(value)) * (HEIGHT - TOP - BOTTOM)


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    parts, pen = [], "M"
    for a, b in points:
        if math.isnan(a) or math.isnan(b):
            pen = "M"
            continue
        parts.append(f"{pen}{_x(x, a):.1f} {_y(y, b):.1f}")
        pen = "L"
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{page.text(text)}</text>'


def _title(text: str) -> str:
    return f"<title>{page.text(text)}</title>" if text else ""


def _key(key: str) -> str:
    return f' data-key="{page.text(key)}"' if key else ""
