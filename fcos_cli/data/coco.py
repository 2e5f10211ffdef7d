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
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from fcos_cli.data.images import image_size
from fcos_cli.data.records import FileIndex, ImageRecord, Notes, Rows, check_sizes, samples
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable

_FIRST_KEY = re.compile(rb'^(\xef\xbb\xbf)?\s*\{\s*"(info|images|annotations|categories|licenses|type)"')
_OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
_SPLIT_WORD = re.compile(r"(?<![a-z])(trainval|train|valid|validation|val|test)(ing)?(?![a-z])")


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
        content = _load(file)
        images, position = _images(content, file, notes)
        rows = _rows(content["annotations"], position, classes, file, notes)
        check_sizes(images, notes)
        return samples(images, rows, notes)


def find(path: Path) -> CocoSource | None:
    """Return the COCO data set of a folder or of a `.json` file; None if there is none."""
    if path.is_file():
        return (
            CocoSource(path.parent, {_split_name(path, path.parent): path}) if path.suffix.lower() == ".json" else None
        )
    files = sorted({*path.glob("[!.]*.json"), *path.glob("[!.]*/[!.]*.json")})
    files = [file for file in files if not file.name.startswith(_OTHER_TASKS) and _looks_like_coco(file)]
    files = [file for file in files if file.name.startswith("instances_")] or files
    by_split = defaultdict(list)
    for file in files:
        by_split[_split_name(file, path)].append(file)
    splits = {name: group[0] for name, group in by_split.items() if len(group) == 1}
    for group in by_split.values():  # with both train2014 and train2017, `train` would be ambiguous
        splits |= {f"{file.parent.name}/{file.stem}": file for file in group if len(group) > 1}
    return CocoSource(path, splits) if splits else None


def _split_name(file: Path, root: Path) -> str:
    """`instances_train2017.json` → train; `valid/_annotations.coco.json` → valid; otherwise the file stem."""
    word = _SPLIT_WORD.search(file.stem.lower().replace("_", " "))
    if word is None and file.parent != root:  # the name of the data set's root folder says nothing
        word = _SPLIT_WORD.fullmatch(file.parent.name.lower())
    return word[1] if word else file.stem


def _looks_like_coco(file: Path) -> bool:
    with file.open("rb") as stream:
        return bool(_FIRST_KEY.match(stream.read(4096))) or bool(_SPLIT_WORD.fullmatch(file.stem.lower()))


def _load(file: Path) -> dict[str, Any]:
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
    entries = _categories_alone(file) or _load(file)["categories"]
    if not entries:
        raise DataError("the file declares no classes", where=f"{file}: categories", remedy="list the categories")
    pairs = []
    for row in _without_root(entries):
        if type(row.get("id")) is not int or not isinstance(row.get("name"), str):
            raise DataError(
                f"a category needs an integer `id` and a string `name`, found {json.dumps(row)[:80]}",
                where=f"{file}: categories",
                remedy="correct this category",
            )
        pairs.append((row["id"], row["name"]))
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
    except ValueError:
        return None
    return rows if all(isinstance(row, dict) for row in rows) else None


