"""The records that every reader returns and all later code uses: Sample, Dataset, Finding. No torch."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fcos_cli.model.classes import ClassTable


@dataclass(frozen=True)
class Sample:
    """One image and its annotations.

    image: path of the image file.
    image_id: the data set's own id (COCO `images[].id`), otherwise 1, 2, 3, … in file order.
    width, height: size in pixels as displayed (after EXIF orientation).
    boxes: float32 [N, 4], xyxy in source pixels, exclusive ends, inside the image, width and height > 0.
    classes: int64 [N], class indices 0…C-1.
    ignore: bool [N]; crowd or difficult boxes, which are neither trained on nor counted as misses.
    areas: float64 [N], the area used for COCO's size buckets, in source pixels² (`area` in the file, otherwise w·h).
    part: the part of the image that this is (a tile), xyxy in pixels of an image of `full_size` (width, height); None:
    all of it. Width, height and boxes are those of the part.
    """

    image: Path
    image_id: int
    width: int
    height: int
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    ignore: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]
    part: tuple[int, int, int, int] | None = None
    full_size: tuple[int, int] | None = None


Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """A problem noticed in a data set: a stable id (`degenerate-box`), its severity, where it is and what to do."""

    id: str
    severity: Severity
    place: str
    message: str
    remedy: str = ""


class Division(NamedTuple):
    """How images are divided into train and val: the fraction held out as val, 0…1, and the seed of the choice."""

    val_fraction: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    origin: one line for the user about where the split came from. division: how the images were divided; None if the
    split is the data set's own.
    """

    samples: list[Sample]
    classes: ClassTable
    format: Literal["coco", "yolo", "voc", "labelme"]
    split: str
    source: Path
    origin: str
    findings: list[Finding] = field(default_factory=list)
    division: Division | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def name(self) -> str:
        return name_of(self.source)

    @property
    def has_boxes(self) -> bool:
        """Whether any box counts; ignored ones do not."""
        return any((~sample.ignore).any() for sample in self.samples)


def name_of(source: Path) -> str:
    """Name of the folder or file of a data set, also if it was given as `.`."""
    return os.path.basename(os.path.abspath(source))  # noqa: PTH100, PTH119 (a link keeps its own name)


def fingerprint(dataset: Dataset) -> str:
    """Return a hash of the file names, boxes and classes of a data set, in order. Pixels are not included."""
    digest = hashlib.sha256()

    def add(sample: Sample) -> None:
        digest.update(os.fsencode(sample.image.name))
        digest.update(b"" if sample.part is None else repr(sample.part).encode())
        for array in (sample.boxes, sample.classes, sample.ignore):
            digest.update(array.tobytes())

    for sample in dataset.samples:
        add(sample)
    digest.update(repr((dataset.classes.names, dataset.classes.ids)).encode())
    return digest.hexdigest()[:16]
