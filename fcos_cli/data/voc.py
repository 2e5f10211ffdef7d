"""Pascal VOC: one XML per picture; `Annotations`, `JPEGImages` and `ImageSets/Main`, or XML beside the pictures.

Notable choices:
- The class table is alphabetical over every XML of the data set, ids 1…C: VOC itself has no numbers.
- Pixels count from 1 and ends are inclusive, so xyxy becomes x1-1, y1-1, x2, y2. Tools that count from 0 write a
  box at most one pixel too far left or up by this, which is clipped without a word.
- `difficult` boxes are ignored: neither learned nor counted as misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from fcos_cli.data.images import IMAGE_SUFFIXES, image_size
from fcos_cli.data.records import FileIndex, Notes, Picture, Rows, check_sizes, samples
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable

_XML = "[!.]*.xml"  # not the `._` twins that archives made on a Mac carry
_LISTS = ("train", "val", "trainval", "test")


class Thing(NamedTuple):
    """One `<object>`: box xyxy as written, None where it cannot be read."""

    name: str
    box: tuple[float, float, float, float] | None
    difficult: bool


class Annotation(NamedTuple):
    """One XML file; width and height are 0 where it does not say."""

    filename: str
    width: int
    height: int
    things: list[Thing]


@dataclass(frozen=True)
class VocSource:
    """See `records.Source`. splits: name → a list in ImageSets/Main, or a folder of XML files.

    annotations: the folder of XML files that the lists mean; None where splits are folders themselves.
    """

    root: Path
    splits: dict[str, Path]
    annotations: Path | None
    format: Literal["voc"] = "voc"
    _read: dict[Path, Annotation] = field(default_factory=dict, repr=False)

    def classes(self, splits: Sequence[str]) -> ClassTable:  # noqa: ARG002 (every reader takes it)
        folders = [self.annotations] if self.annotations else list(self.splits.values())
        files = [file for folder in folders for file in sorted(folder.glob(_XML))]
        names = sorted({thing.name for file in files for thing in self._annotation(file).things})
        if not names:
            raise DataError("no XML file has an object, so there are no classes", where=self.root, remedy="label some")
        return ClassTable.from_names(names, first_id=1)

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]:
        index = FileIndex()
        files = self._members(split)
        pictures: list[Picture] = []
        rows: list[tuple[int, Sequence[float], int, bool]] = []
        labels = 0
        for number, file in enumerate(files, start=1):
            there = file in index
            annotation = self._annotation(file) if there else Annotation("", 0, 0, [])
            picture = self._picture(file, annotation, number, index, notes)
            if picture is None:
                continue
            labels += there
            if not there:
                notes.add("no-label-file", picture.path.name)
            for thing in annotation.things:
                if thing.box is None:
                    notes.add("malformed-row", f"{file.name} ({thing.name})")
                    continue
                x1, y1, x2, y2 = thing.box
                place = (x1 - 1, y1 - 1, x2, y2)
                rows.append((len(pictures), place, classes.index_of_name[thing.name], thing.difficult))
            pictures.append(picture)
        self._check(split, files, pictures, labels)
        check_sizes(pictures, notes)
        return samples(pictures, Rows.of(rows), notes)

    def _check(self, split: str, files: list[Path], pictures: list[Picture], labels: int) -> None:
        if files and not labels:
            lacking = "an annotation file" if pictures else "its picture on disk"
            raise DataError(
                f"none of the {len(files)} entries of the {split} split has {lacking}",
                where=f"{self.splits[split]}, for example {files[0].stem}",
                remedy="pictures lie in JPEGImages, images or beside the XML; annotations in Annotations",
            )

    def _members(self, split: str) -> list[Path]:
        """The XML files of a split, sorted; a list may name some that do not exist."""
        place = self.splits[split]
        if place.is_dir():
            return sorted(place.glob(_XML))
        folder = self.annotations or place.parent
        entries = [
            line.split()[0]
            for line in place.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            if line.strip()
        ]
        stems = (
            entry[: -len(s)] if (s := Path(entry).suffix).lower() in IMAGE_SUFFIXES else entry for entry in entries
        )
        return sorted({folder / f"{stem}.xml" for stem in stems})

    def _annotation(self, file: Path) -> Annotation:
        if file not in self._read:
            self._read[file] = _parse(file)
        return self._read[file]

    def _picture(
        self, file: Path, annotation: Annotation, number: int, index: FileIndex, notes: Notes
    ) -> Picture | None:
        # The XML's own name comes first: `filename` is often left over from before the files were renamed.
        bases = dict.fromkeys((self.root, file.parent.parent))
        folders = [base / name for base in bases for name in ("JPEGImages", "images", "Images", "img")]
        folders += [file.parent, self.root]
        found = [folder / name for folder in folders if (name := index.pictures(folder).get(file.stem))]
        said = PurePosixPath(annotation.filename.replace("\\", "/")).name
        found += [folder / said for folder in folders if said and folder / said in index]
        if not found:
            notes.add("missing-image", said or file.stem)
            return None
        try:
            size = (annotation.width, annotation.height) if annotation.width > 0 else image_size(found[0])
        except DataError:
            notes.add("unreadable-image", found[0].name)
            return None
        return Picture(found[0], number, *size)


def find(path: Path) -> VocSource | None:
    """The VOC data set of a folder (also one or two levels down, as in VOCdevkit/VOC2012); None where there is none."""
    if not path.is_dir():
        return None
    for pattern in (".", "*", "*/*"):
        candidates = [path] if pattern == "." else sorted(path.glob(pattern))
        bases = [base for base in candidates if _annotations_of(base)]
        if len(bases) > 1:
            raise DataError(
                f"there are {len(bases)} VOC data sets here, {', '.join(base.name for base in bases)}",
                where=path,
                remedy="name the folder of one of them",
            )
        if bases:
            return _with_lists(bases[0])
    return _beside_pictures(path)


def _annotations_of(base: Path) -> Path | None:
    if not base.is_dir():
        return None
    folders = [base / name for name in ("Annotations", "annotations", "xmls", "xml")]
    return next((folder for folder in folders if folder.is_dir() and next(folder.glob(_XML), None)), None)


def _with_lists(base: Path) -> VocSource:
    annotations = _annotations_of(base)
    lists = {name: base / "ImageSets" / "Main" / f"{name}.txt" for name in _LISTS}
    found = {name: file for name, file in lists.items() if file.is_file()}
    return VocSource(base, found or {"annotations": annotations or base}, annotations)


def _beside_pictures(path: Path) -> VocSource | None:
    """XML in the folder itself, or in its sub-folders, whose names are then the splits."""
    for folders in ([path], sorted(folder for folder in path.iterdir() if folder.is_dir())):
        found = {folder.name: folder for folder in folders if _has_annotation(folder)}
        if found:
            return VocSource(path, found, None)
    return None


def _has_annotation(folder: Path) -> bool:
    first = next(iter(sorted(folder.glob(_XML))), None)
    return first is not None and b"<annotation" in first.read_bytes()[:4096]


def _parse(file: Path) -> Annotation:
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        line = error.position[0] if isinstance(error, ElementTree.ParseError) else 1
        raise DataError(
            f"the annotation file is not valid XML ({error})", where=f"{file}:{line}", remedy="correct or remove it"
        ) from error
    things = [
        Thing(_text(node, "name"), _box(node.find("bndbox")), _text(node, "difficult") not in ("", "0", "false"))
        for node in root.iter("object")
        if _text(node, "name")
    ]
    width, height = _whole(_text(root, "size/width")), _whole(_text(root, "size/height"))
    return Annotation(_text(root, "filename"), width if height else 0, height if width else 0, things)


def _text(node: ElementTree.Element, path: str) -> str:
    return (node.findtext(path) or "").strip()


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _box(node: ElementTree.Element | None) -> tuple[float, float, float, float] | None:
    if node is None:
        return None
    try:
        x1, y1, x2, y2 = (float(_text(node, key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return None
    return x1, y1, x2, y2
