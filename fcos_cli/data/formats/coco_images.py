"""The images of a COCO file: where they are on disk, and their sizes."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any

from fcos_cli.data.formats.file_index import FileIndex, files_below, is_hidden
from fcos_cli.data.formats.notes import Notes
from fcos_cli.data.formats.records import ImageRecord, size_of
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError

ANNOTATION_FOLDERS = ("annotations", "labels", "ann")
"""Names of folders that hold only annotation files: the images may lie in the folder above."""

_LARGEST_SIDE = 2**31  # pixels; more is a mistake, as are NaN and infinity
SPLIT_WORD = re.compile(r"(?<![a-z])(trainval|train|valid|validation|val|test)(ing)?(?![a-z])")


def is_id(value: object) -> bool:
    """Whether a value can be the id of an image or a category: an integer that fits into 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def split_name(file: Path, root: Path) -> str:
    """`instances_train2017.json` → train; `valid/_annotations.coco.json` → valid; otherwise the file stem."""
    word = SPLIT_WORD.search(file.stem.lower().replace("_", " "))
    if word is None and file.parent != root:  # the name of the data set's root folder says nothing
        word = SPLIT_WORD.fullmatch(file.parent.name.lower())
    return word[1] if word else file.stem


def read_images(content: dict[str, Any], file: Path, notes: Notes) -> tuple[list[ImageRecord], dict[Any, int]]:
    """Return the images that exist, and the index of each by its id in the file (-1 if the image is missing)."""
    entries = content["images"]
    if not entries:
        raise DataError("the file lists no images", where=f"{file}: images", remedy="add images to it")
    index, written = FileIndex(), names_of(entries, file)
    folder, names = locate_images(file, written, index, notes)
    elsewhere = _elsewhere(folder, names, index)
    integer_ids = all(is_id(row["id"]) for row in entries)
    if not integer_ids:
        notes.add("ids-renumbered", file.name, count=len(entries))
    images: list[ImageRecord] = []
    position: dict[Any, int] = {}
    first_with: dict[Path, tuple[PurePosixPath, Any]] = {}
    for number, (row, name, full_name) in enumerate(zip(entries, names, written, strict=True), start=1):
        path = folder / name
        if row["id"] in position:
            raise DataError(
                f"two images have the id {row['id']!r}", where=f"{file}: images", remedy="give each its own id"
            )
        position[row["id"]] = -1
        earlier_name, earlier_id = first_with.setdefault(path, (full_name, row["id"]))
        if earlier_name != full_name:
            raise _same_file(earlier_name, full_name, where=f"{file}: images")
        if earlier_id != row["id"]:
            notes.add("image-listed-twice", str(name))
            position[row["id"]] = position[earlier_id]
            continue
        found = index.find(path) or elsewhere.get(name)
        if found is None:
            index.check_missing()
            notes.add("missing-image", str(name))
        elif size := _size(row, found, notes):
            position[row["id"]] = len(images)
            images.append(ImageRecord(found, row["id"] if integer_ids else number, *size))
    return images, position


def names_of(entries: list[dict[str, Any]], file: Path) -> list[PurePosixPath]:
    """The file names as written, with slashes."""
    names = []
    for number, row in enumerate(entries):
        key, name = row.get("id"), row.get("file_name")
        if not isinstance(key, (int, float, str)) or key != key or not name or not isinstance(name, str):  # NaN != NaN
            raise DataError(
                "an image needs an `id`, a number or text, and a `file_name`",
                where=f"{file}: images[{number}]",
                remedy="correct the row",
            )
        names.append(PurePosixPath(name.replace("\\", "/")))
    return names


def _same_file(a: PurePosixPath, b: PurePosixPath, *, where: str) -> DataError:
    return DataError(
        f"two images have the same file name in different folders: {a} and {b}",
        where=where,
        remedy=f"only one of them can be the {a.name} on disk: keep their folders, or give each its own name",
    )


def _elsewhere(folder: Path, names: list[PurePosixPath], index: FileIndex) -> dict[PurePosixPath, Path]:
    """Find images that are not at their place in `folder` by file name alone, in it or in its subfolders.

    Finally, names in another case are tried. A file is left out if it is the place of another image, or if the names of
    several fit it: `a/1.jpg` cannot stand for `b/1.jpg`.
    """
    places = {name: index.find(folder / name) for name in dict.fromkeys(names)}
    missing = [name for name, place in places.items() if place is None]
    if not missing:
        return {}
    taken = {place for place in places.values() if place is not None}
    below = _below(folder, taken)
    found = {
        name: index.find(folder / name.name) or below.get(name.name) or index.find_any_case(folder / name)
        for name in missing
    }
    fits = Counter(found.values())
    return {name: file for name, file in found.items() if file is not None and file not in taken and fits[file] == 1}


def _below(folder: Path, taken: Collection[Path] = ()) -> dict[str, Path]:
    """Images in the subfolders of `folder` by name, without names that occur more than once.

    taken: images at their places. A subfolder with others of their names is left out: these are masks or thumbnails.
    """
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files_below(folder):
        if file.parent != folder and file.suffix.lower() in IMAGE_SUFFIXES:
            found[file.name].append(file)
    namesakes = {file for image in taken for file in found.get(image.name, ()) if file not in taken}
    copies = {file.parent for file in namesakes}
    return {name: files[0] for name, files in found.items() if len(files) == 1 and files[0].parent not in copies}


