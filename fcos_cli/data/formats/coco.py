"""COCO detection JSON: find the files and the image folder, read categories, images and boxes.

Layouts: `annotations/instances_*.json` next to image folders; `train.json`, `val.json` and `images/`; Roboflow's
`train/_annotations.coco.json` with the images next to it. Category ids and their order are kept from the file.
"""

from __future__ import annotations

import json
import mmap
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fcos_cli.data.formats.coco_images import ANNOTATION_FOLDERS, SPLIT_WORD, is_id, read_images, split_name
from fcos_cli.data.formats.notes import Notes, is_set
from fcos_cli.data.formats.records import Rows, check_sizes, samples
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable, whole_characters

_FIRST_KEY = re.compile(rb'^(\xef\xbb\xbf)?\s*\{\s*"(info|images|annotations|categories|licenses|type)"')
_LARGEST_AREA = 1e18  # pixels²; more is a mistake, or no float at all
_CATEGORY_0 = re.compile(rb'"category_id"\s*:\s*-?0')  # or a fraction
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")


@dataclass(frozen=True)
class CocoSource:
    """COCO files by split name; see `records.Source`."""

    root: Path
    splits: dict[str, Path]
    format: Literal["coco"] = "coco"

    def classes(self, splits: Sequence[str]) -> ClassTable:
        """Return the union of the files' categories by id: the order of the first file, then new ones."""
        ids: dict[int, str] = {}
        names: dict[str, int] = {}
        for file in (self.splits[split] for split in splits):
            for category_id, name in _categories(file):
                if ids.setdefault(category_id, name) != name or names.setdefault(name, category_id) != category_id:
                    earlier = f"{ids[category_id]!r} with id {names.get(ids[category_id], category_id)}"
                    raise DataError(
                        f"categories contradict each other: {name!r} with id {category_id}, but earlier {earlier}",
                        where=file,
                        remedy="give every class one id and one name in all files of the data set",
                    )
        return ClassTable(tuple(ids.values()), tuple(ids))

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]:
        file = self.splits[split]
        content = load_coco(file)
        images, position = read_images(content, file, notes)
        rows = _rows(content["annotations"], position, classes, file, notes)
        check_sizes(images, notes)
        return samples(images, rows, notes)


def find(path: Path, *, damaged: bool = False) -> CocoSource | None:
    """Return the COCO data set of a folder or of a `.json` file; None if there is none.

    damaged: also accept files that are only named like a split, so that reading them says what is wrong.
    """
    if path.is_file():
        splits = {split_name(path, path.parent): path}
        return CocoSource(_root(path.parent), splits) if path.suffix.lower() == ".json" else None
    files = sorted({*path.glob("[!.]*.json"), *path.glob("[!.]*/[!.]*.json")})
    files = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
    files = [file for file in files if _looks_like_coco(file) or (damaged and _is_named_like_a_split(file))]
    files = [file for file in files if file.name.startswith("instances_")] or files
    by_split = defaultdict(list)
    for file in files:
        by_split[split_name(file, path)].append(file)
    splits = {name: group[0] for name, group in by_split.items() if len(group) == 1}
    for group in by_split.values():  # with both train2014 and train2017, `train` would be ambiguous
        splits |= {f"{file.parent.name}/{file.stem}": file for file in group if len(group) > 1}
    return CocoSource(_root(path), splits) if splits else None


def _root(folder: Path) -> Path:
    """The folder of a data set with files in `folder`: the one above `annotations`, so that a single file is divided as
    that folder is."""
    named = folder if folder.name else folder.absolute()
    return named.parent if named.name.lower() in ANNOTATION_FOLDERS else folder


def _looks_like_coco(file: Path) -> bool:
    """Whether the file begins like COCO and has all of its lists. Other tools' notes share some of the keys."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        if not _FIRST_KEY.match(stream.read(4096)):
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return all(re.search(rb'"%s"\s*:\s*\[' % key, text) for key in (b"images", b"annotations"))


def _is_named_like_a_split(file: Path) -> bool:
    return file.name.startswith("instances_") or bool(SPLIT_WORD.fullmatch(file.stem.lower()))


def load_coco(file: Path) -> dict[str, Any]:
    """Return the file's content, with `images` and `annotations` checked to be lists of dicts."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(
            f"the annotation file cannot be read as JSON ({error})", where=file, remedy="write or copy the file again"
        ) from error
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(
                f"this is not a COCO detection file: it has no list of objects {key!r}",
                where=file,
                remedy="COCO detection files have `images`, `annotations` and `categories`",
            )
    return content  # type: ignore[no-any-return]


