"""COCO files that are wrong on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.hostile.contract import READ, Case

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
JSON = "cannot be read as JSON"


def image(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": "a.png", "width": 100, "height": 50, **changes}


def box(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 25], **changes}


def category(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "name": "cat", **changes}


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def text(**parts: Any) -> str:
    return json.dumps({"images": [image()], "annotations": [box()], "categories": [category()], **parts})


def raw(content: str | bytes | Callable[[], str]) -> Callable[[Path], Path]:
    """A file with this content, beside one picture of 100 × 50. Large contents are made when they are needed."""

    def make(folder: Path) -> Path:
        (folder / "images").mkdir()
        Image.new("RGB", (100, 50)).save(folder / "images/a.png")
        given = content() if callable(content) else content
        file = folder / "train.json"
        file.write_bytes(given if isinstance(given, bytes) else given.encode())
        return file

    return make


def coco(**parts: Any) -> Callable[[Path], Path]:
    return raw(text(**parts))


def boxes(*rows: Any) -> Callable[[Path], Path]:
    return coco(annotations=rows)


def bbox(*values: Any) -> Callable[[Path], Path]:
    return boxes(box(bbox=values))


def images(*rows: Any) -> Callable[[Path], Path]:
    return coco(images=rows)


def categories(*rows: Any) -> Callable[[Path], Path]:
    return coco(categories=rows)


def deep(levels: int = 100_000) -> str:
    return "[" * levels + "]" * levels


def many_boxes(count: int) -> str:
    rows = ",".join(
        f'{{"id":{n},"image_id":1,"category_id":1,"bbox":[{n % 60},{n % 20},{10 + n % 7},{9 + n // 977}]}}'
        for n in range(count)
    )
    return text(annotations=[]).replace('"annotations": []', f'"annotations": [{rows}]')


def long_string(megabytes: int) -> str:
    return text(info={"description": "x" * (megabytes << 20)})


MALFORMED, NON_FINITE = "malformed-row", "non-finite-box"

COCO = [
    # READ or the id of a finding: it is read, and that is noted; anything else is the text of the error
    Case("coco-nan", bbox(NAN, 1, 20, 20), NON_FINITE),
    Case("coco-infinity", bbox(1, INF, 20, 20), NON_FINITE),
    Case("coco-minus-infinity", bbox(1, 1, -INF, 20), NON_FINITE),
    Case("coco-number-of-400-digits", bbox(HUGE, 1, 2, 3), MALFORMED),
    Case("coco-number-of-5000-digits", raw(text().replace("[10,", "[1" + "0" * 5000 + ",")), JSON),
    Case("coco-1e308", bbox(1e308, 1e308, 1e308, 1e308), NON_FINITE),
    Case("coco-negative-size", bbox(10, 10, -5, -5), "degenerate-box"),
    Case("coco-zero-size", bbox(10, 10, 0, 0), "degenerate-box"),
    Case("coco-far-outside", bbox(1e12, 1e12, 5, 5), "box-outside"),
    Case("coco-numbers-as-text", bbox("10", "20", "30", "25"), READ),
    Case("coco-words-for-numbers", bbox("ten", 20, 30, 25), MALFORMED),
    Case("coco-bbox-null", boxes(box(bbox=None)), MALFORMED),
    Case("coco-bbox-number", boxes(box(bbox=7)), MALFORMED),
    Case("coco-bbox-table", boxes(box(bbox={"x": 1, "y": 2, "w": 3, "h": 4})), MALFORMED),
    Case("coco-bbox-of-lists", bbox([1], [2], [3], [4]), MALFORMED),
    Case("coco-bbox-of-3", bbox(1, 2, 3), MALFORMED),
    Case("coco-bbox-of-5", bbox(1, 2, 3, 4, 5), MALFORMED),
    Case("coco-no-bbox", boxes(without(box(), "bbox")), MALFORMED),
    Case("coco-no-image-id", boxes(without(box(), "image_id")), MALFORMED),
    Case("coco-image-id-list", boxes(box(image_id=[1])), MALFORMED),
    Case("coco-image-id-unknown", boxes(box(image_id=HUGE)), "unknown-image"),
    Case("coco-category-id-list", boxes(box(category_id=[1])), MALFORMED),
    Case("coco-category-id-nan", boxes(box(category_id=NAN)), "unknown-category"),
    Case("coco-area-of-400-digits", boxes(box(area=HUGE)), READ),
    Case("coco-area-infinite", boxes(box(area=INF)), READ),
    Case("coco-area-text", boxes(box(area="large")), READ),
    Case("coco-iscrowd-list", boxes(box(iscrowd=[1])), "unclear-flag"),
    Case("coco-annotation-ids-twice", boxes(box(), box(bbox=[1, 2, 30, 20])), READ),
    Case("coco-image-id-twice", images(image(), image(file_name="b.png")), "two images have the id"),
    Case("coco-image-id-is-a-list", images(image(id=[1])), "id"),
    Case("coco-image-id-is-nan", images(image(id=NAN)), "`id`"),
    Case("coco-image-id-beyond-64-bits", coco(images=[image(id=2**70)], annotations=[]), "ids-renumbered"),
    Case("coco-no-file-name", images(without(image(), "file_name")), "file_name"),
    Case("coco-file-name-number", images(image(file_name=3)), "file_name"),
    Case("coco-file-name-empty", images(image(file_name="")), "file_name"),
    Case("coco-file-name-escapes", images(image(file_name="../" * 40 + "etc/passwd")), "unreadable-image"),
    Case("coco-file-name-nul", images(image(file_name="a\0.png")), "on disk|found"),
    Case("coco-file-name-dot", images(image(file_name=".")), "unreadable-image"),
    Case("coco-file-name-of-a-folder", images(image(file_name="..")), "on disk|found"),
    Case("coco-file-name-long", images(image(file_name="a" * 10_000 + "/b.png")), "on disk|found"),
    Case("coco-width-nan", images(image(width=NAN)), READ),
    Case("coco-width-infinite", images(image(width=INF)), READ),
    Case("coco-width-of-400-digits", images(image(width=HUGE)), READ),
    Case("coco-width-text", images(image(width="100")), READ),
    Case("coco-width-negative", images(image(width=-100)), READ),
    Case("coco-category-id-twice", categories(category(), category(name="dog")), "duplicate category id"),
    Case("coco-category-name-twice", categories(category(), category(id=2)), "contradict"),
    Case("coco-category-id-text", categories(category(id="1")), "integer `id`"),
    Case("coco-category-id-beyond-64-bits", categories(category(id=2**70)), "integer `id`"),
    Case("coco-category-name-missing", categories(without(category(), "name")), "string `name`"),
    Case("coco-category-name-number", categories(category(name=5)), "string `name`"),
    Case("coco-root-without-name", categories({"id": 0, "supercategory": "none"}, category()), "string `name`"),
    Case("coco-supercategory-list", categories(category(supercategory=["x"])), READ),
    Case("coco-no-categories", categories(), "no classes"),
    Case("coco-categories-number", coco(categories=3), "'categories'"),
    Case("coco-categories-of-null", categories(None), "'categories'"),
    Case("coco-images-table", coco(images={}), "'images'"),
    Case("coco-images-of-numbers", images(1, 2), "'images'"),
    Case("coco-no-images", images(), "no images"),
    Case("coco-annotations-null", coco(annotations=None), "'annotations'"),
    Case("coco-annotations-of-lists", coco(annotations=[[]]), "'annotations'"),
    Case("coco-list-on-top", raw("[]"), "not a COCO"),
    Case("coco-text-on-top", raw('"images"'), "not a COCO"),
    Case("coco-null-on-top", raw("null"), "not a COCO"),
    Case("coco-empty", raw(""), JSON),
    Case("coco-zero-bytes", raw(bytes(1000)), JSON),
    Case("coco-cut", raw(text()[:100]), JSON),
    Case("coco-two-documents", raw(text() + text()), JSON),
    Case("coco-key-twice", raw(text().replace("{", '{"images": 3, ', 1)), READ),
    Case("coco-byte-order-mark", raw(b"\xef\xbb\xbf" + text().encode()), READ),
    Case("coco-crlf", raw(text().replace(", ", ",\r\n")), READ),
    Case("coco-utf-16", raw(text().encode("utf-16")), READ),
    Case("coco-latin-1", raw(text().replace("cat", "ca\xe9").encode("latin-1")), JSON),
    Case("coco-100000-levels", raw(lambda: text(info=[]).replace("[]", deep())), JSON),
    Case("coco-100000-levels-in-categories", raw(lambda: text(categories=[]).replace("[]", deep())), JSON),
    Case("coco-100000-boxes", raw(lambda: many_boxes(100_000)), READ),
]
