"""Pascal VOC: one XML per image; `Annotations`, `JPEGImages` and `ImageSets/Main`, or XML next to the images.

Notable choices:
- The class table is alphabetical over all XML files of the data set, with ids 1…C, because VOC has no class ids.
- Pixels count from 1 and ends are inclusive, so xyxy becomes x1-1, y1-1, x2, y2. For tools that count from 0 this moves
a box at most one pixel to the left or up, and clipping it is not reported.
- `difficult` boxes are ignored: neither trained on nor counted as misses.
- The first LabelMe's XML is read too, as CVAT exports it. Its polygons become the boxes around them, which is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from fcos_cli.data.formats.contents import exists, read_text
from fcos_cli.data.formats.file_index import FileIndex, files_below, is_hidden, plain
from fcos_cli.data.formats.notes import Notes, is_set, note_unlabelled
from fcos_cli.data.formats.records import SPLITS, ImageRecord, Rows, check_sizes, samples, size_of, split_key
from fcos_cli.data.formats.voc_xml import Annotation, begins_as_voc, parse
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable

_CLASS_COLUMN = re.compile(r"\s+-?[01]$")
"""The second column of VOC's lists for one class; names may contain blanks."""

IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "img")
"""Names of the folder of images; the first is the usual one."""


@dataclass(frozen=True)
class VocSource:
    """See `records.Source`. splits: name → a list in ImageSets/Main, or a folder of XML files.

    annotations: the folder of XML files that the lists refer to; None if the splits are folders themselves.
    """

    root: Path
    splits: dict[str, Path]
    annotations: Path | None
    format: Literal["voc"] = "voc"
    _read: dict[Path, Annotation] = field(default_factory=dict, repr=False)

    def classes(self, splits: Sequence[str]) -> ClassTable:  # noqa: ARG002 (part of the Source interface)
        folders = [self.annotations] if self.annotations else list(self.splits.values())
        files = [file for folder in folders for file in sorted(_xml_files(folder))]
        names = sorted({item.name for file in files for item in self._annotation(file).objects if item.name})
        if not names:
            what = "no XML file has an object with a name, so there are no classes"
            raise DataError(what, where=self.root, remedy="label some objects")
        return ClassTable.from_names(names, first_id=1)

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]:
        index = FileIndex()
        files = self._members(split)
        images: list[ImageRecord] = []
        rows: list[tuple[int, Sequence[float], int, bool]] = []
        position: dict[Path, int] = {}
        unlabelled: list[str] = []
        labels = 0
        for number, file in enumerate(files, start=1):
            annotated = exists(file)
            annotation = self._annotation(file) if annotated else Annotation("", 0, 0, [])
            image = self._image(file, annotation, number, index, notes)
            if image is None:
                continue
            labels += annotated
            if not annotated:
                unlabelled.append(image.path.name)
            if image.path in position:
                notes.add("image-listed-twice", f"{image.path.name} ({file.name})")
            else:
                position[image.path] = len(images)
                images.append(image)
            for item in annotation.objects:
                if item.box is None or not item.name:
                    notes.add("malformed-row", f"{file.name} ({item.name or 'no name'})")
                    continue
                if item.around:
                    notes.add("shape-as-box", f"{file.name} ({item.name}) polygon")
                x1, y1, x2, y2 = item.box
                box = (x1 - 1, y1 - 1, x2, y2)
                difficult = is_set(item.difficult, notes, place=f"{file.name} difficult")
                rows.append((position[image.path], box, classes.index_of_name[item.name], difficult))
        if not any(finding.id == "unreadable-image" for finding in notes.findings()):
            self._check(split, files, images, labels)
        note_unlabelled(unlabelled, notes, images=len(images))
        check_sizes(images, notes)
        return samples(images, Rows.of(rows), notes)

    def _check(self, split: str, files: list[Path], images: list[ImageRecord], labels: int) -> None:
        if files and not labels:
            missing = "an annotation file" if images else "its image on disk"
            raise DataError(
                f"none of the {len(files)} entries of the {split} split has {missing}",
                where=f"{self.splits[split]}, for example {files[0].stem}",
                remedy="put images into JPEGImages, images or next to the XML, and annotations into Annotations",
            )

    def _members(self, split: str) -> list[Path]:
        """Return the XML files of a split, sorted; a list may name some that do not exist."""
        place = self.splits[split]
        if place.is_dir():
            return sorted(_xml_files(place))
        folder = self.annotations or place.parent
        files, known = list(_xml_files(folder)), dict[str, list[Path]]()
        for file in files:
            known.setdefault(plain(file.stem), []).append(file)
        known |= {plain(file.relative_to(folder).with_suffix("").as_posix()): [file] for file in files}
        members = set[Path]()
        for line in filter(None, map(str.strip, read_text(place).splitlines())):
            whole, stem = _stem(line), _stem(_CLASS_COLUMN.sub("", line))  # a name may end like the column
            members.add(_file_of(whole, known, place) or _file_of(stem, known, place) or folder / f"{stem}.xml")
        return sorted(members)

    def _annotation(self, file: Path) -> Annotation:
        if file not in self._read:
            self._read[file] = parse(file)
        return self._read[file]

    def _image(
        self, file: Path, annotation: Annotation, number: int, index: FileIndex, notes: Notes
    ) -> ImageRecord | None:
        # `filename` is often outdated after files were renamed, so it only decides between suffixes at first
        above = file.parent.parent if file.parent.name else file.absolute().parent.parent
        bases = dict.fromkeys((self.root, above))
        inside = self.annotations is not None and file.is_relative_to(self.annotations)
        inner = file.parent.relative_to(self.annotations or "") if inside else Path()
        usual = [base / name for base in bases for name in IMAGE_FOLDERS]
        folders = [*(folder / inner for folder in usual), *usual]
        folders += [file.parent, self.root]
        declared = PurePosixPath(annotation.filename.replace("\\", "/")).name
        by_name = [folder / declared for folder in folders] if declared else []
        named = [path for path in by_name if path in index]
        same_stem = [folder / name for folder in folders if (name := index.images(folder).get(file.stem))]
        same_stem += [found for path in by_name if (found := index.find(path))]
        candidates = [*(path for path in named if path.stem == file.stem), *same_stem, *named]
        if not candidates:
            index.check_missing()
            notes.add("missing-image", declared or file.stem)
            return None
        path = candidates[0]
        size = (annotation.width, annotation.height) if annotation.width > 0 else size_of(path, notes)
        return None if size is None else ImageRecord(path, number, *size)


