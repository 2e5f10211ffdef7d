"""Pictures of a report: JPEG in the page, boxes over them as SVG, so that layers and thresholds can be switched.

Right is a solid blue line, wrong a broken orange one, ignored a dotted grey one: told apart without colours too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.evaluate.report.numbers import Numbers
from fcos_cli.evaluate.report.page import text
from fcos_cli.evaluate.report.suspects import PictureErrors, Suspect

Rectangle = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]
Item = TypeVar("Item")

SIDE, CROP_SIDE = 480, 300
"""Longer side of a picture and of a crop in the page, pixels."""

MOST_BOXES = 60
"""Detections drawn in a picture, the best; those that `predict` shows are among them."""


def embed_pictures(items: Sequence[Item], work: Callable[[Item], str]) -> list[str]:
    """`work` on every item, several at a time: decoding releases the interpreter's lock."""
    with ThreadPoolExecutor(4, thread_name_prefix="fcos-report") as pool:
        return list(pool.map(work, items))


def jpeg(image: Pixels, side: int) -> str:
    """A data URI of uint8 [H, W, 3], reduced so that its longer side is at most `side`."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def worst_picture(row: PictureErrors, numbers: Numbers, sample: Sample, *, key: str) -> str:
    """Truth and detections of one picture side by side, the pixels in the page once."""
    try:
        image = open_image(sample.image)
    except (DataError, OSError) as error:
        return f"<figure><p>{text(error)}</p></figure>"
    view = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    truth, found = _truth_boxes(row.picture, numbers, view), _found_boxes(row.picture, numbers, view)
    pixels = (
        f'<image id="{key}" href="{jpeg(image, SIDE)}" width="{view[2]:g}" height="{view[3]:g}"'
        ' preserveAspectRatio="none"/>'
    )
    counts = f"{row.found} found, {row.missed} missed, {row.false} false alarms; F1 {row.f1:.2f}"
    name = sample.image.name
    left = svg(f"Truth in {name}", view, f'<use href="#{key}"/>{truth}')
    right = svg(f"Detections in {name}", view, f'{pixels}<g class="over-only">{truth}</g>{found}')
    return (
        f'<figure><div class="shots"><div><span>truth</span>{left}</div><div><span>detections</span>{right}</div></div>'
        f"<figcaption>{text(name)}: {counts}</figcaption></figure>"
    )


def suspect_crop(suspect: Suspect, numbers: Numbers, sample: Sample) -> str:
    """The neighbourhood of a suspect label, and why it is one."""
    try:
        image = open_image(sample.image)
    except (DataError, OSError) as error:
        return f"<figure><p>{text(error)}</p></figure>"
    left, top, right, bottom = window(suspect.box, image.shape[1], image.shape[0])
    view = (float(left), float(top), float(right - left), float(bottom - top))
    pixels = (
        f'<image href="{jpeg(image[top:bottom, left:right], CROP_SIDE)}" x="{left}" y="{top}"'
        f' width="{right - left}" height="{bottom - top}" preserveAspectRatio="none"/>'
    )
    boxes, names = "", numbers.classes.names
    if suspect.truth_box is not None and suspect.label is not None:
        boxes += box(suspect.truth_box, names[suspect.label], view, css="truth")
    if suspect.seen is not None:
        label = f"{names[suspect.seen]} {suspect.score:.2f}"
        boxes += box(suspect.box, label, view, css="found bad", low=suspect.kind == "class")
    drawing = svg(f"{suspect_reason(suspect, numbers)} {sample.image.name}", view, pixels + boxes)
    return (
        f'<figure class="crop">{drawing}<figcaption>{text(suspect_reason(suspect, numbers))}'
        f'<span class="quiet">{text(sample.image.name)}</span></figcaption></figure>'
    )


def suspect_reason(suspect: Suspect, numbers: Numbers) -> str:
    """One sentence on what makes the label suspect."""
    names = numbers.classes.names
    seen = "" if suspect.seen is None else names[suspect.seen]
    label = "" if suspect.label is None else names[suspect.label]
    if suspect.kind == "missing":
        return f"Nothing is labelled here; {seen} is seen with {suspect.score:.2f}."
    if suspect.kind == "class":
        return (
            f"Labelled {label}; {seen} is seen with {suspect.score:.2f} in the same place (IoU {suspect.overlap:.2f})."
        )
    return f"Labelled {label}; no detection of any class comes near, however unsure (best IoU {suspect.overlap:.2f})."


def window(around: Rectangle, width: int, height: int) -> tuple[int, int, int, int]:
    """Whole pixels (left, top, right, bottom) of a 4:3 window with room around a box, inside the picture if it fits."""
    x1, y1, x2, y2 = around
    wide = max((x2 - x1) * 1.5, (y2 - y1) * 1.5 * 4 / 3, 96.0)
    sides = min(wide, float(width)), min(wide * 3 / 4, float(height))
    left = min(max(0.0, (x1 + x2 - sides[0]) / 2), width - sides[0])
    top = min(max(0.0, (y1 + y2 - sides[1]) / 2), height - sides[1])
    low = int(left), int(top)
    return *low, min(width, low[0] + max(1, round(sides[0]))), min(height, low[1] + max(1, round(sides[1])))


def svg(label: str, view: Rectangle, content: str) -> str:
    """A drawing over a part (x, y, width, height) of a picture, in its pixels."""
    x, y, wide, high = view
    return f'<svg viewBox="{x:g} {y:g} {wide:g} {high:g}" role="img" aria-label="{text(label)}">{content}</svg>'


def box(
    place: Rectangle,
    label: str,
    view: Rectangle,
    *,
    css: str,
    data: str = "",
    low: bool = False,
    taken: list[Rectangle] | None = None,
) -> str:
    """A box with a halo and its label, at its top or `low` at its bottom. place: xyxy; view: x, y, width, height.

    taken: places of the labels before, to which this one is added; it moves out of their way, or else is a tooltip.
    """
    x1, y1, x2, y2 = place
    rect = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}"'
    letters = max(view[2], view[3] * 4 / 3) / 20 if taken is None else view[2] / 22  # crops stand in frames of 4:3
    wide = 0.62 * letters * len(label)
    left = max(view[0], min(max(x1, view[0]) + 0.25 * letters, view[0] + view[2] - wide))
    drawn = ""
    for down in _lines(place, view, letters, low=low):
        spot = (left, down - letters, left + wide, down)
        if not any(_meet(spot, other) for other in taken or ()):
            drawn = f'<text x="{left:.1f}" y="{down:.1f}" style="font-size:{letters:.1f}px">{text(label)}</text>'
            if taken is not None:
                taken.append(spot)
            break
    return (
        f'<g class="box {css}"{data}><title>{text(label)}</title><rect class="halo" {rect}/>'
        f'<rect class="edge" {rect}/>{drawn}</g>'
    )


def _lines(place: Rectangle, view: Rectangle, letters: float, *, low: bool) -> list[float]:
    """Where the line of a label may lie (y of its foot), the best first: within the box, above it, below it."""
    _, y1, _, y2 = place
    top, bottom = max(y1, view[1]) + letters, y2 - 0.35 * letters
    above, below = y1 - 0.3 * letters, y2 + 1.1 * letters
    small = y2 - y1 < 3 * letters
    order = [bottom, top] if low else [above, below, top] if small else [top, bottom, above, below]
    last = view[1] + view[3] - 2
    return [line for line in order if view[1] + letters <= line <= last] or [min(top, last)]


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _truth_boxes(picture: int, numbers: Numbers, view: Rectangle) -> str:
    matches, drawn = numbers.matches, ""
    taken: list[Rectangle] = []
    found = matches.found(numbers.thresholds)
    for i in np.flatnonzero(matches.truth_picture == picture):
        name = numbers.classes.names[matches.truth_classes[i]]
        css, data = "ignored", ""
        if not matches.truth_ignored[i]:
            css = "" if found[i] else "bad"
            data = f' data-own="{int(found[i])}" data-score="{matches.found_at[i]:.4f}"'
        css = f"truth {css}"
        drawn += box(_rectangle(matches.truth_boxes[i]), name, view, css=css, data=data, taken=taken)
    return drawn


def _found_boxes(picture: int, numbers: Numbers, view: Rectangle) -> str:
    matches = numbers.matches
    taken: list[Rectangle] = []
    shown = matches.scores >= numbers.thresholds[matches.classes]
    mine = np.flatnonzero(matches.picture == picture)
    mine = mine[np.argsort(-matches.scores[mine], kind="stable")][:MOST_BOXES]
    right, wrong = "", ""
    for i in mine:  # the best has the first choice of a place for its label, and is painted last of its kind
        css = "ignored" if matches.ignored[i] else "" if matches.hit[i] else "bad"
        label = f"{numbers.classes.names[matches.classes[i]]} {matches.scores[i]:.2f}"
        data = f' data-own="{int(shown[i])}" data-score="{matches.scores[i]:.4f}"'
        off = "" if shown[i] else " off"
        drawn = box(_rectangle(matches.boxes[i]), label, view, css=f"found {css}{off}", data=data, taken=taken)
        if css == "bad":
            wrong = drawn + wrong
        else:
            right = drawn + right
    return right + wrong  # a false alarm in the same place as a hit would not be seen below it


def _rectangle(row: npt.NDArray[np.float64]) -> Rectangle:
    x1, y1, x2, y2 = row.tolist()
    return x1, y1, x2, y2
