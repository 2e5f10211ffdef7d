"""YOLO data sets: data.yaml and one .txt per image with relative `class cx cy w h`, or a polygon.

Class ids are the indices of data.yaml's `names`. Paths are tried as written, then relative to the file: exports that
say `../train/images` (one level off) or contain the path of another machine are found anyway. Folders without a
data.yaml are those of `yolo_folders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

from fcos_cli.data.decode.signatures import UNREAD_SUFFIXES
from fcos_cli.data.formats.contents import exists, read_text
from fcos_cli.data.formats.data_yaml import UNSET, class_names, read_yaml
from fcos_cli.data.formats.file_index import FileIndex, files_below
from fcos_cli.data.formats.notes import Notes, note_unlabelled
from fcos_cli.data.formats.records import ImageRecord, Rows, samples, size_of
from fcos_cli.data.formats.yolo_folders import SPLITS, Layout, layout_of, other_layout_of, read_names
from fcos_cli.data.formats.yolo_labels import label_of, label_places, note_lonely_labels, read_boxes
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable


@dataclass(frozen=True)
class YoloSource:
    """The contents of a data.yaml; see `records.Source`. entries: the folders or lists of each split.

    keypoints: rows have keypoints after the box, which are ignored.
    """

    root: Path
    splits: dict[str, Path]
    entries: dict[str, list[str]]
    base: Path
    names: dict[int, str]
    keypoints: bool = False
    format: Literal["yolo"] = "yolo"

    def classes(self, splits: Sequence[str]) -> ClassTable:  # noqa: ARG002 (part of the Source interface)
        return ClassTable(tuple(self.names.values()), tuple(self.names))

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]:
        index = FileIndex()
        named = (file for entry in self.entries[split] for file in self._files(entry, split, notes))
        files = sorted({index.find(file) or file for file in named})
        images: list[ImageRecord] = []
        rows: list[tuple[int, Sequence[float], int, bool]] = []
        unlabelled: list[str] = []
        owners: dict[Path, Path] = {}
        for number, file in enumerate(files, start=1):
            if file not in index:
                index.check_missing()
                notes.add("missing-image", str(file))
                continue
            size = size_of(file, notes)
            if size is None:
                continue
            label = label_of(file, index)
            if label is None:
                index.check_missing()
                unlabelled.append(file.name)
            else:
                if (other := owners.setdefault(label, file)) != file:
                    notes.add("shared-label", f"{other.name} and {file.name} ({label.name})")
                boxes = read_boxes(label, classes, notes, keypoints=self.keypoints)
                rows += [
                    (len(images), [v * s for v, s in zip(box, size * 2, strict=True)], c, False) for c, box in boxes
                ]
            images.append(ImageRecord(file, number, *size))
        note_lonely_labels(files, index, notes, inside=(self.root, self.base))
        note_unlabelled(unlabelled, notes, images=len(images))
        if images and len(unlabelled) == len(images):
            raise DataError(
                f"none of the {len(images)} images of the {split} split has a label file",
                where=f"{images[0].path}: looked for {label_places(images[0].path)[0]}",
                remedy="put the labels into a folder `labels` that mirrors `images`, or next to the images",
            )
        return samples(images, Rows.of(rows), notes)

    def folders(self, split: str) -> list[Path]:
        """The folders of images of a split; lists of images are left out."""
        places = [self._place(entry, Notes()) for entry in self.entries[split]]
        return [place for place in places if place is not None and place.is_dir()]

    def _place(self, entry: str, notes: Notes) -> Path | None:
        """Return the folder or list that an entry names; None if there is none.

        Exporters write `../train/images` one level off: the folder beside the data.yaml is taken if there is one. The
        path as written may lead to another data set, so this is noted.
        """
        place = _resolve(entry, self.base, self.root)
        written = Path(entry.replace("\\", "/")).parts
        inner = self.root.joinpath(*(part for part in written if part != ".."))
        if written[:1] != ("..",) or inner in (self.root, place) or self.base != self.root or not exists(inner):
            return place
        if place is not None and place.resolve() != inner.resolve():
            notes.add("ambiguous-path", f"{entry} is {inner}, not {place.resolve()}")
        return inner

    def _instead(self, split: str) -> str:
        """What else the remedy for a missing split can propose."""
        others = [name for name in self.entries if name != split]
        more = ": 10 % of the train images are then held out" if others == ["train"] else ""
        return f", or remove its line{more}" if "train" in others else ""

    def _files(self, entry: str, split: str, notes: Notes) -> Iterator[Path]:
        """Yield the images of a folder and its subfolders, or those listed in a .txt file."""
        place = self._place(entry, notes)
        if place is None:
            raise DataError(
                f"the {split} images are not at the path given by the data set, {entry[:200]}",
                where=f"{self.splits[split]}; looked in {self.base} and {self.root}",
                remedy=f"correct the path of `{split}`{self._instead(split)}",
            )
        if place.resolve() == Path(place.resolve().anchor):
            raise DataError(
                f"the {split} images would be those of the whole file system",
                where=f"{self.splits[split]}: {entry[:200]}",
                remedy=f"correct the path of `{split}`",
            )
        if place.is_dir():
            for file in files_below(place):
                suffix = file.suffix.lower()
                if suffix in IMAGE_SUFFIXES:
                    yield file
                elif suffix in UNREAD_SUFFIXES:
                    notes.add("unread-format", file.name)
        else:
            own, listed = self.root.resolve().name, FileIndex()
            for line in filter(None, map(str.strip, read_text(place).splitlines())):
                places = [*_candidates(line, place.parent, self.root, own), place.parent / line]
                found = next(filter(exists, places), None) or next(filter(None, map(listed.find, places)), None)
                yield found or places[0]


def find(path: Path) -> YoloSource | None:
    """Return the YOLO data set of a folder or of a data.yaml; None if there is none."""
    if path.is_file():
        return _from_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else None
    files = sorted({*path.glob("*.yaml"), *path.glob("*.yml")}, key=lambda file: (file.stem != "data", file.name))
    for file in filter(Path.is_file, files):
        text = read_text(file)
        if "names:" in text and any(f"{split}:" in text.lower() for split in SPLITS):
            return _from_yaml(file)
    if (path / "obj.data").is_file():
        return _from_obj_data(path / "obj.data")
    return _from_layout(path, layout_of(path))


def find_other(path: Path) -> YoloSource | None:
    """Return the YOLO data set of a folder in which no format has been found, also in a less usual layout.

    None if it has no YOLO labels. Raises DataError if class names or images are missing.
    """
    return _from_layout(path, other_layout_of(path)) if path.is_dir() else None


def _from_layout(path: Path, layout: Layout | None) -> YoloSource | None:
    if layout is None:
        return None
    splits = {split: folders[0] for split, folders in layout.splits.items()}
    entries = {
        split: [folder.relative_to(path).as_posix() for folder in folders] for split, folders in layout.splits.items()
    }
    return YoloSource(path, splits, entries, path, layout.names)


def _from_yaml(file: Path) -> YoloSource:
    content = read_yaml(file, paths=SPLITS)
    entries = {}
    for split in SPLITS:
        value: Any = content.get(split)
        if value not in UNSET:
            entries[split] = value if isinstance(value, list) else [value]
    if not entries:
        raise DataError("the file lists no images", where=file, remedy="add `train:` and `val:` with their folders")
    declared: Any = content.get("path")
    base = file.parent if declared in UNSET else (_resolve(declared, file.parent, file.parent) or file.parent)
    splits = dict.fromkeys(entries, file)
    return YoloSource(file.parent, splits, entries, base, class_names(content, file), keypoints="kpt_shape" in content)


def _from_obj_data(file: Path) -> YoloSource:
    """Read Darknet's obj.data, as CVAT and Datumaro write it: `names = …`, and a list of images per split."""
    lines = read_text(file).splitlines()
    pairs = (line.partition("=") for line in lines)
    values = {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}
    names = _resolve(values.get("names", "obj.names"), file.parent, file.parent)
    if names is None:
        what = "the file with the class names does not exist"
        raise DataError(what, where=file, remedy="add that file, or correct `names`")
    entries = {split: [values[split]] for split in SPLITS if split in values}
    if not entries:
        raise DataError("the file lists no images", where=file, remedy="add `train = train.txt`")
    return YoloSource(file.parent, dict.fromkeys(entries, file), entries, file.parent, read_names(names))


def _resolve(entry: str, base: Path, root: Path) -> Path | None:
    """Find the existing file or folder for `entry`."""
    return next(filter(exists, _candidates(entry, base, root, root.resolve().name)), None)


def _candidates(entry: str, base: Path, root: Path, own: str) -> Iterator[Path]:
    """Where `entry` may be: as written, then with leading parts dropped, below `root`, whose own name is `own`."""
    written = Path(entry.replace("\\", "/"))
    parts = [part for part in written.parts if part not in ("..", written.anchor)]
    yield base / written
    yield root / written
    # a folder that CVAT and Datumaro name, but do not create; or the data set's own, as in lists of Darknet
    if parts[:1] in (["data"], [own]):
        yield root.joinpath(*parts[1:])
    if written.is_absolute() or ".." in written.parts or PureWindowsPath(entry).drive:
        yield from (root.joinpath(*parts[start:]) for start in range(len(parts)))
