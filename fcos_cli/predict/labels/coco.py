"""COCO labels: `images/` and `train.json`, with the category ids of the model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from fcos_cli.atomic import atomic_write
from fcos_cli.data.formats.coco import CocoSource, load_coco
from fcos_cli.data.formats.coco_images import locate_images, names_of, read_images
from fcos_cli.data.formats.file_index import FileIndex
from fcos_cli.data.formats.notes import Notes
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.target import stems, training_split
from fcos_cli.runtime.results import Detections

DIGITS = 4  # of a coordinate in pixels


class CocoSet:
    """See `LabelSet`. New ids of images, annotations and categories follow the highest; the rest of a file stays.

    At the end, new rows are added to what the file holds then: somebody may have corrected labels during the run.
    """

    def __init__(self, folder: Path, source: CocoSource | None) -> None:
        self.file, self.images = folder / "train.json", folder / "images"
        self._is_new = source is None
        self._source = source or CocoSource(folder, {"train": self.file})
        self._names: list[PurePosixPath] = []
        self._classes = ClassTable((), ())
        self._added: list[tuple[str, tuple[int, int], Detections]] = []
        if source is not None:
            self.file = source.splits[training_split(source)]
            self._names = names_of(load_coco(self.file)["images"], self.file)
            source.classes([training_split(source)])  # raises DataError if they cannot be used
            if self._names:
                notes = Notes()
                self.images, _ = locate_images(self.file, self._names, FileIndex(), notes)
                if unclear := notes.findings():
                    what = f"it is unclear which folder the pictures of this data set are in: {unclear[0].place}"
                    raise UsageError(what, where=self.file, remedy=unclear[0].remedy)

    def taken(self) -> Iterable[str]:
        return chain(stems(self.images), (name.stem for name in self._names))

    def listed(self) -> Iterable[Path]:
        for file in () if self._is_new else self._source.splits.values():
            content = load_coco(file)
            if content["images"]:  # a file without any is a set that was only begun
                yield from (image.path for image in read_images(content, file, Notes())[0])

    def takes(self, picture: Path) -> bool:  # noqa: ARG002 (part of the LabelSet interface)
        return True

    def begin(self, classes: ClassTable) -> None:
        self._classes = classes

    def add(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        if self._is_new and not self._added:  # if this run is killed, the next can add to the set
            head: dict[str, Any] = {"info": {}, "licenses": []}  # which other tools want
            self._write({**head, "images": [], "annotations": [], "categories": self._classes.to_json()})
        self._added.append((picture.name, size, labels))

    def end(self) -> None:
        added = [row for row in self._added if (self.images / row[0]).exists()]  # the last may have been interrupted
        if not added:
            return
        content = load_coco(self.file)
        category, image_id = self._declare(content["categories"]), _after(content["images"])
        annotation_id = _after(content["annotations"])
        for number, (name, size, labels) in enumerate(added, start=image_id):
            content["images"].append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
            for (x1, y1, x2, y2), index in zip(labels.boxes.tolist(), labels.classes.tolist(), strict=True):
                box = [round(value, DIGITS) for value in (x1, y1, x2 - x1, y2 - y1)]
                content["annotations"].append(
                    {
                        "id": annotation_id,
                        "image_id": number,
                        "category_id": category[index],
                        "bbox": box,
                        "area": round(box[2] * box[3], DIGITS),
                        "iscrowd": 0,
                        "segmentation": [],  # CVAT refuses a file in which a box has none
                    }
                )
                annotation_id += 1
        self._write(content)

    def _declare(self, categories: list[dict[str, Any]]) -> list[int]:
        """Append what is missing to the categories of the file. Returns the id of each class of the model.

        Ids agree in all splits, otherwise the set could not be read: a class that another split has keeps its id.
        """
        own = self._source.classes([training_split(self._source)])
        tables = [own]
        for split in self._source.splits:
            with suppress(DataError):  # another split that cannot be read
                tables.append(self._source.classes([split]))
        ids: dict[str, int] = {}
        for name, number in chain.from_iterable(zip(table.names, table.ids, strict=True) for table in tables):
            if number not in ids.values():
                ids.setdefault(name, number)
        free = max(_after(categories), *(number + 1 for table in tables for number in table.ids))
        for name in (name for name in self._classes.names if name not in own.names):
            if name not in ids:
                ids[name], free = free, free + 1
            categories.append({"id": ids[name], "name": name})
        return [ids[name] for name in self._classes.names]

    def _write(self, content: dict[str, Any]) -> None:
        with atomic_write(self.file) as stream:
            json.dump(content, stream)


def _after(rows: Sequence[dict[str, Any]]) -> int:
    """The first id after the highest, at least 1. Ids that are not numbers do not count."""
    return max((row["id"] for row in rows if type(row.get("id")) is int), default=0) + 1
