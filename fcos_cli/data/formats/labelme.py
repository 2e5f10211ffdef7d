"""LabelMe: one JSON per image, beside it.

Notable choices:
- A class is a label as it is written: `Dog` and `dog` are two. The table is alphabetical over all JSON files of the
  data set, with ids 1…C, because LabelMe has no class ids.
- Rectangles are boxes whichever corners they name. Polygons, circles, masks and rotated boxes become the boxes around
  them, which is noted; other shapes (points, lines) are dropped with a finding.
- The image is the one beside the JSON with its name, else the one that `imagePath` names. The copy of the image that
  LabelMe can store in `imageData` is not used.
- A picture without a JSON has not been labelled yet, so it is left out, not taken for background.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from fcos_cli.data.formats.contents import read_bytes
from fcos_cli.data.formats.file_index import FileIndex, files_below
from fcos_cli.data.formats.notes import Notes
from fcos_cli.data.formats.records import ImageRecord, Rows, check_sizes, samples, size_of, split_key
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable, whole_characters

_LARGEST_SIDE = 2**31  # pixels; more is a mistake
_BOXES = ("rectangle", "polygon", "circle", "rotation", "mask")  # `rotation` is X-AnyLabeling's
_SHAPES = re.compile(rb'"shapes"\s*:')


class Shape(NamedTuple):
    """One entry of `shapes`. box: xyxy around its points, None if they cannot be parsed; kind: its `shape_type`."""

    label: str
    kind: str
    box: tuple[float, float, float, float] | None


class Annotation(NamedTuple):
    """One JSON file; width and height are 0 if absent. shapes: None if the file is not LabelMe's."""

    image: str
    width: int
    height: int
    shapes: list[Shape] | None


@dataclass(frozen=True)
class LabelmeSource:
    """See `records.Source`. splits: name → a folder of JSON files."""

    root: Path
    splits: dict[str, Path]
    format: Literal["labelme"] = "labelme"
    _read: dict[Path, Annotation] = field(default_factory=dict, repr=False)

    def classes(self, splits: Sequence[str]) -> ClassTable:  # noqa: ARG002 (part of the Source interface)
        files = [file for folder in self.splits.values() for file in _json_files(folder)]
        names = {shape.label for file in files for shape in self._annotation(file).shapes or () if _is_box(shape)}
        if not names:
            what = "no JSON file has a box, so there are no classes"
            raise DataError(what, where=self.root, remedy="label some objects")
        return ClassTable.from_names(sorted(names), first_id=1)

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]:
        index = FileIndex()
        images: list[ImageRecord] = []
        rows: list[tuple[int, Sequence[float], int, bool]] = []
        position: dict[Path, int] = {}
        for number, file in enumerate(_json_files(self.splits[split]), start=1):
            annotation = self._annotation(file)
            if annotation.shapes is None:
                notes.add("other-json", file.name)
                continue
            image = _image(file, annotation, number, index, notes)
            if image is None:
                continue
            if image.path in position:
                notes.add("image-listed-twice", f"{image.path.name} ({file.name})")
            else:
                position[image.path] = len(images)
                images.append(image)
            rows += _rows(file, annotation.shapes, position[image.path], classes, notes)
        _note_unlabelled(self.splits[split], set(position), notes)
        check_sizes(images, notes)
        return samples(images, Rows.of(rows), notes)

    def _annotation(self, file: Path) -> Annotation:
        if file not in self._read:
            self._read[file] = _parse(file)
        return self._read[file]


def find(path: Path, *, below: bool = False) -> LabelmeSource | None:
    """Return the LabelMe data set whose JSON files lie in a folder itself, or None.

    below: they lie in its subfolders, whose names are the splits.
    """
    if not path.is_dir():
        return None
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir()) if below else [path]
    splits = {split_key(folder.name): folder for folder in folders if any(map(_has_shapes, folder.glob("[!.]*.json")))}
    return LabelmeSource(path, splits) if splits else None


def _has_shapes(file: Path) -> bool:
    if not file.is_file() or not file.stat().st_size:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return _SHAPES.search(text) is not None