def _without_root(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop Roboflow's extra category 0, the project's name, if a real class has the same name."""
    roots = {row.get("supercategory") for row in rows} - {"none", None}
    names = [row.get("name") for row in rows]
    return [
        row
        for row in rows
        if not (row.get("supercategory") == "none" and row["name"] in roots and names.count(row["name"]) > 1)
    ]


def _images(content: dict[str, Any], file: Path, notes: Notes) -> tuple[list[ImageRecord], dict[Any, int]]:
    """Return the images that exist, and the index of each by its id in the file (-1 if the image is missing)."""
    entries = content["images"]
    if not entries:
        raise DataError("the file lists no images", where=f"{file}: images", remedy="add images to it")
    names = []
    for number, row in enumerate(entries):
        if "id" not in row or not isinstance(row.get("file_name"), str) or not row["file_name"]:
            raise DataError(
                "an image needs an `id` and a `file_name`", where=f"{file}: images[{number}]", remedy="correct the row"
            )
        names.append(PurePosixPath(row["file_name"].replace("\\", "/")))
    index = FileIndex()
    folder, names = _locate(file, names, index)
    integer_ids = all(type(row["id"]) is int for row in entries)
    if not integer_ids:
        notes.add("ids-renumbered", file.name, count=len(entries))
    images: list[ImageRecord] = []
    position: dict[Any, int] = {}
    for number, (row, name) in enumerate(zip(entries, names, strict=True), start=1):
        path = folder / name
        if row["id"] in position:
            raise DataError(
                f"two images have the id {row['id']!r}", where=f"{file}: images", remedy="give each its own id"
            )
        position[row["id"]] = -1
        if path not in index:
            notes.add("missing-image", str(name))
        elif size := _size(row, path, notes):
            position[row["id"]] = len(images)
            images.append(ImageRecord(path, row["id"] if integer_ids else number, *size))
    return images, position


def _size(row: dict[str, Any], path: Path, notes: Notes) -> tuple[int, int] | None:
    """(width, height) from the annotations (checked later by `check_sizes`), or from the image if absent."""
    width, height = row.get("width"), row.get("height")
    if isinstance(width, (int, float)) and isinstance(height, (int, float)) and width >= 1 and height >= 1:
        return int(width), int(height)
    try:
        return image_size(path)
    except DataError:
        notes.add("unreadable-image", path.name)
        return None


def _locate(file: Path, names: list[PurePosixPath], index: FileIndex) -> tuple[Path, list[PurePosixPath]]:
    """Return the folder that contains the images, and their names in it.

    Candidate folders are tried with up to 20 file names spread over the list. Names that contain folders of another
    machine (`C:/job/images/1.jpg`) are then tried without any folder.
    """
    probes = names[:: max(1, len(names) // 20)][:20]
    candidates = _image_folders(file)
    for shorten in (False, True):
        hits = {
            folder: sum((folder / (name.name if shorten else name)) in index for name in probes)
            for folder in candidates
        }
        best = max(candidates, key=lambda folder: hits[folder])  # ties: the first, which is closest to the file
        if hits[best]:
            return best, [PurePosixPath(name.name) for name in names] if shorten else names
    raise DataError(
        f"none of the images is on disk, for example {probes[0]}",
        where=f"{file}; looked in {', '.join(str(folder) for folder in candidates[:8])}",
        remedy="put the images next to the annotations, into `images/` or into a folder named like the split",
    )


def _image_folders(file: Path) -> list[Path]:
    """Return existing folders that may contain the images of this file, most likely first."""
    parent = file.parent
    name = file.stem.removeprefix("instances_")
    bases = [parent, parent.parent] if parent.name.lower() in ("annotations", "labels", "ann") else [parent]
    split = _split_name(file, parent)
    tails = (name, f"images/{name}", split, f"images/{split}", "images", ".", "JPEGImages")
    folders = [base / tail for tail in tails for base in bases if (base / tail).is_dir()]
    folders += [folder for base in bases for folder in sorted(base.iterdir()) if folder.is_dir()]
    return list(dict.fromkeys(folders))


def _rows(
    annotations: list[dict[str, Any]], position: dict[Any, int], classes: ClassTable, file: Path, notes: Notes
) -> Rows:
    images, indices, boxes, ignores, areas = [], [], [], [], []
    index_of_id = classes.index_of_id
    for number, row in enumerate(annotations):
        try:
            image, index = position.get(row["image_id"]), index_of_id.get(row["category_id"])
            left, top, width, height = (float(value) for value in row["bbox"])
        except (KeyError, TypeError, ValueError):
            notes.add("malformed-row", f"{file.name}: annotations[{number}] bbox {row.get('bbox')!r:.60}")
            continue
        if image is None:
            notes.add("unknown-image", f"{file.name}: annotations[{number}] image_id {row['image_id']!r}")
            continue
        if index is None:
            notes.add("unknown-category", f"{file.name}: annotations[{number}] category_id {row['category_id']!r}")
            continue
        if image < 0:  # the image is missing, which was already noted
            continue
        area = row.get("area")
        images.append(image)
        indices.append(index)
        boxes.append((left, top, left + width, top + height))
        ignores.append(bool(row.get("iscrowd")))
        areas.append(float(area) if isinstance(area, (int, float)) else np.nan)
    return Rows(
        np.array(images, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(indices, np.int64),
        np.array(ignores, np.bool_),
        np.array(areas, np.float64),
    )
