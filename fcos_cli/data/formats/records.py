"""Convert the rows of any annotation format to Samples: cleaning shared by all readers, and its findings.

A reader passes all images and all boxes of a split at once, so cleaning takes a few array operations however many
boxes there are. Bad boxes are dropped or clipped, and counted; none are kept or lost silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fcos_cli.data.formats.notes import CHECKED_IMAGES, EXAMPLES, Notes
from fcos_cli.data.images import image_size, note_of
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable

CLIP_TOLERANCE = 1.0  # pixels; smaller excesses are rounding by annotation tools and are not reported
MANY = 16  # boxes, or pixels of a side; a share of fewer says little
FEW = 3  # boxes; fewer may all be tiny by chance
SAME_FACTOR = 0.02  # relative difference of two factors that are the same up to rounding
SPLITS = ("train", "val", "valid", "validation", "trainval", "test")


class ImageRecord(NamedTuple):
    """An image that exists on disk, before its boxes are attached; width and height in pixels, upright."""

    path: Path
    image_id: int
    width: int
    height: int


def size_of(path: Path, notes: Notes) -> tuple[int, int] | None:
    """(width, height) of an image, upright, from its header; None, which is noted, if it cannot be read."""
    try:
        return image_size(path)
    except DataError as error:
        notes.add("unreadable-image", f"{path.name} ({error.what})")
        return None


class Rows(NamedTuple):
    """All boxes of a split as read, before cleaning: M rows.

    image: int64 [M], index into the list of images. boxes: float64 [M, 4], xyxy in source pixels, exclusive ends.
    classes: int64 [M], class indices. ignore: bool [M]. areas: float64 [M], pixels²; NaN if absent.
    """

    image: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    ignore: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[float], int, bool]]) -> Rows:
        """Build from one (image, xyxy, class, ignore) tuple per box."""
        boxes = np.array([row[1] for row in rows], np.float64).reshape(-1, 4)
        return cls(
            np.array([row[0] for row in rows], np.int64),
            boxes,
            np.array([row[2] for row in rows], np.int64),
            np.array([row[3] for row in rows], np.bool_),
            np.full(len(rows), np.nan),
        )

    def keep(self, mask: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Rows:
        return Rows(self.image[mask], self.boxes[mask], self.classes[mask], self.ignore[mask], self.areas[mask])


class Source(Protocol):
    """A data set found on disk but not read yet: the interface between a reader and `formats.read_dataset`.

    root: the folder that messages and splits are relative to. splits: name → the file or folder it comes from.
    """

    @property
    def format(self) -> Literal["coco", "yolo", "voc", "labelme"]: ...

    @property
    def root(self) -> Path: ...

    @property
    def splits(self) -> Mapping[str, Path]: ...

    def classes(self, splits: Sequence[str]) -> ClassTable:
        """Return the class table shared by these splits."""
        ...

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]: ...


def split_key(name: str) -> str:
    """The name of a split as `read_dataset` looks for it: `Train` is train. Unknown names are left as they are."""
    return name.lower() if name.lower() in SPLITS else name


def samples(images: Sequence[ImageRecord], rows: Rows, notes: Notes) -> list[Sample]:
    """Return one Sample per image, in order, with the valid boxes in file order; problems are added to `notes`."""
    _note_frames(images, notes)
    rows = _clean_rows(images, rows, notes)
    rows = rows.keep(np.argsort(rows.image, kind="stable"))
    areas = np.prod(rows.boxes[:, 2:] - rows.boxes[:, :2], axis=1)
    areas = np.where(rows.areas > 0, rows.areas, areas)
    boxes = rows.boxes.astype(np.float32)
    ends = np.searchsorted(rows.image, np.arange(len(images) + 1))
    return [
        Sample(*image, boxes[a:b], rows.classes[a:b], rows.ignore[a:b], areas[a:b])
        for image, a, b in zip(images, ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]


def _clean_rows(images: Sequence[ImageRecord], rows: Rows, notes: Notes) -> Rows:
    """Drop and clip bad boxes, in the order of the checks below, and note each one."""

    def drop(kind: str, bad: npt.NDArray[np.bool_]) -> None:
        nonlocal rows
        _note_rows(kind, bad, images, rows, notes)
        if bad.any():
            rows = rows.keep(~bad)

    drop("non-finite-box", np.asarray(~np.isfinite(rows.boxes).all(axis=1)))
    _refuse_shares(images, rows)
    drop("degenerate-box", _is_degenerate(rows.boxes))
    sizes = np.array([(p.width, p.height) for p in images], np.float64).reshape(-1, 2)
    clipped = np.clip(rows.boxes, 0.0, np.tile(sizes[rows.image], 2)).astype(np.float32)
    gone = _is_degenerate(clipped)
    moved = np.asarray((np.abs(clipped - rows.boxes) > CLIP_TOLERANCE).any(axis=1))
    most = np.mean(moved & ~gone) > 0.5 if len(rows.boxes) >= MANY else False
    _note_rows("mostly-clipped" if most else "box-clipped", moved & ~gone, images, rows, notes)
    drop("box-outside", gone)
    rows = rows._replace(boxes=clipped[~gone].astype(np.float64))
    drop("duplicate-box", _is_duplicate(rows))
    return rows


def _refuse_shares(images: Sequence[ImageRecord], rows: Rows) -> None:
    """Raise DataError if all boxes lie within the first pixel: then they are shares of the image.

    Those of VOC begin before it, since its pixels count from 1.
    """
    if len(rows.boxes) < FEW or np.abs(rows.boxes).max() > 1:
        return
    sides = rows.boxes[:, 2:] - rows.boxes[:, :2]
    shares = (sides > 0) & ((sides < 1) | (rows.boxes[:, :2] < 0))
    if np.mean(shares) > 0.5 and max(max(image.width, image.height) for image in images) > MANY:
        box = ", ".join(f"{value:.4g}" for value in rows.boxes[0])
        raise DataError(
            "the boxes are fractions of the image size (0…1), not pixels",
            where=f"{images[int(rows.image[0])].path.name} [{box}]",
            remedy="multiply them by the width and the height of their image",
        )


def _is_degenerate(boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    """bool [M]: True if the width or height is not positive."""
    return np.asarray((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))


def _is_duplicate(rows: Rows) -> npt.NDArray[np.bool_]:
    """bool [M]: True if an earlier row has the same image, class, ignore flag and box."""
    keys = np.column_stack([rows.image, rows.classes, rows.ignore, rows.boxes])
    order = np.lexsort(keys.T)  # stable, so the first of several duplicates is kept
    same = (keys[order][1:] == keys[order][:-1]).all(axis=1)
    repeated = np.zeros(len(keys), np.bool_)
    repeated[order[1:][same]] = True
    return repeated


def _note_rows(kind: str, bad: npt.NDArray[np.bool_], images: Sequence[ImageRecord], rows: Rows, notes: Notes) -> None:
    indices = np.flatnonzero(bad)
    for position, index in enumerate(indices[:EXAMPLES].tolist()):
        box = ", ".join(f"{value:.6g}" for value in rows.boxes[index])
        count = len(indices) - EXAMPLES + 1 if position == EXAMPLES - 1 else 1
        notes.add(kind, f"{images[int(rows.image[index])].path.name} [{box}]", count=count)


def _spread(images: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    """Return CHECKED_IMAGES of the images, evenly spaced, or all if there are fewer."""
    return [images[round(place)] for place in np.linspace(0, len(images) - 1, min(len(images), CHECKED_IMAGES))]


def _note_frames(images: Sequence[ImageRecord], notes: Notes) -> None:
    for image in _spread(images):
        if note_of(image.path) is not None:
            notes.add("more-frames", image.path.name)


def check_sizes(images: Sequence[ImageRecord], notes: Notes) -> None:
    """Compare annotated sizes with the headers of up to `CHECKED_IMAGES` images, evenly spaced.

    Raises DataError if most of them differ by one common factor: the images were resized after labeling.
    """
    checked = _spread(images)
    factors = []
    example = ""
    for image in checked:
        size = size_of(image.path, notes)
        if size is not None and size != (image.width, image.height):
            width, height = size
            annotated = f"{image.width}x{image.height}"
            example = example or image.path.name
            factors.append((width / image.width, height / image.height))
            notes.add("size-mismatch", f"{image.path.name} (file {width}x{height}, annotations {annotated})")
    factor = float(np.mean(factors)) if len(factors) > len(checked) / 2 else 1.0
    if abs(factor - 1) > SAME_FACTOR and np.ptp(factors) <= SAME_FACTOR * factor:
        raise DataError(
            f"the images on disk are {factor:.3g} times as large as their annotations say",
            where=f"{len(factors)} of {len(checked)} images, for example {example}",
            remedy="restore the original images, or scale the sizes and the boxes in the annotations by this factor",
        )
