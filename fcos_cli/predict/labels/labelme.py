"""LabelMe labels: pictures, and a JSON beside each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fcos_cli.atomic import atomic_write
from fcos_cli.data.formats.labelme import LabelmeSource
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.target import pictures_of, stems, training_split
from fcos_cli.runtime.results import Detections

DIGITS = 4  # of a coordinate in pixels
VERSION = "5.4.1"  # of the format; LabelMe wants one


class LabelmeSet:
    """See `LabelSet`."""

    def __init__(self, folder: Path, source: LabelmeSource | None) -> None:
        self.images = folder if source is None else source.splits[training_split(source)]
        self._source = source
        self._names: tuple[str, ...] = ()

    def taken(self) -> Iterable[str]:
        return stems(self.images)

    def listed(self) -> Iterable[Path]:
        return pictures_of(self._source)

    def takes(self, picture: Path) -> bool:
        return not picture.with_suffix(".json").exists()

    def begin(self, classes: ClassTable) -> None:
        if "" in classes.names:
            raise UsageError("LabelMe has no class without a name", where="--label labelme", remedy="use --label coco")
        self._names = classes.names

    def add(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        document: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": [
                {
                    "label": self._names[index],
                    "points": [[round(x1, DIGITS), round(y1, DIGITS)], [round(x2, DIGITS), round(y2, DIGITS)]],
                    "group_id": None,
                    "shape_type": "rectangle",
                    "flags": {},
                }
                for (x1, y1, x2, y2), index in zip(labels.boxes.tolist(), labels.classes.tolist(), strict=True)
            ],
            "imagePath": picture.name,
            "imageData": None,
            "imageHeight": size[1],
            "imageWidth": size[0],
        }
        with atomic_write(picture.with_suffix(".json")) as stream:
            json.dump(document, stream, indent=2)

    def end(self) -> None: ...
