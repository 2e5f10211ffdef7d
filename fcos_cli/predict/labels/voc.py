"""Pascal VOC labels: `JPEGImages/` and an XML per picture in `Annotations/`, with pixels that count from 1."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

from fcos_cli.atomic import atomic_write
from fcos_cli.data.formats.contents import read_bytes
from fcos_cli.data.formats.voc import IMAGE_FOLDERS, VocSource
from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.labels.target import pictures_of, refusal, stems, training_split
from fcos_cli.runtime.results import Detections

DIGITS = 4  # of a coordinate in pixels
_NOT_IN_XML = re.compile("[\x00-\x1f\ufffe\uffff]")


class VocSet:
    """See `LabelSet`. If the set has lists of its splits, new pictures are appended to that of train.

    A picture that is in no list may already have an XML file, from a killed run or made by hand. It is kept.
    """

    def __init__(self, folder: Path, source: VocSource | None) -> None:
        self.images, self.annotations = folder / IMAGE_FOLDERS[0], folder / "Annotations"
        self._source = source
        self._list: Path | None = None
        self._names: tuple[str, ...] = ()
        self._added: list[str] = []
        if source is not None:
            if source.annotations is None:
                raise refusal(source.root, "its XML files are not in a folder Annotations")
            self.annotations = source.annotations
            bases = (source.root, source.annotations.parent)
            folders = [base / name for base in bases for name in IMAGE_FOLDERS if (base / name).is_dir()]
            self.images = folders[0] if folders else source.root / IMAGE_FOLDERS[0]
            place = source.splits[training_split(source)]
            self._list = None if place.is_dir() else place

    def taken(self) -> Iterable[str]:
        return chain(stems(self.images), stems(self.annotations))

    def listed(self) -> Iterable[Path]:
        return pictures_of(self._source)

    def takes(self, picture: Path) -> bool:
        return self._list is not None or not self._xml(picture).exists()

    def begin(self, classes: ClassTable) -> None:
        for name in classes.names:
            if not name or name != name.strip() or _NOT_IN_XML.search(name):
                what = f"the class name {name!r} cannot be written in the VOC format"
                raise UsageError(what, where="--label voc", remedy="use --label coco, yolo or labelme")
        self._names = classes.names

    def add(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        if not self._xml(picture).exists():
            self._write_xml(picture, size, labels)
        self._added.append(picture.name)

    def _write_xml(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        root = ElementTree.Element("annotation")
        _texts(root, folder=picture.parent.name, filename=picture.name)
        _texts(ElementTree.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
        _texts(root, segmented=0)
        for (x1, y1, x2, y2), index in zip(labels.boxes.tolist(), labels.classes.tolist(), strict=True):
            row = ElementTree.SubElement(root, "object")
            _texts(row, name=self._names[index], pose="Unspecified", truncated=0, difficult=0)
            corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
            _texts(ElementTree.SubElement(row, "bndbox"), **{key: _decimal(value) for key, value in corners.items()})
        ElementTree.indent(root)
        with atomic_write(self._xml(picture)) as stream:
            stream.write(ElementTree.tostring(root, encoding="unicode") + "\n")

    def end(self) -> None:
        added = [name for name in self._added if (self.images / name).exists()]  # the last may have been interrupted
        if self._list is not None and added:
            before = read_bytes(self._list)  # in whatever encoding
            lines = "".join(f"{_entry(name)}\n" for name in added)
            with atomic_write(self._list, binary=True) as stream:
                stream.write(before if before.endswith(b"\n") or not before else before + b"\n")
                stream.write(os.fsencode(lines))

    def _xml(self, picture: Path) -> Path:
        return self.annotations / f"{picture.stem}.xml"


def _texts(parent: ElementTree.Element, **values: object) -> None:
    for key, value in values.items():
        ElementTree.SubElement(parent, key).text = str(value)


def _decimal(value: float) -> str:
    return f"{value:.{DIGITS}f}".rstrip("0").rstrip(".")


def _entry(name: str) -> str:
    """The line of a list: the stem, or the whole name where readers would take a part of it for something else."""
    stem = Path(name).stem
    return stem if re.fullmatch(r"[^\s.]+", stem) else name
