"""One XML file of Pascal VOC, or of the first LabelMe, whose XML CVAT exports as LabelMe 3.0."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from fcos_cli.data.formats.contents import read_bytes
from fcos_cli.errors import DataError

_MAX_DIGITS = 10  # of a width or height in pixels; more is a mistake, and read from the image instead

_VOC, _CVAT = re.compile(rb"<annotation[\s/>]"), re.compile(rb"<annotations[\s/>]")


class VocObject(NamedTuple):
    """One `<object>`: its name, empty if it has none; box xyxy in VOC's pixels, None if it cannot be parsed.

    around: whether the box is the one around a polygon that is not itself a box.
    """

    name: str
    box: tuple[float, float, float, float] | None
    difficult: str
    around: bool = False


class Annotation(NamedTuple):
    """One XML file; width and height are 0 if absent."""

    filename: str
    width: int
    height: int
    objects: list[VocObject]


def begins_as_voc(file: Path) -> bool:
    return _VOC.search(read_bytes(file)[:4096]) is not None


def is_cvat(path: Path) -> bool:
    """Whether `path` is a file in CVAT's own XML format, or a folder with one; no reader reads it."""
    files = [path] if path.is_file() else path.glob("*.[xX][mM][lL]")
    found = (file for file in files if file.suffix.lower() == ".xml" and file.is_file())
    return any(_CVAT.search(read_bytes(file)[:4096]) for file in found)


def cvat_error(path: Path) -> DataError:
    """The error about what `is_cvat` has found."""
    remedy = "export the labels from CVAT as COCO, YOLO or Pascal VOC"
    return DataError("this is CVAT's own format, which cannot be read", where=path, remedy=remedy)


def parse(file: Path) -> Annotation:
    """Raises DataError if the file cannot be read, is not valid XML, or is CVAT's."""
    try:
        root = ElementTree.fromstring(read_bytes(file))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        line = error.position[0] if isinstance(error, ElementTree.ParseError) else 1
        raise DataError(
            f"the annotation file is not valid XML ({error})", where=f"{file}:{line}", remedy="correct or remove it"
        ) from error
    if root.tag == "annotations":  # its objects would all be left out
        raise cvat_error(file)
    # LabelMe only marks what was deleted
    objects = [_object(node) for node in root.iter("object") if _text(node, "deleted") != "1"]
    width, height = _to_int(_text(root, "size/width")), _to_int(_text(root, "size/height"))
    return Annotation(_text(root, "filename"), width if height else 0, height if width else 0, objects)


def _object(node: ElementTree.Element) -> VocObject:
    name, difficult, bndbox = _text(node, "name"), _text(node, "difficult"), node.find("bndbox")
    if bndbox is None and (points := _points(node)):
        xs, ys = zip(*points, strict=True)
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
        corners = {(x, y) for x in (x1, x2) for y in (y1, y2)}
        return VocObject(name, (x1 + 1, y1 + 1, x2, y2), difficult, around=set(points) != corners)  # it counts from 0
    return VocObject(name, _box(bndbox), difficult)


def _points(node: ElementTree.Element) -> list[tuple[float, float]]:
    """The points of LabelMe's polygon; none if it has none, or one that cannot be parsed."""
    try:
        return [(float(_text(point, "x")), float(_text(point, "y"))) for point in node.iterfind("polygon/pt")]
    except ValueError:
        return []


def _text(node: ElementTree.Element, path: str) -> str:
    return (node.findtext(path) or "").strip()


def _to_int(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < _MAX_DIGITS else 0


def _box(node: ElementTree.Element | None) -> tuple[float, float, float, float] | None:
    if node is None:
        return None
    try:
        x1, y1, x2, y2 = (float(_text(node, key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    return x1, y1, x2, y2
