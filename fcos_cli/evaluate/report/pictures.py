"""Images of the report: a JPEG with SVG boxes on top, so that layers and thresholds can be switched.

Correct boxes are solid blue, wrong ones dashed orange and ignored ones dotted grey, which also works without color.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcos_cli.data.boxes import scale_boxes
from fcos_cli.data.images import open_image
from fcos_cli.data.samples import Sample
from fcos_cli.errors import FcosError, one_line
from fcos_cli.evaluate.report.metrics import ReportMetrics
from fcos_cli.evaluate.report.page import text
from fcos_cli.evaluate.report.suspects import ImageErrors, Suspect
from fcos_cli.threads import thread_pool

Rectangle = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]
Item = TypeVar("Item")

SIDE, CROP_SIDE = 480, 300
"""Longer side of an embedded image and of a crop, in pixels."""

MAX_BOXES = 60
"""Maximum number of detections drawn in an image, highest scores first."""


def parallel_map(items: Sequence[Item], work: Callable[[Item], str]) -> list[str]:
    """Apply `work` to every item in several threads. Image decoding releases the GIL."""
    with thread_pool(4, name="fcos-report") as pool:
        return list(pool.map(work, items))


def jpeg(image: Pixels, side: int) -> str:
    """Return a data URI of a uint8 [H, W, 3] image, downscaled to at most `side` pixels on its longer side."""
    resized = Image.fromarray(image)
    resized.thumbnail((side, side))
    stream = io.BytesIO()
    resized.save(stream, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _unreadable(sample: Sample, error: Exception) -> str:
    """The figure of an image that cannot be read."""
    what = error.brief if isinstance(error, FcosError) else f"{sample.image.name}: {one_line(error)}"
    return f"<figure><p>{text(what)}</p></figure>"


def worst_image_figure(row: ImageErrors, metrics: ReportMetrics, sample: Sample, *, key: str) -> str:
    """Return ground truth and detections of an image side by side; the pixels are embedded once."""
    try:
        image = open_image(sample.image)
    except (FcosError, OSError) as error:
        return _unreadable(sample, error)
    view = (0.0, 0.0, float(sample.width), float(sample.height))  # of the boxes; the file's size may be another
    truth, found = _ground_truth_boxes(row.image_index, metrics, view), _detection_boxes(row.image_index, metrics, view)
    pixels = (
        f'<image id="{key}" href="{jpeg(image, SIDE)}" width="{view[2]:g}" height="{view[3]:g}"'
        ' preserveAspectRatio="none"/>'
    )
    wrong = f"{row.false_positives} false positive{'s' * (row.false_positives != 1)}"
    counts = f"{row.found} found, {row.missed} missed, {wrong}; F1 {row.f1:.2f}"
    if len(metrics.matches.of_image(row.image_index)[0]) > MAX_BOXES:
        counts += f"; the {MAX_BOXES} best are drawn"
    name = sample.image.name
    left = svg(f"Ground truth in {name}", view, f'<use href="#{key}"/>{truth}')
    right = svg(f"Detections in {name}", view, f'{pixels}<g class="over-only">{truth}</g>{found}')
    return (
        f'<figure><div class="shots"><div><span>ground truth</span>{left}</div>'
        f"<div><span>detections</span>{right}</div></div>"
        f"<figcaption>{text(name)}: {counts}</figcaption></figure>"
    )


def suspect_figure(suspect: Suspect, metrics: ReportMetrics, sample: Sample) -> str:
    """Return a crop around a suspect label, with the reason as its caption."""
    try:
        image = open_image(sample.image)
    except (FcosError, OSError) as error:
        return _unreadable(sample, error)
    annotated = (sample.width, sample.height)  # the file's size may be another
    left, top, right, bottom = window(suspect.box, *annotated)
    part = scale_boxes(np.array([left, top, right, bottom]), size=annotated, to=image.shape[1::-1])
    (x1, y1), (x2, y2) = np.floor(part[:2]).astype(int), np.ceil(part[2:]).astype(int)
    view = (float(left), float(top), float(right - left), float(bottom - top))
    pixels = (
        f'<image href="{jpeg(image[y1:y2, x1:x2], CROP_SIDE)}" x="{left}" y="{top}"'
        f' width="{right - left}" height="{bottom - top}" preserveAspectRatio="none"/>'
    )
    boxes, names = "", metrics.classes.names
    if suspect.truth_box is not None and suspect.label is not None:
        boxes += box(suspect.truth_box, names[suspect.label], view, css="truth")
    if suspect.detected is not None:
        label = f"{names[suspect.detected]} {suspect.score:.2f}"
        boxes += box(suspect.box, label, view, css="found bad", low=suspect.kind == "class")
    drawing = svg(f"{suspect_reason(suspect, metrics)} {sample.image.name}", view, pixels + boxes)
    return (
        f'<figure class="crop">{drawing}<figcaption>{text(suspect_reason(suspect, metrics))}'
        f'<span class="quiet">{text(sample.image.name)}</span></figcaption></figure>'
    )


def suspect_reason(suspect: Suspect, metrics: ReportMetrics) -> str:
    """Return one sentence on why the label is suspect."""
    names = metrics.classes.names
    detected = "" if suspect.detected is None else names[suspect.detected]
    label = "" if suspect.label is None else names[suspect.label]
    if suspect.kind == "missing":
        return f"Nothing is labeled here; detected {detected} with score {suspect.score:.2f}."
    if suspect.kind == "class":
        return (
            f"Labeled {label}; detected {detected} with score {suspect.score:.2f} in the same place"
            f" (IoU {suspect.overlap:.2f})."
        )
    return f"Labeled {label}; no detection of any class or score nearby (best IoU {suspect.overlap:.2f})."


def window(box: Rectangle, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the 4:3 window around a box, with some margin, as (left, top, right, bottom) in whole pixels.

    The window stays inside the image, and is smaller than 4:3 if the image is too small.
    """
    x1, y1, x2, y2 = box
    crop_width = max((x2 - x1) * 1.5, (y2 - y1) * 1.5 * 4 / 3, 96.0)
    sides = min(crop_width, float(width)), min(crop_width * 3 / 4, float(height))
    left = min(max(0.0, (x1 + x2 - sides[0]) / 2), width - sides[0])
    top = min(max(0.0, (y1 + y2 - sides[1]) / 2), height - sides[1])
    corner = int(left), int(top)
    return *corner, min(width, corner[0] + max(1, round(sides[0]))), min(height, corner[1] + max(1, round(sides[1])))


