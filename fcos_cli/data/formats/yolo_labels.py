"""YOLO's label files: where those of the images are, the boxes in them, and which have no image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fcos_cli.data.formats.contents import read_text
from fcos_cli.data.formats.file_index import FileIndex, files_below, plain
from fcos_cli.data.formats.notes import Notes
from fcos_cli.model.classes import ClassTable

NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt", "notes.txt"}


def has_labels(folder: Path) -> bool:
    """Whether a label file is in the folder or below it. Other formats may also call a folder `labels`."""
    return any(file.suffix.lower() == ".txt" and file.name.lower() not in NOT_LABELS for file in files_below(folder))


def has_boxes(folder: Path) -> bool:
    """Whether a label file that begins with a box lies beside its image. Captions may lie there too."""
    index = FileIndex()
    labels = index.labels(folder)
    found = (folder / labels[stem] for stem in map(plain, index.images(folder)) if stem in labels)
    return any(_begins_with_box(file) for file in found if file.is_file())


def label_places(image: Path) -> list[Path]:
    """Paths where the label file may be: `labels` replacing the last folder `images`, then next to the image.

    A folder `Images` is replaced too, by `Labels` or `labels`, if none is called `images`; then next to the image comes
    first.
    """
    parts = image.with_suffix(".txt").parts
    place = _position(parts[:-1], "images")
    if place is None:
        return [Path(*parts)]
    exact = parts[place] == "images"
    names = ("labels",) if exact else ("LABELS" if parts[place].isupper() else "Labels", "labels")
    mirrored = [Path(*parts[:place], name, *parts[place + 1 :]) for name in names]
    return [*mirrored, Path(*parts)] if exact else [Path(*parts), *mirrored]


def label_of(image: Path, index: FileIndex) -> Path | None:
    for path in label_places(image):
        if (name := _choose(image, index.labels(path.parent))) is not None:
            return path.parent / name
    return None


def read_boxes(
    label: Path, classes: ClassTable, notes: Notes, *, keypoints: bool
) -> list[tuple[int, tuple[float, float, float, float]]]:
    """Return (class index, relative xyxy) per valid row."""
    boxes = []
    for number, line in enumerate(read_text(label).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            category_id, box = _row(line, keypoints=keypoints)
        except ValueError:
            notes.add("malformed-row", f"{label.name}:{number} {line.strip()[:40]!r}")
            continue
        index = classes.index_of_id.get(category_id)  # type: ignore[call-overload]
        if index is None:
            notes.add("unknown-category", f"{label.name}:{number} class {category_id:g}")
            continue
        boxes.append((index, box))
    return boxes


def note_lonely_labels(files: Sequence[Path], index: FileIndex, notes: Notes, *, inside: Sequence[Path]) -> None:
    """Note the label files for which there is no image: beside `files`, and in folders that mirror no image folder.

    inside: the folders of the data set, outside of which no folder is searched.
    """
    tops = [os.path.abspath(folder) for folder in inside]  # noqa: PTH100 - keeps links
    mirrors = {(image.parent, path.parent) for image in files for path in label_places(image)}
    lonely = []
    for images, labels in sorted(mirrors):
        if found := index.labels(labels):
            used = {_choose(Path(name), found) for name in index.image_names(images)}
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


def _choose(image: Path, labels: Mapping[str, str]) -> str | None:
    """The label file of an image among those of a folder: `a.txt`; else for `a.png` not `a.jpg.txt` but `a.png.txt`."""
    stem = plain(image.stem)
    name = labels.get(stem)
    if name is None or plain(name) == f"{stem}.txt":
        return name
    return labels.get(plain(image.name), name)


def _position(parts: Sequence[str], name: str) -> int | None:
    """The place of the last part with this name, else of the last one that differs only in its case."""
    exact = [place for place, part in enumerate(parts) if part == name]
    places = exact or [place for place, part in enumerate(parts) if part.lower() == name]
    return places[-1] if places else None


def _root(folder: Path, name: str) -> Path:
    """The folder `name` that `folder` is, or lies in; otherwise `folder` itself."""
    place = _position(folder.parts, name)
    return folder if place is None else Path(*folder.parts[: place + 1])


def _begins_with_box(label: Path) -> bool:
    first = next(filter(str.strip, read_text(label).splitlines()), "")
    try:
        _row(first, keypoints=True)
    except ValueError:
        return False
    return True


def _row(line: str, *, keypoints: bool) -> tuple[float, tuple[float, float, float, float]]:
    """Convert `class cx cy w h` or `class x y x y x y …`, a polygon, to the class and xyxy. Raises ValueError."""
    category_id, *values = (float(value) for value in line.split())
    if len(values) == 4 or (keypoints and len(values) > 4):
        x, y, w, h = values[:4]
        return category_id, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    if len(values) < 6 or len(values) % 2:
        raise ValueError("neither a box nor a polygon")
    return category_id, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