def _categories(file: Path) -> list[tuple[int, str]]:
    """Return (id, name) in file order. If possible, only the `categories` list is parsed."""
    entries = _categories_alone(file) or load_coco(file)["categories"]
    if not entries:
        raise DataError("the file declares no classes", where=f"{file}: categories", remedy="list the categories")
    pairs = []
    for row in _without_root(entries, file):
        if not is_id(row.get("id")) or not isinstance(row.get("name"), str):
            raise DataError(
                f"a category needs an integer `id` of 64 bits and a string `name`, found {json.dumps(row)[:80]}",
                where=f"{file}: categories",
                remedy="correct this category",
            )
        pairs.append((row["id"], whole_characters(row["name"])))
    if len({pair[0] for pair in pairs}) < len(pairs):
        raise DataError("duplicate category id", where=f"{file}: categories", remedy="give every class its own id")
    return pairs


def _categories_alone(file: Path) -> list[dict[str, Any]] | None:
    with file.open("rb") as stream:
        if not stream.read(1):
            return None
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            starts = [match.end() - 1 for match in re.finditer(rb'"categories"\s*:\s*\[', text)]
            if len(starts) != 1:
                return None
            piece = text[starts[0] : starts[0] + 4_000_000].decode("utf-8", errors="replace")
    try:
        rows, _ = json.JSONDecoder().raw_decode(piece)
    except (ValueError, RecursionError):
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _without_root(rows: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """Drop Roboflow's extra category, named after the project and the parent of all others, if a real class has the
    same name, or if its id is 0 and no box has it."""
    above = [row.get("supercategory") for row in rows]
    names = [row.get("name") for row in rows]

    def is_extra(row: dict[str, Any]) -> bool:
        name = row.get("name")
        if row.get("supercategory") != "none" or name in ("none", None) or name not in above:
            return False
        is_above_all = [other for other in above if other not in (name, None)] == ["none"]
        return names.count(name) > 1 or (row.get("id") == 0 and is_above_all and not _has_boxes_of_0(file))

    return [row for row in rows if not is_extra(row)]


def _has_boxes_of_0(file: Path) -> bool:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return _CATEGORY_0.search(text) is not None


def _rows(
    annotations: list[dict[str, Any]], position: dict[Any, int], classes: ClassTable, file: Path, notes: Notes
) -> Rows:
    images, indices, boxes, ignores, areas = [], [], [], [], []
    index_of_id = classes.index_of_id
    by_text = {str(image_id): place for image_id, place in position.items()}
    one_to_one = len(by_text) == len(position)  # an id may be a number in one list and text in the other
    for number, row in enumerate(annotations):
        try:
            image, index = position.get(row["image_id"]), index_of_id.get(row["category_id"])
            if image is None and one_to_one:
                image = by_text.get(str(row["image_id"]))
            left, top, width, height = (float(value) for value in row["bbox"])
        except (KeyError, TypeError, ValueError, OverflowError):  # an integer of hundreds of digits is no float
            notes.add("malformed-row", f"{file.name}: annotations[{number}] bbox {row.get('bbox')!r:.60}")
            continue
        if image is None:
            notes.add("unknown-image", f"{file.name}: annotations[{number}] image_id {row['image_id']!r:.30}")
            continue
        if index is None:
            notes.add("unknown-category", f"{file.name}: annotations[{number}] category_id {row['category_id']!r:.30}")
            continue
        if image < 0:  # the image is missing, which was already noted
            continue
        area = row.get("area")
        images.append(image)
        indices.append(index)
        boxes.append((left, top, left + width, top + height))
        ignores.append(is_set(row.get("iscrowd"), notes, place=f"{file.name}: annotations[{number}] iscrowd"))
        areas.append(float(area) if isinstance(area, (int, float)) and abs(area) < _LARGEST_AREA else np.nan)
    return Rows(
        np.array(images, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(indices, np.int64),
        np.array(ignores, np.bool_),
        np.array(areas, np.float64),
    )
