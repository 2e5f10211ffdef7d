"""YOLO data sets without a data.yaml: which folders hold the images, and which file the class names."""

from __future__ import annotations

import codecs
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fcos_cli.data.formats.contents import decode, read_bytes
from fcos_cli.data.formats.file_index import FileIndex, files_below, is_hidden, plain
from fcos_cli.data.formats.records import split_key
from fcos_cli.data.formats.yolo_labels import has_boxes, has_labels
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError

SPLITS = ("train", "val", "valid", "validation", "test")
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
"""Files with one class name per line, of labelImg, Darknet and Roboflow."""


class Layout(NamedTuple):
    """splits: name → folders of images. names: class index → name."""

    splits: dict[str, list[Path]]
    names: dict[int, str]


def layout_of(path: Path) -> Layout | None:
    """Return the data set with `images/` and `labels/` (or both per split), or with images and labels side by side, as
    labelImg writes them; with the class names in a file of its root. None if there is none.
    """
    files = (path / "classes.txt", path / "labels" / "classes.txt", path / "obj.names")
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    if _is_flat(path):
        return Layout({"images": [path]}, read_names(file))
    labels = [folder for folder in _named("labels", path) if folder.name == "labels" and _mirrors_images(folder, path)]
    images = _image_folders(path) if any(map(has_labels, labels)) else {}
    return Layout(images, read_names(file)) if images else None


def other_layout_of(path: Path) -> Layout | None:
    """Return the YOLO data set of a folder in which no format has been found; None if it has no labels of YOLO.

    It may have images and labels side by side in a folder per split, or `Images/` and `Labels/`, and the class names
    beside the labels. Raises DataError if class names or images are missing.
    """
    found = [folder for folder in _named("labels", path) if has_labels(folder)]
    labels = [folder for folder in found if _mirrors_images(folder, path)]
    splits = _image_folders(path) if labels else {}
    if not splits:
        splits = _side_by_side(path)
        labels = [folder for folders in splits.values() for folder in folders]
    if not splits:
        if found:
            raise _without_images(found)
        return None
    files = [path / name for name in _NAME_FILES if (path / name).is_file()]
    files += [file for folder in labels for file in files_below(folder) if file.name in _NAME_FILES]
    if not files:
        raise DataError(
            "there are YOLO labels but no class names",
            where=path,
            remedy="write a data.yaml with `names`, `train` and `val`, or a classes.txt with one name per line",
        )
    return Layout(splits, _common_names(files))


def read_names(file: Path) -> dict[int, str]:
    """Return index → name from a file with one name per line. Raises DataError if a line or a character would be lost:
    boxes would then get the wrong class names.
    """
    content = read_bytes(file)
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as `>` in PowerShell writes it
    problem = "the class names are not UTF-8"
    text = decode(content, file, problem=problem, encoding="utf-16" if utf16 else "utf-8-sig")
    if "\0" in text:
        raise DataError(problem, where=file, remedy="save the file as UTF-8")
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise DataError("the file declares no classes", where=file, remedy="write one class name per line")
    if "" in names:
        what = "a line has no class name, so the numbers of the classes after it are unclear"
        raise DataError(what, where=f"{file}:{names.index('') + 1}", remedy="remove the line, or name the class")
    lines: dict[str, int] = {}
    for number, name in enumerate(names):
        if (first := lines.setdefault(name, number)) < number:
            what = f"the class name {name[:40]} is also in line {first + 1}"
            raise DataError(what, where=f"{file}:{number + 1}", remedy="list every class once")
    return dict(enumerate(names))


def _common_names(files: Iterable[Path]) -> dict[int, str]:
    """The longest list of names; the others must be its beginning. Raises DataError if one is not."""
    lists = {file: read_names(file) for file in files}
    longest = max(lists, key=lambda file: len(lists[file]))
    for file, names in lists.items():
        for number, name in names.items():
            if (other := lists[longest][number]) != name:
                what = f"class {number} is {name[:40]} here, but {other[:40]} in {longest}"
                raise DataError(what, where=f"{file}:{number + 1}", remedy="use one list of classes for all labels")
    return lists[longest]


def _is_flat(path: Path) -> bool:
    """Whether images and their label files lie side by side in the folder, with a classes.txt, as labelImg does."""
    index = FileIndex()
    stems = {plain(stem) for stem in index.images(path)}
    return (path / "classes.txt").is_file() and any(stem in stems for stem in index.labels(path))


def _side_by_side(path: Path) -> dict[str, list[Path]]:
    """Split → folders in which images and labels lie side by side, in `path` or its folder `images`; if it is `path`
    itself, the split is `images`.

    Folders named like a split are also returned if they have only images: missing labels are reported later.
    """
    if has_boxes(path):
        return {"images": [path]}
    for top in (path, *(folder for folder in _named("images", path) if folder.parent == path)):
        below = sorted(folder for folder in top.glob("*") if folder.is_dir() and not is_hidden(folder.name))
        with_boxes = {folder for folder in below if has_boxes(folder)}
        splits: defaultdict[str, list[Path]] = defaultdict(list)
        for folder in below if with_boxes else ():
            if folder in with_boxes or (folder.name.lower() in SPLITS and _has_images(folder)):
                splits[split_key(folder.name)].append(folder)
        if splits:
            return dict(splits)
    return {}


def _image_folders(path: Path) -> dict[str, list[Path]]:
    """Split → its folder of images; without splits, `images` itself; none if there is no such folder."""
    places = _named("images", path)
    found = {folder.name.lower(): folder for place in places if place.parent == path for folder in place.glob("*")}
    found |= {place.parent.name.lower(): place for place in places if place.parent != path}
    splits = {split: [found[split]] for split in SPLITS if split in found and found[split].is_dir()}
    whole = [place for place in places if place.parent == path]
    return splits or ({"images": whole[-1:]} if whole else {})


def _named(name: str, path: Path) -> list[Path]:
    """The folders of this name, in any case, in a folder and its subfolders; the one in lower case is the last."""
    pattern = "".join(f"[{letter}{letter.upper()}]" for letter in name)
    places = (folder for prefix in ("", "*/") for folder in path.glob(prefix + pattern))
    return sorted(folder for folder in places if folder.is_dir())


def _mirrors_images(labels: Path, path: Path) -> bool:
    """Whether a folder of labels is where data sets keep it. Other tools put labels into folders of their own."""
    return labels.parent == path or labels.parent.name.lower() in (*SPLITS, "images")


def _has_images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in files_below(folder))


def _without_images(labels: Sequence[Path]) -> DataError:
    inner = next((folder.parent for folder in labels if _image_folders(folder.parent)), None)
    if inner is not None:
        return DataError("the YOLO data set is in a subfolder", where=inner, remedy="give this folder")
    return DataError(
        "there are YOLO labels but no images",
        where=labels[0].parent / "images",
        remedy="put the images into a folder `images` beside `labels`; Label Studio calls it YOLO with Images",
    )
