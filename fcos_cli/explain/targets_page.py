"""The HTML page of one image's targets: boxes, the points that learn them, and the boxes without a point."""

from __future__ import annotations

from typing import Any

from fcos_cli.explain.page import assemble, common, level_facts, paint
from fcos_cli.explain.targets import TruthBox, TruthExplanation
from fcos_cli.model.config import level_name


def targets_page(explained: TruthExplanation, *, title: str, model: str) -> str:
    """The page of one image's training targets under the rules of `model`."""
    width, height = explained.geometry.resized
    rules = explained.conventions
    ends = ", ".join(f"{end:g}" for end in explained.ranges)
    first, last = (level_name(explained.grids[place].stride) for place in (0, -1))
    near = f", within {rules.radius:g} strides of its centre," if rules.radius > 0 else ""
    document = {
        **common(explained.image, explained.geometry.resized),
        "subtitle": f"{model}, image at {width} × {height} px of network input. A point learns a box that contains "
        f"it{near} if the largest distance to an edge is in the range of its level (limits between {first} and {last}: "
        f"{ends} px). If several boxes qualify, it learns the smallest.",
        "levels": [
            level_facts(grid, {"centerness": values[None]})
            for grid, values in zip(explained.grids, explained.centerness, strict=True)
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
    return assemble("truth", title=title, alt=f"image {title}", document=document)


def _box(explained: TruthExplanation, number: int, box: TruthBox) -> dict[str, Any]:
    return {
        # coloured by number, so that neighbouring boxes of one class differ
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
