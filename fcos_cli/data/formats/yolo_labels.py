"""Where the label files of YOLO's images are, and which have no image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fcos_cli.data.formats.file_index import FileIndex, files_below, plain
from fcos_cli.data.formats.notes import Notes

NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", "notes.txt"}


def has_labels(folder: Path) -> bool:
    """Whether a label file is in the folder or below it. Other formats may also call a folder `labels`."""
    return any(file.suffix.lower() == ".txt" and file.name.lower() not in NOT_LABELS for file in files_below(folder))


def label_places(image: Path) -> list[Path]:
    """Paths where the label file may be: `labels` replacing the last folder `images`, then next to the image."""
    parts = list(image.with_suffix(".txt").parts)
    candidates = [Path(*parts)]
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
        candidates.insert(0, Path(*parts))
    return candidates


def label_of(image: Path, index: FileIndex) -> Path | None:
    for path in label_places(image):
        if (name := index.labels(path.parent).get(plain(image.stem))) is not None:
            return path.parent / name
    return None


def note_lonely_labels(files: Sequence[Path], index: FileIndex, notes: Notes, *, inside: Sequence[Path]) -> None:
    """Note the label files for which there is no image: beside `files`, and in folders that mirror none of images.

    inside: the folders of the data set, outside of which no folder is searched.
    """
    tops = [os.path.abspath(folder) for folder in inside]  # noqa: PTH100 - keeps links
    mirrors = {(image.parent, path.parent) for image in files for path in label_places(image)}
    lonely = []
    for images, labels in sorted(mirrors):
        stems = {plain(stem) for stem in index.images(images)}
        found = index.labels(labels)
        used = {name for stem, name in found.items() if stem in stems}
        lonely += [labels / name for name in found.values() if name not in used]
    for images, labels in sorted({(_root(a, "images"), _root(b, "labels")) for a, b in mirrors if a != b}):
        if not any(Path(os.path.abspath(labels)).is_relative_to(top) for top in tops):  # noqa: PTH100
            continue
        for folder in (path for path in labels.rglob("*") if path.is_dir()):
            if not (images / folder.relative_to(labels)).is_dir():
                lonely += [folder / name for name in index.labels(folder).values()]
    for path in dict.fromkeys(lonely):
        if path.name.lower() not in NOT_LABELS:
            notes.add("label-without-image", path.name)


def _root(folder: Path, name: str) -> Path:
    """The folder `name` that `folder` is, or lies in; otherwise `folder` itself."""
    return next((path for path in (folder, *folder.parents) if path.name == name), folder)
