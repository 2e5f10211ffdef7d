"""From the rows of any annotation format to Samples: the tidying that every reader shares, and its findings.

A reader hands over all pictures and all boxes of a split at once, so that cleaning is a handful of array operations
however many boxes there are. Bad boxes are dropped or clipped and counted, never silently kept or silently lost.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fcos_cli.data.images import IMAGE_SUFFIXES, image_size
from fcos_cli.data.samples import Finding, Sample, Severity
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable

CLIP_TOLERANCE = 1.0  # pixels; less than that is the rounding of annotation tools and not worth a word
CHECKED_SIZES = 200  # pictures whose header is compared with the size the annotations claim
EXAMPLES = 3

_KINDS: dict[str, tuple[Severity, str, str]] = {
    "missing-image": ("error", "pictures named by the annotations but not on disk, left out", "restore the files"),
    "unreadable-image": ("error", "pictures that cannot be read", "replace them, or take them out of the data set"),
    "unknown-category": ("error", "boxes of a class that the data set does not declare, dropped", "declare the class"),
    "unknown-image": ("error", "boxes for a picture that the file does not list, dropped", "list the picture"),
    "malformed-row": ("error", "rows that cannot be read as a box, dropped", "correct these rows"),
    "non-finite-box": ("error", "boxes with NaN or infinite coordinates, dropped", "correct these boxes"),
    "degenerate-box": ("warning", "boxes without width or height, dropped", "correct or remove these boxes"),
    "box-outside": ("warning", "boxes wholly outside their picture, dropped", "check the units and the picture size"),
    "box-clipped": ("warning", "boxes that reached over the edge by more than 1 px, clipped", "usually harmless"),
    "duplicate-box": ("warning", "boxes given before with the same class and place, dropped", "remove the copies"),
    "size-mismatch": (
        "warning",
        f"pictures, of up to {CHECKED_SIZES} looked at, that with EXIF orientation applied are not as large as the "
        "annotations say",
        "if width and height are swapped, the boxes were drawn on the unturned picture: turn the files or the boxes",
    ),
    "class-not-in-table": ("warning", "boxes of classes that the given class table lacks, dropped", "check the names"),
    "no-label-file": ("info", "pictures without a label file, kept as pictures without objects", ""),
    "ids-renumbered": ("info", "pictures numbered 1, 2, 3, … because their own ids cannot be used", ""),
}


class Notes:
    """Counts what was noticed while reading and keeps the first places of each kind (ids: the table above)."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._places: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, place: str, *, count: int = 1) -> None:
        self._counts[kind] += count
        if len(self._places[kind]) < EXAMPLES:
            self._places[kind].append(place)

    def findings(self) -> list[Finding]:
        """One finding per kind, the gravest first."""
        order = list(_KINDS)
        found = []
        for kind in sorted(self._counts, key=order.index):
            severity, message, remedy = _KINDS[kind]
            more = ", …" if self._counts[kind] > len(self._places[kind]) else ""
            place = ", ".join(self._places[kind]) + more
            found.append(Finding(kind, severity, place, f"{message}: {self._counts[kind]}", remedy))
        return found


class Picture(NamedTuple):
    """A picture that exists, before its boxes are attached; width and height in pixels, upright."""

    path: Path
    image_id: int
    width: int
    height: int


class Rows(NamedTuple):
    """All boxes of a split, as read: M rows, dirty ones included.

    picture: int64 [M], position in the list of pictures. boxes: float64 [M, 4], xyxy in source pixels, exclusive
    ends. classes: int64 [M], class indices. ignore: bool [M]. areas: float64 [M], pixels²; NaN where not given.
    """

    picture: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    ignore: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[float], int, bool]]) -> Rows:
        """From (picture, xyxy, class, ignore) per box."""
        boxes = np.array([row[1] for row in rows], np.float64).reshape(-1, 4)
        return cls(
            np.array([row[0] for row in rows], np.int64),
            boxes,
            np.array([row[2] for row in rows], np.int64),
            np.array([row[3] for row in rows], np.bool_),
            np.full(len(rows), np.nan),
        )

    def keep(self, mask: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Rows:
        return Rows(self.picture[mask], self.boxes[mask], self.classes[mask], self.ignore[mask], self.areas[mask])


class Source(Protocol):
    """A data set found on disk, not read yet: what each format's reader offers to `formats.read_dataset`.

    root: the folder that messages and splits are relative to. splits: name → file or folder it comes from.
    """

    @property
    def format(self) -> Literal["coco", "yolo", "voc"]: ...

    @property
    def root(self) -> Path: ...

    @property
    def splits(self) -> Mapping[str, Path]: ...

    def classes(self, splits: Sequence[str]) -> ClassTable:
        """The one class table for these splits together."""
        ...

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]: ...