def svg(label: str, view: Rectangle, content: str) -> str:
    """Return an SVG over a part (x, y, width, height) of an image, in image pixels."""
    x, y, width, height = view
    return f'<svg viewBox="{x:g} {y:g} {width:g} {height:g}" role="img" aria-label="{text(label)}">{content}</svg>'


def box(
    xyxy: Rectangle,
    label: str,
    view: Rectangle,
    *,
    css: str,
    data: str = "",
    low: bool = False,
    taken: list[Rectangle] | None = None,
) -> str:
    """Return a box with a halo and a label, at its top or, if `low`, at its bottom.

    xyxy: in image pixels. view: x, y, width, height. taken: areas of the previous labels, to which this one is added.
    The label moves to a free position; if there is none, it is only a tooltip.
    """
    x1, y1, x2, y2 = xyxy
    rect = f'x="{x1:.1f}" y="{y1:.1f}" width="{max(0.0, x2 - x1):.1f}" height="{max(0.0, y2 - y1):.1f}"'
    font_size = max(view[2], view[3] * 4 / 3) / 20 if taken is None else view[2] / 22  # crops are 4:3
    label_width = 0.62 * font_size * len(label)
    left = max(view[0], min(max(x1, view[0]) + 0.25 * font_size, view[0] + view[2] - label_width))
    drawn = ""
    for baseline in _label_baselines(xyxy, view, font_size, low=low):
        label_rect = (left, baseline - font_size, left + label_width, baseline)
        if not any(_overlap(label_rect, other) for other in taken or ()):
            drawn = f'<text x="{left:.1f}" y="{baseline:.1f}" style="font-size:{font_size:.1f}px">{text(label)}</text>'
            if taken is not None:
                taken.append(label_rect)
            break
    return (
        f'<g class="box {css}"{data}><title>{text(label)}</title><rect class="halo" {rect}/>'
        f'<rect class="edge" {rect}/>{drawn}</g>'
    )


def _label_baselines(xyxy: Rectangle, view: Rectangle, font_size: float, *, low: bool) -> list[float]:
    """Return possible y positions of a label's baseline, best first: inside the box, above it, below it."""
    _, y1, _, y2 = xyxy
    top, bottom = max(y1, view[1]) + font_size, y2 - 0.35 * font_size
    above, below = y1 - 0.3 * font_size, y2 + 1.1 * font_size
    small = y2 - y1 < 3 * font_size
    order = [bottom, top] if low else [above, below, top] if small else [top, bottom, above, below]
    last = view[1] + view[3] - 2
    return [line for line in order if view[1] + font_size <= line <= last] or [min(top, last)]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ground_truth_boxes(image_index: int, metrics: ReportMetrics, view: Rectangle) -> str:
    matches, drawn = metrics.matches, ""
    taken: list[Rectangle] = []
    found = matches.found(metrics.thresholds)
    for i in matches.of_image(image_index)[1]:
        name = metrics.classes.names[matches.truth_classes[i]]
        css, data = "ignored", ""
        if not matches.truth_ignored[i]:
            css = "" if found[i] else "bad"
            data = f' data-own="{int(found[i])}" data-score="{matches.match_scores[i]:.4f}"'
        css = f"truth {css}"
        drawn += box(_to_rectangle(matches.truth_boxes[i]), name, view, css=css, data=data, taken=taken)
    return drawn


def _detection_boxes(image_index: int, metrics: ReportMetrics, view: Rectangle) -> str:
    matches = metrics.matches
    taken: list[Rectangle] = []
    shown = matches.scores >= metrics.thresholds[matches.classes]
    rows, _ = matches.of_image(image_index)
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")][:MAX_BOXES]
    correct, wrong = "", ""
    for i in rows:  # the best detection picks its label position first and is drawn last
        css = "ignored" if matches.ignored[i] else "" if matches.hit[i] else "bad"
        label = f"{metrics.classes.names[matches.classes[i]]} {matches.scores[i]:.2f}"
        data = f' data-own="{int(shown[i])}" data-score="{matches.scores[i]:.4f}"'
        off = "" if shown[i] else " off"
        drawn = box(_to_rectangle(matches.boxes[i]), label, view, css=f"found {css}{off}", data=data, taken=taken)
        if css == "bad":
            wrong = drawn + wrong
        else:
            correct = drawn + correct
    return correct + wrong  # false positives last, or a true positive in the same place would hide them


def _to_rectangle(row: npt.NDArray[np.float64]) -> Rectangle:
    x1, y1, x2, y2 = row.tolist()
    return x1, y1, x2, y2
