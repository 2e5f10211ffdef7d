"""COCO labels: `images/` and `train.json`, with the category ids of the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from fcos_cli.atomic import atomic_write
from fcos_cli.data.formats.coco import CocoSource, load_coco
from fcos_cli.data.formats.coco_images import locate_images, names_of, read_images
from fcos_cli.data.formats.file_index import FileIndex
from fcos_cli.data.formats.records import Notes
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.target import stems, training_split
from fcos_cli.runtime.results import Detections

DIGITS = 4  # of a coordinate in pixels


class CocoSet:
    """See `LabelSet`. New ids of images, annotations and categories follow the highest; the rest of a file stays."""

    def __init__(self, folder: Path, source: CocoSource | None) -> None:
        self.file, self.images = folder / "train.json", folder / "images"
        self.content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        self._names: list[PurePosixPath] = []
        self._ids: dict[str, int] = {}
        self._category: list[int] = []
        self._added = 0
        self._files = [] if source is None else list(source.splits.values())
        if source is not None:
            self.file = source.splits[training_split(source)]
            self.content = load_coco(self.file)
            self._names = names_of(self.content["images"], self.file)
            own = source.classes([training_split(source)])  # raises DataError if they cannot be used
            self._ids = dict(zip(own.names, own.ids, strict=True))
            if self._names:
                self.images, _ = locate_images(self.file, self._names, FileIndex())
        self._image_id = _after(self.content["images"])
        self._annotation_id = _after(self.content["annotations"])

    def taken(self) -> Iterable[str]:
        return chain(stems(self.images), (name.stem for name in self._names))

    def listed(self) -> Iterable[Path]:
        for file in self._files:
            content = load_coco(file)
            if content["images"]:  # a file without any is a set that has only begun
                yield from (image.path for image in read_images(content, file, Notes())[0])

    def takes(self, picture: Path) -> bool:  # noqa: ARG002 (part of the LabelSet interface)
        return True

    def begin(self, classes: ClassTable) -> None:
        self._declare(classes)
        self._category = [self._ids[name] for name in classes.names]

    def _declare(self, classes: ClassTable) -> None:
        if not self.content["categories"]:
            self._ids = dict(zip(classes.names, classes.ids, strict=True))
            self.content["categories"] = classes.to_json()
            return
        for name in (name for name in classes.names if name not in self._ids):
            self._ids[name] = _after(self.content["categories"])
            self.content["categories"].append({"id": self._ids[name], "name": name})

    def add(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        number = self._image_id + self._added
        self.content["images"].append({"id": number, "file_name": picture.name, "width": size[0], "height": size[1]})
        for (x1, y1, x2, y2), index in zip(labels.boxes.tolist(), labels.classes.tolist(), strict=True):
            box = [round(value, DIGITS) for value in (x1, y1, x2 - x1, y2 - y1)]
            self.content["annotations"].append(
                {
                    "id": self._annotation_id,
                    "image_id": number,
                    "category_id": self._category[index],
                    "bbox": box,
                    "area": round(box[2] * box[3], DIGITS),
                    "iscrowd": 0,
                }
            )
            self._annotation_id += 1
        self._added += 1

    def end(self) -> None:
        if self._added:
            with atomic_write(self.file) as stream:
                json.dump(self.content, stream)


def _after(rows: Sequence[dict[str, Any]]) -> int:
    """The first id after the highest, at least 1. Ids that are no numbers do not count."""
    return max((row["id"] for row in rows if type(row.get("id")) is int), default=0) + 1