def _json_files(folder: Path) -> list[Path]:
    """The JSON files in a folder and its subfolders, sorted."""
    return sorted(file for file in files_below(folder) if file.suffix.lower() == ".json" and file.is_file())


def _parse(file: Path) -> Annotation:
    try:
        content = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise DataError(
            f"the annotation file is not valid JSON ({error})", where=f"{file}:{line}", remedy="correct or remove it"
        ) from error
    if not isinstance(content, dict) or "shapes" not in content:
        return Annotation("", 0, 0, None)
    shapes, image = content["shapes"], content.get("imagePath")
    if not isinstance(shapes, list) or not all(isinstance(row, dict) for row in shapes):
        raise DataError("`shapes` must be a list of objects", where=f"{file}: shapes", remedy="correct this entry")
    width, height = (_side(content.get(key)) for key in ("imageWidth", "imageHeight"))
    return Annotation(
        image if isinstance(image, str) else "", width if height else 0, height, [_shape(row) for row in shapes]
    )


def _side(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 1 <= value < _LARGEST_SIDE else 0


def _shape(row: dict[str, Any]) -> Shape:
    label, kind = row.get("label"), row.get("shape_type") or "polygon"  # LabelMe's default if it is missing
    try:
        points = [(float(x), float(y)) for x, y in row["points"]]
        if kind == "circle":  # its centre, and a point on it
            (x, y), (on_x, on_y) = points
            radius = ((on_x - x) ** 2 + (on_y - y) ** 2) ** 0.5
            points = [(x - radius, y - radius), (x + radius, y + radius)]
        if kind == "mask":  # its first and last pixel
            (x, y), (last_x, last_y) = points
            points = [(x, y), (last_x + 1, last_y + 1)]
        xs, ys = zip(*points, strict=True)
        box = (min(xs), min(ys), max(xs), max(ys)) if len(points) > 1 else None
    except (KeyError, TypeError, ValueError, OverflowError):
        box = None
    return Shape(whole_characters(label) if isinstance(label, str) else "", str(kind)[:40], box)


def _is_box(shape: Shape) -> bool:
    return bool(shape.label) and shape.kind in _BOXES


def _rows(
    file: Path, shapes: Sequence[Shape], image: int, classes: ClassTable, notes: Notes
) -> Iterator[tuple[int, Sequence[float], int, bool]]:
    for number, shape in enumerate(shapes):
        place = f"{file.name}: shapes[{number}] ({shape.label or 'no label'})"
        if shape.kind not in _BOXES:
            notes.add("other-shape", f"{place} {shape.kind}")
        elif shape.box is None or not shape.label:
            notes.add("malformed-row", place)
        else:
            if shape.kind != "rectangle":
                notes.add("shape-as-box", f"{place} {shape.kind}")
            yield image, shape.box, classes.index_of_name[shape.label], False


def _image(file: Path, annotation: Annotation, number: int, index: FileIndex, notes: Notes) -> ImageRecord | None:
    # `imagePath` is often outdated after files were renamed or moved, so it only decides between suffixes at first
    declared = PurePosixPath(annotation.image.replace("\\", "/"))
    places = [file.parent / declared, file.parent / declared.name] if declared.name else []
    named = [found for place in places if place.suffix.lower() in IMAGE_SUFFIXES and (found := index.find(place))]
    same_stem = [file.parent / name for name in [index.images(file.parent).get(file.stem)] if name]
    candidates = [*(path for path in named if path.stem == file.stem), *same_stem, *named]
    if not candidates:
        index.check_missing()
        notes.add("missing-image", annotation.image or file.stem)
        return None
    path = candidates[0]
    size = (annotation.width, annotation.height) if annotation.width else size_of(path, notes)
    return None if size is None else ImageRecord(path, number, *size)


def _note_unlabelled(folder: Path, used: set[Path], notes: Notes) -> None:
    for file in files_below(folder):
        if file.suffix.lower() in IMAGE_SUFFIXES and file not in used:
            notes.add("not-labelled", file.name)
