"""The HTML page of an explanation: one self-contained file that needs no server or network.

Its template, style and scripts are in `assets/explain`; this module fills in the data. Maps are embedded as small PNGs
with one pixel per point.
"""

from __future__ import annotations

import html
import json
from typing import Any, Literal

import numpy as np

from fcos_cli.console import visible
from fcos_cli.explain.heatmaps import RAMP, Bytes, Floats, data_uri, mosaic, resized
from fcos_cli.explain.points import Explanation
from fcos_cli.model.config import level_name
from fcos_cli.model.points import Grid
from fcos_cli.predict.draw import colour, text_colour
from fcos_cli.resources import ASSETS

_PARTS = ASSETS / "explain"
_LONGEST = 1280  # longer side of the image in the page, px


def detections_page(explained: Explanation, *, title: str, model: str, score: float | None = None) -> str:
    """The page of one image's detections. score: initial threshold; None = the model's own, per class."""
    facts = explained.facts
    width, height = explained.geometry.resized
    limited = "scores" if facts.conventions.threshold_on == "score" else "class probabilities"
    document = {
        **common(explained.image, explained.geometry.resized),
        "subtitle": f"{model}, image at {width} × {height} px of network input: {len(explained.detections)} detections "
        f"with {limited} of at least {facts.score_threshold:g}, after NMS per class at IoU > {facts.nms_iou:g}.",
        "threshold": score,
        "lowest": min([facts.score_threshold, *explained.detections.scores.tolist()]),
        "rule": facts.conventions.score,
        "iou": facts.nms_iou,
        "classes": [
            {**paint(index), "name": name, "threshold": facts.thresholds[index]}
            for index, name in enumerate(facts.classes.names)
        ],
        "levels": [
            level_facts(
                level.grid, {"class": level.classes, "centerness": level.centerness[None], "score": level.scores}
            )
            for level in explained.levels
        ],
        "detections": _detections(explained),
    }
    return assemble("found", title=title, alt=f"image {title}", document=document)


def common(image: Bytes, size: tuple[int, int]) -> dict[str, Any]:
    """Data that both kinds of page share. size: (width, height) of the image in the network input."""
    embedded = resized(image, longest=_LONGEST) if max(image.shape) > _LONGEST else image
    return {
        "picture": data_uri(embedded, "JPEG"),
        "source": [image.shape[1], image.shape[0]],
        "size": list(size),
        "ramp": RAMP,
    }


def level_facts(grid: Grid, maps: dict[str, Floats]) -> dict[str, Any]:
    """Data of a level. maps: by name, values 0…1 [N, h, w]."""
    return {
        "name": level_name(grid.stride),
        "stride": grid.stride,
        "spacing": list(grid.spacing[::-1]),
        "offset": grid.offset,
        "w": grid.width,
        "h": grid.height,
        "maps": {name: mosaic(values) for name, values in maps.items()},
    }


def paint(index: int) -> dict[str, str]:
    """CSS colours of a class or box and of text on it."""
    fill = colour(index)
    return {"colour": "#{:02x}{:02x}{:02x}".format(*fill), "ink": "#{:02x}{:02x}{:02x}".format(*text_colour(fill))}


def rounded(values: Floats, digits: int) -> Any:
    """Values rounded to `digits` decimals, as nested lists."""
    return np.round(values.astype(np.float64), digits).tolist()


def assemble(kind: Literal["found", "truth"], *, title: str, alt: str, document: dict[str, Any]) -> str:
    """Insert style, script and data into the page template."""
    # file names may contain lone surrogates, which UTF-8 cannot encode; `<` must not end the script element early
    facts = json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "title": html.escape(visible(title)),
        "alt": html.escape(visible(alt)),
        "style": _part("page.css"),
        "script": _part("stage.js") + _part(f"{kind}.js"),
        "data": facts,
    }
    pieces = _part("page.html").split("{{")
    return pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))


def _detections(explained: Explanation) -> list[dict[str, Any]]:
    detections, rows = explained.detections, []
    for number in range(len(detections)):
        votes = explained.votes.of(number)
        columns = {
            "level": votes.level.tolist(),
            "xy": rounded(votes.xy, 1),
            "ltrb": rounded(votes.ltrb, 1),
            "probability": rounded(votes.probability, 3),
            "centerness": rounded(votes.centerness, 3),
            "score": rounded(votes.score, 3),
            "iou": rounded(votes.iou, 2),
        }
        rows.append(
            {
                "box": rounded(detections.boxes[number], 1),
                "score": float(detections.scores[number]),
                "class": int(detections.classes[number]),
                "level": int(detections.levels[number]),
                "votes": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
            }
        )
    return rows


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")
