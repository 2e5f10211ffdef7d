"""YOLO data sets: data.yaml, one .txt per picture with `class cx cy w h` as shares of the picture, or a polygon.

Class ids are the indices of data.yaml's `names`. Paths are looked for where the file says, then beside the file:
exports that say `../train/images` (off by one level) or carry the path of another machine are found all the same.
A folder with a `classes.txt` instead of a data.yaml is read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from fcos_cli.data.images import IMAGE_SUFFIXES, image_size
from fcos_cli.data.records import FileIndex, Notes, Picture, Rows, samples
from fcos_cli.data.samples import Sample
from fcos_cli.errors import DataError
from fcos_cli.model.classes import ClassTable

_SPLITS = ("train", "val", "valid", "validation", "test")
_NOTHING = (None, "", "~", "null")


@dataclass(frozen=True)
class YoloSource:
    """What a data.yaml declares; see `records.Source`. entries: per split, the folders or lists it names.

    keypoints: rows carry key points behind the box, which are not read.
    """

    root: Path
    splits: dict[str, Path]
    entries: dict[str, list[str]]
    base: Path
    names: dict[int, str]
    keypoints: bool = False
    format: Literal["yolo"] = "yolo"

    def classes(self, splits: Sequence[str]) -> ClassTable:  # noqa: ARG002 (every reader takes it)
        return ClassTable(tuple(self.names.values()), tuple(self.names))

    def read(self, split: str, classes: ClassTable, notes: Notes) -> list[Sample]:
        index = FileIndex()
        files = sorted(dict.fromkeys(file for entry in self.entries[split] for file in self._files(entry, split)))
        pictures: list[Picture] = []
        rows: list[tuple[int, Sequence[float], int, bool]] = []
        labels = 0
        for number, file in enumerate(files, start=1):
            if file not in index:
                notes.add("missing-image", str(file))
                continue
            try:
                width, height = image_size(file)
            except DataError:
                notes.add("unreadable-image", file.name)
                continue
            label = _label_of(file, index)
            if label is None:
                notes.add("no-label-file", file.name)
            else:
                labels += 1
                found = _boxes(label, classes, notes, keypoints=self.keypoints)
                scale = (width, height, width, height)
                rows += [
                    (len(pictures), [v * s for v, s in zip(box, scale, strict=True)], c, False) for c, box in found
                ]
            pictures.append(Picture(file, number, width, height))
        if pictures and not labels:
            raise DataError(
                f"none of the {len(pictures)} pictures of the {split} split has a label file",
                where=f"{pictures[0].path}: looked for {_label_places(pictures[0].path)[0]}",
                remedy="labels lie in a folder `labels` that mirrors `images`, or beside the pictures",
            )
        return samples(pictures, Rows.of(rows), notes)

    def _files(self, entry: str, split: str) -> Iterator[Path]:
        """The pictures of a folder, with its sub-folders, or those that a .txt list names."""
        place = _resolve(entry, self.base, self.root)
        if place is None:
            raise DataError(
                f"the {split} pictures are not where the data set says, {entry}",
                where=f"{self.splits[split]}; looked below {self.base} and {self.root}",
                remedy=f"correct the path of `{split}` in the data.yaml",
            )
        if place.is_dir():
            yield from (file for file in place.rglob("[!.]*") if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            for line in place.read_text(encoding="utf-8-sig", errors="replace").splitlines():
                if line.strip():
                    yield _resolve(line.strip(), place.parent, self.root) or place.parent / line.strip()


def find(path: Path) -> YoloSource | None:
    """The YOLO data set of a folder, or the one of a data.yaml; None where there is none."""
    if path.is_file():
        return _from_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else None
    files = sorted({*path.glob("*.yaml"), *path.glob("*.yml")}, key=lambda file: (file.stem != "data", file.name))
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        if "names:" in text and any(f"{split}:" in text for split in _SPLITS):
            return _from_yaml(file)
    return _from_folders(path)


def _from_yaml(file: Path) -> YoloSource:
    try:
        # BaseLoader keeps every scalar a text: a class called `no` or `1e3` stays what was written.
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(
            f"the file is not valid YAML ({' '.join(str(error).split())[:160]})",
            where=f"{file}:{mark.line + 1}" if mark else file,
            remedy="correct this line",
        ) from error
    if not isinstance(content, dict):
        raise DataError("the file is not a YOLO data set", where=file, remedy="it needs `names`, `train` and `val`")
    entries = {}
    for split in _SPLITS:
        listed = content.get(split)
        if listed not in _NOTHING:
            entries[split] = [str(entry) for entry in (listed if isinstance(listed, list) else [listed])]
    if not entries:
        raise DataError("the file names no pictures", where=file, remedy="add `train:` and `val:` with their folders")
    said = content.get("path")
    base = file.parent if said in _NOTHING else (_resolve(str(said), file.parent, file.parent) or file.parent)
    splits = dict.fromkeys(entries, file)
    return YoloSource(file.parent, splits, entries, base, _names(content, file), keypoints="kpt_shape" in content)


def _names(content: dict[str, Any], file: Path) -> dict[int, str]:
    """Index → name, from a list or from a mapping."""
    listed = content.get("names")
    pairs = enumerate(listed) if isinstance(listed, list) else listed.items() if isinstance(listed, dict) else ()
    try:
        names = {int(index): str(name) for index, name in pairs}
    except ValueError as error:
        raise DataError("`names` has a key that is no number", where=file, remedy="write `0: name`") from error
    count = content.get("nc")
    problem = (
        "the file declares no classes"
        if not names
        else f"`nc` says {count} classes, but `names` lists {len(names)}"
        if count not in _NOTHING and str(count) != str(len(names))
        else "`names` has one name twice"
        if len(set(names.values())) < len(names)
        else None
    )
    if problem:
        raise DataError(problem, where=f"{file}: names", remedy="list every class once under `names`")
    return dict(sorted(names.items()))


def _from_folders(path: Path) -> YoloSource | None:
    """`images/` and `labels/` (or both per split) with the class names in a classes.txt."""
    if not any(folder.is_dir() for pattern in ("labels", "*/labels") for folder in path.glob(pattern)):
        return None
    files = [path / "classes.txt", path / "labels" / "classes.txt", path / "obj.names"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise DataError(
            "there are YOLO labels, but nothing says what the classes are called",
            where=path,
            remedy="write a data.yaml with `names`, `train` and `val`, or a classes.txt with one name per line",
        )
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    names = _names({"names": [line for line in lines if line]}, file)
    layouts = ("images/{}", "{}/images")
    places = {split: path / layout.format(split) for layout in layouts for split in _SPLITS}
    places = {split: place for split, place in places.items() if place.is_dir()} or {"images": path / "images"}
    return YoloSource(path, places, {split: [str(place)] for split, place in places.items()}, path, names)


def _resolve(entry: str, base: Path, root: Path) -> Path | None:
    """The existing file or folder that `entry` means: as it stands, then ever shorter ends of it below `root`."""
    said = Path(entry.replace("\\", "/"))
    ends = [part for part in said.parts if part not in ("..", said.anchor)]
    candidates = [base / said, root / said]
    if said.is_absolute() or ".." in said.parts or ends[:1] == [said.drive or None]:
        candidates += [root.joinpath(*ends[start:]) for start in range(len(ends))]
    return next((Path(place) for place in candidates if place.exists()), None)


def _label_places(picture: Path) -> list[Path]:
    """Where the label file of a picture may be: the last folder `images` read as `labels`, or beside the picture."""
    parts = list(picture.with_suffix(".txt").parts)
    places = [Path(*parts)]
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
        places.insert(0, Path(*parts))
    return places


def _label_of(picture: Path, index: FileIndex) -> Path | None:
    return next((place for place in _label_places(picture) if place in index), None)


def _boxes(
    label: Path, classes: ClassTable, notes: Notes, *, keypoints: bool
) -> list[tuple[int, tuple[float, float, float, float]]]:
    """(class index, xyxy as shares of the picture) per usable row."""
    found = []
    for number, line in enumerate(label.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            category_id, *values = (float(value) for value in line.split())
            box = _box(values, keypoints=keypoints)
        except ValueError:
            notes.add("malformed-row", f"{label.name}:{number} {line.strip()[:40]!r}")
            continue
        index = classes.index_of_id.get(category_id)  # type: ignore[call-overload]
        if index is None:
            notes.add("unknown-category", f"{label.name}:{number} class {category_id:g}")
            continue
        found.append((index, box))
    return found


def _box(values: list[float], *, keypoints: bool) -> tuple[float, float, float, float]:
    """`cx cy w h`, or a polygon `x y x y x y …` → xyxy. Raises ValueError for any other number of columns."""
    if len(values) == 4 or (keypoints and len(values) > 4):
        x, y, w, h = values[:4]
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if len(values) < 6 or len(values) % 2:
        raise ValueError("neither a box nor a polygon")
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