class FileIndex:
    """Which files exist, with one directory listing per folder instead of one question per file."""

    def __init__(self) -> None:
        self._listed: dict[Path, list[str]] = {}
        self._known: dict[Path, set[str]] = {}
        self._stems: dict[Path, dict[str, str]] = {}

    def __contains__(self, file: Path) -> bool:
        folder = file.parent
        if folder not in self._known:
            self._known[folder] = set(self._names(folder))
        return file.name in self._known[folder]

    def pictures(self, folder: Path) -> dict[str, str]:
        """Stem → file name of the pictures in a folder, sorted; empty where there is no such folder."""
        if folder not in self._stems:
            names = (
                name for name in self._names(folder) if name[0] != "." and Path(name).suffix.lower() in IMAGE_SUFFIXES
            )
            self._stems[folder] = {Path(name).stem: name for name in names}
        return self._stems[folder]

    def _names(self, folder: Path) -> list[str]:
        if folder not in self._listed:
            # not iterdir(): a Path per file would double the time for 100,000 pictures
            self._listed[folder] = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208
        return self._listed[folder]


def samples(pictures: Sequence[Picture], rows: Rows, notes: Notes) -> list[Sample]:
    """One Sample per picture, in their order, with the usable boxes in file order; all else goes into `notes`."""
    rows = _tidy(pictures, rows, notes)
    rows = rows.keep(np.argsort(rows.picture, kind="stable"))
    areas = np.prod(rows.boxes[:, 2:] - rows.boxes[:, :2], axis=1)
    areas = np.where(rows.areas > 0, rows.areas, areas)
    boxes = rows.boxes.astype(np.float32)
    ends = np.searchsorted(rows.picture, np.arange(len(pictures) + 1))
    return [
        Sample(*picture, boxes[a:b], rows.classes[a:b], rows.ignore[a:b], areas[a:b])
        for picture, a, b in zip(pictures, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]


def _tidy(pictures: Sequence[Picture], rows: Rows, notes: Notes) -> Rows:
    """Drops and clips bad boxes, in the order of the checks below, and notes each."""

    def drop(kind: str, bad: npt.NDArray[np.bool_]) -> None:
        nonlocal rows
        _note_rows(kind, bad, pictures, rows, notes)
        if bad.any():
            rows = rows.keep(~bad)

    drop("non-finite-box", np.asarray(~np.isfinite(rows.boxes).all(axis=1)))
    drop("degenerate-box", _flat(rows.boxes))
    sizes = np.array([(p.width, p.height) for p in pictures], np.float64).reshape(-1, 2)
    clipped = np.clip(rows.boxes, 0.0, np.tile(sizes[rows.picture], 2)).astype(np.float32)
    gone = _flat(clipped)
    moved = np.asarray((np.abs(clipped - rows.boxes) > CLIP_TOLERANCE).any(axis=1))
    _note_rows("box-clipped", moved & ~gone, pictures, rows, notes)
    drop("box-outside", gone)
    rows = rows._replace(boxes=clipped[~gone].astype(np.float64))
    drop("duplicate-box", _repeated(rows))
    return rows


def _flat(boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """bool [M]: no width or no height."""
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


def _repeated(rows: Rows) -> npt.NDArray[np.bool_]:
    """bool [M]: the same picture, class, kind and box came earlier."""
    keys = np.column_stack([rows.picture, rows.classes, rows.ignore, rows.boxes])
    order = np.lexsort(keys.T)  # stable, so the first of equals stays first
    same = (keys[order][1:] == keys[order][:-1]).all(axis=1)
    repeated = np.zeros(len(keys), np.bool_)
    repeated[order[1:][same]] = True
    return repeated


def _note_rows(kind: str, bad: npt.NDArray[np.bool_], pictures: Sequence[Picture], rows: Rows, notes: Notes) -> None:
    places = np.flatnonzero(bad)
    for position, index in enumerate(places[:EXAMPLES].tolist()):
        box = ", ".join(f"{value:.6g}" for value in rows.boxes[index])
        count = len(places) - EXAMPLES + 1 if position == EXAMPLES - 1 else 1
        notes.add(kind, f"{pictures[int(rows.picture[index])].path.name} [{box}]", count=count)


def check_sizes(pictures: Sequence[Picture], notes: Notes) -> None:
    """Compares claimed sizes with the headers of up to `CHECKED_SIZES` pictures, evenly spread."""
    for picture in pictures[:: max(1, len(pictures) // CHECKED_SIZES)]:
        try:
            width, height = image_size(picture.path)
        except DataError:
            notes.add("unreadable-image", picture.path.name)
            continue
        if (width, height) != (picture.width, picture.height):
            claim = f"{picture.width}x{picture.height}"
            notes.add("size-mismatch", f"{picture.path.name} (file {width}x{height}, annotations {claim})")