def _stem(entry: str) -> str:
    """An entry of a list without the suffix of an image."""
    suffix = Path(entry).suffix
    return entry[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else entry


def _file_of(entry: str, known: dict[str, list[Path]], place: Path) -> Path | None:
    """The XML file that an entry of a list names, with or without the folders above it; None if there is none.

    known: the files by their stem and by their path from the folder of annotations. Raises DataError if several fit.
    """
    parts = PurePosixPath(entry).parts
    for start in range(len(parts)):
        files = known.get(plain("/".join(parts[start:])), [])
        if len(files) > 1:
            folders = ", ".join(sorted(file.parent.name for file in files))
            raise DataError(
                f"the entry {entry} matches {len(files)} annotation files, in {folders}",
                where=place,
                remedy=f"write the folder too, such as {files[0].parent.name}/{files[0].stem}",
            )
        if files:
            return files[0]
    return None


def find(path: Path, *, below: bool = False) -> VocSource | None:
    """Return the VOC data set that lies in a folder itself, or with XML files next to images in folders of its splits;
    None if there is none.

    below: in other subfolders: one or two levels down, as in VOCdevkit/VOC2012, once or for each split.
    """
    if not path.is_dir():
        return None
    if not below and _annotations_of(path):
        return _with_lists(path)
    subfolders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    if not below:
        inside = _with_xml(subfolders)
        return _from_folders(path, _with_xml([path]) or (inside if inside.keys() & set(SPLITS) else {}))
    for pattern in ("*", "*/*"):
        bases = [base for base in sorted(path.glob(pattern)) if _annotations_of(base)]
        if len(bases) > 1:
            return _one_per_split(path, bases)
        if bases:
            return _with_lists(bases[0])
    return _from_folders(path, _with_xml(subfolders))


def _xml_files(folder: Path) -> Iterator[Path]:
    """The annotation files in a folder and its subfolders."""
    return (file for file in files_below(folder) if file.suffix.lower() == ".xml" and file.is_file())


def _annotations_of(base: Path) -> Path | None:
    if not base.is_dir():
        return None
    folders = [base / name for name in ("Annotations", "annotations", "xmls", "xml")]
    return next((folder for folder in folders if folder.is_dir() and next(_xml_files(folder), None)), None)


def _lists_of(base: Path) -> dict[str, Path]:
    """The lists of the splits that a data set has, by the names of the splits."""
    lists = {file.stem.lower(): file for file in sorted((base / "ImageSets" / "Main").glob("*.txt")) if file.is_file()}
    return {name: lists[name] for name in SPLITS if name in lists}


def _with_lists(base: Path) -> VocSource:
    annotations = _annotations_of(base)
    return VocSource(base, _lists_of(base) or {"annotations": annotations or base}, annotations)


def _one_per_split(path: Path, bases: Sequence[Path]) -> VocSource:
    """Read `train/Annotations` and `val/Annotations` as one data set. Raises DataError if they are separate sets."""
    splits = {base.name.lower(): folder for base in bases if (folder := _annotations_of(base))}
    alike = len({base.parent for base in bases}) == 1 and len(splits) == len(bases)
    if alike and splits.keys() <= set(SPLITS) and not any(map(_lists_of, bases)):
        return VocSource(path, splits, None)
    raise DataError(
        f"there are {len(bases)} VOC data sets here, {', '.join(base.name for base in bases)}",
        where=path,
        remedy="give the folder of one of them",
    )


def _with_xml(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders with annotation files next to the images, by their names, which are the splits."""
    return {split_key(folder.name): folder for folder in folders if _has_annotation(folder)}


def _from_folders(path: Path, splits: dict[str, Path]) -> VocSource | None:
    for folder in splits.values():
        _refuse_yolo_labels(folder)
    return VocSource(path, splits, None) if splits else None


def _has_annotation(folder: Path) -> bool:
    first = min(_xml_in(folder), default=None)
    return first is not None and begins_as_voc(first)


def _xml_in(folder: Path) -> Iterator[Path]:
    files = folder.glob("*.[xX][mM][lL]")
    return (file for file in files if file.is_file() and not is_hidden(file.name))


def _refuse_yolo_labels(folder: Path) -> None:
    """Raise DataError if there are images with YOLO labels and no XML, as labelImg leaves them after its format was
    changed: they would be left out."""
    if not (folder / "classes.txt").is_file():
        return
    images = {plain(stem) for stem in FileIndex().images(folder)}
    yolo = {plain(file.stem) for file in folder.glob("*.[tT][xX][tT]")} & images
    if only := sorted(yolo - {plain(file.stem) for file in _xml_in(folder)}):
        raise DataError(
            f"some images here have XML files, and others only YOLO labels, such as {only[0]}.txt ({len(only)} in all)",
            where=folder,
            remedy="label all images in one format, and move the files of the other one elsewhere",
        )
