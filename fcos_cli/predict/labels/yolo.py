"""YOLO labels: `data.yaml`, `images/` and `labels/`. Class ids count from 0, as YOLO demands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from fcos_cli.atomic import atomic_write
from fcos_cli.data.formats.contents import read_text
from fcos_cli.data.formats.yolo import YoloSource
from fcos_cli.data.formats.yolo_labels import label_places
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.target import pictures_of, refusal, stems, training_split
from fcos_cli.runtime.results import Detections

DIGITS = 8  # of a share of the image: 0.001 px in an image of 100,000


class YoloSet:
    """See `LabelSet`. A new class is appended to an existing data.yaml, which then loses its comments."""

    def __init__(self, folder: Path, source: YoloSource | None) -> None:
        self.file, self.images = folder / "data.yaml", folder / "images"
        self._table: dict[str, Any] = {"train": "images"}
        self._ids: dict[str, int] = {}
        self._index_to_id: list[int] = []
        self._table_due = source is None
        self._source = source
        if source is not None:
            self.file, self.images = _places(source)
            self._table = _content(self.file)
            self._ids = {name: number for number, name in source.names.items()}
        places = [place.parent for place in label_places(self.images / "x.jpg")]
        # a folder around the data set may also be called `images`, but the labels are not beside that one
        inside = (place for place in places if place.absolute().is_relative_to(folder.absolute()))
        self.labels = next(inside, places[0])

    def taken(self) -> Iterable[str]:
        return chain(stems(self.images), stems(self.labels))

    def listed(self) -> Iterable[Path]:
        return pictures_of(self._source)

    def takes(self, picture: Path) -> bool:  # noqa: ARG002 (part of the LabelSet interface)
        return False  # all pictures of a folder are in its split

    def begin(self, classes: ClassTable) -> None:
        for name in (name for name in classes.names if name not in self._ids):
            self._ids[name] = max(self._ids.values(), default=-1) + 1
            self._table_due = True
        self._index_to_id = [self._ids[name] for name in classes.names]

    def add(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        if self._table_due:
            self._write_table()
        width, height = size
        rows = []
        for (x1, y1, x2, y2), index in zip(labels.boxes.tolist(), labels.classes.tolist(), strict=True):
            shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            rows.append(f"{self._index_to_id[index]} {' '.join(f'{share:.{DIGITS}f}' for share in shares)}\n")
        with atomic_write(self.labels / f"{picture.stem}.txt") as stream:
            stream.write("".join(rows))

    def end(self) -> None: ...

    def _write_table(self) -> None:
        self._table["names"] = {number: name for name, number in self._ids.items()}
        if "nc" in self._table:
            self._table["nc"] = len(self._ids)
        with atomic_write(self.file) as stream:
            yaml.safe_dump(self._table, stream, allow_unicode=True, sort_keys=False, width=1_000_000)
        self._table_due = False


def _places(source: YoloSource) -> tuple[Path, Path]:
    """Return the data.yaml, and the folder that its train split names. Raises UsageError."""
    split = training_split(source)
    file, folders = source.splits[split], source.folders(split)
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise refusal(source.root, "it has no data.yaml")
    if source.keypoints:
        raise refusal(file, "it has keypoints")
    if not folders:
        raise refusal(file, f"its {split} images are listed in a file, not a folder")
    return file, folders[0]


def _content(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise refusal(file, "its data.yaml has tags") from error
    return content
