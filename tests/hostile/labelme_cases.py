"""LabelMe files that are wrong on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.hostile.contract import READ, Case

MALFORMED, JSON = "malformed-row", "not valid JSON"


def shape(points: Any = ((11, 21), (30, 40)), **changes: Any) -> dict[str, Any]:
    return {"label": "dog", "points": points, "shape_type": "rectangle", **changes}


def document(*shapes: Any, **changes: Any) -> str:
    """A file of these shapes, for a picture of 100 × 50."""
    size = {"imageWidth": 100, "imageHeight": 50}
    return json.dumps({"shapes": shapes or [shape()], "imagePath": "a.png", "imageData": None, **size, **changes})


def raw(content: str | bytes | Callable[[], str]) -> Callable[[Path], Path]:
    """The file a.json with this content beside a picture, and a valid file for another; the folder is returned."""

    def make(folder: Path) -> Path:
        for name in "az":
            Image.new("RGB", (100, 50)).save(folder / f"{name}.png")
        (folder / "z.json").write_text(document(imagePath="z.png"))
        given = content() if callable(content) else content
        (folder / "a.json").write_bytes(given if isinstance(given, bytes) else given.encode())
        return folder

    return make


def box(*points: Any, **changes: Any) -> Callable[[Path], Path]:
    return raw(document(shape(points, **changes)))


def folder_for_json(folder: Path) -> Path:
    raw(document())(folder)
    (folder / "b.json").mkdir()
    return folder


def loop_for_json(folder: Path) -> Path:
    raw(document())(folder)
    (folder / "b.json").symlink_to("b.json")
    return folder


def many_shapes(count: int) -> str:
    return document(*(shape([[n % 60, 3], [70 + n % 20, 9 + n / 4000]]) for n in range(count)))


LABELME = [
    Case("labelme-nan", box([float("nan"), 1], [9, 9]), "non-finite-box"),
    Case("labelme-infinity", box([1, 1], [float("inf"), 9]), "non-finite-box"),
    Case("labelme-1e400", raw(document().replace("11, 21", "1e400, 21")), "non-finite-box"),
    Case("labelme-400-digits", raw(document().replace("11, 21", f"{'9' * 400}, 21")), MALFORMED),
    Case("labelme-5000-digits", raw(document().replace("11, 21", f"{'9' * 5000}, 21")), JSON),
    Case("labelme-no-area", box([5, 5], [5, 9]), "degenerate-box"),
    Case("labelme-far-outside", box([1e12, 1e12], [2e12, 2e12]), "box-outside"),
    Case("labelme-words", box(["left", 1], [9, 9]), MALFORMED),
    Case("labelme-three-numbers", box([1, 1, 1], [9, 9, 9]), MALFORMED),
    Case("labelme-one-point", box([1, 1]), MALFORMED),
    Case("labelme-no-points", raw(document(shape([]))), MALFORMED),
    Case("labelme-points-are-text", raw(document(shape("11"))), MALFORMED),
    Case("labelme-points-are-a-number", raw(document(shape(5))), MALFORMED),
    Case("labelme-circle-of-three-points", box([1, 1], [2, 2], [3, 3], shape_type="circle"), MALFORMED),
    Case("labelme-circle-of-1e300", box([0, 0], [1e300, 1e300], shape_type="circle"), MALFORMED),
    Case("labelme-type-unknown", box([1, 1], [9, 9], shape_type="klein bottle"), "other-shape"),
    Case("labelme-type-is-a-list", box([1, 1], [9, 9], shape_type=[1] * 1000), "other-shape"),
    Case("labelme-no-label", box([1, 1], [9, 9], label=""), MALFORMED),
    Case("labelme-label-is-a-number", box([1, 1], [9, 9], label=7), MALFORMED),
    Case("labelme-half-a-character", box([1, 1], [9, 9], label="\ud800"), READ),
    Case("labelme-label-of-1-mb", raw(lambda: document(shape(label="x" * 1_000_000))), READ),
    Case("labelme-shapes-is-null", raw(document().replace('"shapes": [', '"shapes": null, "x": [')), "list of objects"),
    Case("labelme-shape-is-a-number", raw(document(1)), "list of objects"),
    Case("labelme-is-a-list", raw('[{"shapes": []}]'), "other-json"),
    Case("labelme-width-words", raw(document(imageWidth="wide")), READ),
    Case("labelme-width-negative", raw(document(imageWidth=-100)), READ),
    Case("labelme-width-nan", raw(document(imageWidth=float("nan"))), READ),
    Case("labelme-image-path-is-a-list", raw(document(imagePath=["a.png"])), READ),
    Case("labelme-image-path-escapes", raw(document(imagePath="../" * 40 + "etc/passwd")), READ),
    Case("labelme-image-path-long", raw(document(imagePath="a" * 10_000)), READ),
    Case("labelme-image-path-nul", raw(document(imagePath="a\0b.png")), READ),
    Case("labelme-image-data-is-no-image", raw(lambda: document(imageData="A" * 10_000_000)), READ),
    Case("labelme-json-is-a-folder", folder_for_json, READ),
    Case("labelme-json-is-a-link-to-itself", loop_for_json, READ),
    Case("labelme-cut", raw(document()[:60]), JSON),
    Case("labelme-two-documents", raw(document() * 2), JSON),
    Case("labelme-zero-bytes", raw(bytes(1000)), JSON),
    Case("labelme-empty", raw(""), JSON),
    Case("labelme-html", raw("<html><body>not found</body></html>"), JSON),
    Case("labelme-byte-order-mark", raw(b"\xef\xbb\xbf" + document().encode()), READ),
    Case("labelme-utf-16", raw(document().encode("utf-16")), READ),
    Case("labelme-latin-1", raw(b'{"shapes": [], "x": "caf\xe9"}'), JSON),
    Case("labelme-100000-levels", raw(lambda: '{"shapes": ' + "[" * 100_000 + "]" * 100_000 + "}"), JSON),
    Case("labelme-30000-shapes", raw(lambda: many_shapes(30_000)), READ),
]