def _size(row: dict[str, Any], path: Path, notes: Notes) -> tuple[int, int] | None:
    """(width, height) from the annotations (checked later by `check_sizes`), or from the image if absent."""
    width, height = row.get("width"), row.get("height")
    if (
        isinstance(width, (int, float))
        and isinstance(height, (int, float))
        and (1 <= width < _LARGEST_SIDE and 1 <= height < _LARGEST_SIDE)
    ):
        return int(width), int(height)
    return size_of(path, notes)


def locate_images(
    file: Path, names: list[PurePosixPath], index: FileIndex, notes: Notes
) -> tuple[Path, list[PurePosixPath]]:
    """Return the folder that contains the images, and their names in it.

    Candidate folders are tried with up to 20 file names spread over the list. Splits may number their images alike, so
    a folder that is named like the split of the file comes before others, and one that is named like another split
    last. Names that contain folders of another machine (`C:/job/images/1.jpg`) are then tried without any folder, then
    in subfolders, and finally all names in another case.
    """
    usual, others = _image_folders(file)
    candidates = sorted([*usual, *others], key=lambda folder: _strangeness(folder, file))
    short = [PurePosixPath(name.name) for name in names]

    def best(tried: list[PurePosixPath], find: Callable[[Path], Path | None]) -> Path | None:
        hits = {folder: sum(find(folder / name) is not None for name in _probes(tried)) for folder in candidates}
        return _best({folder: count for folder, count in hits.items() if count}, usual, file, notes)

    for tried in (names, short):
        if folder := best(tried, index.find):
            return folder, tried
    for folder in candidates:
        if any(name.name in below for below in [_below(folder)] for name in _probes(short)):
            return folder, short
    for tried in (names, short):
        if folder := best(tried, index.find_any_case):
            return folder, tried
    index.check_missing()
    raise DataError(
        f"none of the images is on disk, for example {str(names[0])[:200]}",
        where=f"{file}; looked in {', '.join(str(folder) for folder in candidates[:8])}",
        remedy="put the images next to the annotations, into `images/` or into a folder named like the split",
    )


def _best(hits: dict[Path, int], usual: Collection[Path], file: Path, notes: Notes) -> Path | None:
    """Return the folder that holds the images, and note if it may be another one.

    hits: how many of the names are in each folder with any, the most likely folder first. Masks and thumbnails have the
    names of their images, so a folder in a usual place comes before others unless they have twice as many.
    """
    strange = {folder: _strangeness(folder, file) for folder in hits}
    least = min(strange.values(), default=0)
    alike = [folder for folder in hits if strange[folder] == least]
    if not alike:
        return None
    most = max(hits[folder] for folder in alike)
    found = max(alike, key=lambda folder: (folder in usual and 2 * hits[folder] > most, hits[folder]))

    def may_be(other: Path) -> bool:
        if other == found or strange[other] > max(least, 1):
            return False
        if found in usual:
            return hits[other] > hits[found]
        return other in usual or 2 * hits[other] > hits[found]

    if others := [folder.absolute().name for folder in hits if may_be(folder)]:
        notes.add("unclear-image-folder", f"{found.absolute().name}, not {others[0]} ({file.name})")
    return found


def _probes(names: list[PurePosixPath]) -> list[PurePosixPath]:
    return names[:: max(1, len(names) // 20)][:20]


def _strangeness(folder: Path, file: Path) -> int:
    """0 if a folder of images is named like the split of an annotation file, 2 if it is named like another one, else 1.

    Always 1 for the folders that the file itself lies in, whatever their names.
    """
    own, split = _split_in(folder.name), _split_in(file.stem)
    around = folder.absolute() in file.absolute().parents
    return 1 if around or None in (own, split) else 0 if own == split else 2


def _split_in(name: str) -> str | None:
    """The split that a name contains: val for `val_images`, `valid` and `instances_val2017`."""
    word = SPLIT_WORD.search(name.lower().replace("_", " "))
    return None if word is None else "val" if word[1].startswith("val") else word[1]


def _image_folders(file: Path) -> tuple[list[Path], list[Path]]:
    """Return existing folders that may contain the images of this file, most likely first: usual ones, and others."""
    parent = file.parent if file.parent.name else file.parent.absolute()  # "." says nothing of the folder above
    name = file.stem.removeprefix("instances_")
    bases = [parent, parent.parent] if parent.name.lower() in ANNOTATION_FOLDERS else [parent]
    split = split_name(file, parent)
    tails = (name, f"images/{name}", split, f"images/{split}", "images", ".", "JPEGImages")
    usual = dict.fromkeys(base / tail for tail in tails for base in bases if (base / tail).is_dir())
    beside = [folder for base in bases for folder in sorted(base.iterdir()) if not is_hidden(folder.name)]
    return list(usual), [folder for folder in dict.fromkeys(beside) if folder.is_dir() and folder not in usual]
