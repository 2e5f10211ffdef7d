"""The HTML page of a truth: boxes, the points that learn them, and the boxes that no point learns."""

from __future__ import annotations

from typing import Any

from fcos_cli.explain.page import assemble, common, level_facts, paint
from fcos_cli.explain.targets import TruthBox, TruthExplanation


def truth_page(explained: TruthExplanation, *, title: str, model: str) -> str:
    """The page of one picture's truth as `model` would learn it."""
    width, height = explained.geometry.resized
    rules = explained.conventions
    ends = ", ".join(f"{end:g}" for end in explained.ranges)
    near = f" within {rules.radius:g} strides of its centre" if rules.radius > 0 else ""
    document = {
        **common(explained.image, explained.geometry.resized),
        "subtitle": f"{model} sees {width} × {height} px. A point learns a box that it lies in{near}, whose longest "
        f"distance belongs to its level (P3 to P7 meet at {ends} px); of several the smallest.",
        "levels": [
            level_facts(number, grid, {"centerness": values[None]})
            for number, (grid, values) in enumerate(zip(explained.grids, explained.centerness, strict=True))
        ],
        "boxes": [_box(explained, number, box) for number, box in enumerate(explained.boxes)],
        "points": [
            {
                "level": point.level,
                "xy": [round(value, 1) for value in point.xy],
                "ltrb": [round(value, 1) for value in point.ltrb],
                "centerness": round(point.centerness, 3),
                "box": point.box,
                "rivals": list(point.rivals),
            }
            for point in explained.points
        ],
    }
    return assemble("truth", title=title, alt=f"the picture {title}", document=document)


def _box(explained: TruthExplanation, number: int, box: TruthBox) -> dict[str, Any]:
    return {
        # by its number: neighbours of one class must be told apart
        **paint(number),
        "name": explained.classes.names[box.index],
        "box": [round(value, 1) for value in box.box],
        "area": round(box.area),
        "ignore": box.ignore,
        "orphan": box.orphan,
        "reason": box.reason if box.orphan else "",
        "won": list(box.won),
        "lost": list(box.lost),
    }
