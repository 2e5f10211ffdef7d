"""Read any supported data set: detect the format and the splits from the files, return Samples.

How a requested split maps to the sets on disk is decided here, the same for all formats, and logged in
`Dataset.origin`:

    requested    used
    train        `train`, otherwise `trainval` without the images of the val split
    val          `val`, otherwise `valid`, `validation` or `test`
    all          every image of a folder, or the whole annotation file
    other name   the split of that name
    None         the whole of a COCO file, or of a folder of LabelMe or VOC files that is itself called val or test; for
                 other folders and a data.yaml, the same as `val`

If a train set has no val set (and always if `path` is such a file or folder, and `train` or `val` is requested), the
single set is divided: images are ordered by a hash of seed and file name, so the result depends neither on their order
in the file nor on the location of the folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fcos_cli.data.formats import coco, labelme, voc, yolo
from fcos_cli.data.formats.notes import Notes
from fcos_cli.data.formats.records import Source
from fcos_cli.data.formats.voc_xml import cvat_error, is_cvat
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.data.samples import Dataset, Division, Sample
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.classes import ClassTable

_FALLBACKS = {"train": ("train", "trainval"), "val": ("val", "valid", "validation", "test")}


def read_dataset(
    path: Path,
    *,
    split: str | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    classes: ClassTable | None = None,
) -> Dataset:
    """Read one split of the data set at `path`, a folder or an annotation file (COCO .json, YOLO data.yaml).

    split: see the table above. val_fraction: fraction of the images held out if there is no val split, 0…1. seed: seed
    of that selection. classes: use this class table; the data's classes are matched to it by name, and boxes of other
    classes are dropped with a finding. By default the table is the data set's own, the same for every split. Raises
    DataError if nothing can be read, UsageError if `val_fraction` is not between 0 and 1.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(
            f"val_fraction must be between 0 and 1, not {val_fraction:g}",
            remedy="use 0.1 to hold out 10 %",
        )
    source = find_source(path)
    whole = _is_whole(path, source)
    requested = split or ("all" if whole else "val")
    names, origin = _resolve(source, requested, divide=whole)
    own = source.classes(_table_splits(source, names))
    notes = Notes()
    samples = _read(source, names, own, notes)
    division = None
    if origin is None:
        division = Division(val_fraction, seed)
        reason = f"{path.name} divided" if whole else "no val split found"
        held_out = f"{val_fraction * 100:g} % of {len(samples)} images held out, seed {seed}"
        samples, origin = (
            _divide(samples, source.root, requested, val_fraction=val_fraction, seed=seed),
            f"{reason}: {held_out}",
        )
    elif requested == "train" and names == ["trainval"] and (val := first_split(source, "val")):
        samples, origin = _without(samples, source, val, own), f"{origin}, without the images of {val}"
    if classes is not None:
        samples = _rename(samples, own, classes, path, notes)
    return Dataset(samples, classes or own, source.format, requested, path, origin, notes.findings(), division)


def is_divided(path: Path, *, split: str | None = None) -> bool:
    """Whether `read_dataset` divides a single set of images for this split. Raises DataError if it cannot be read."""
    source = find_source(path)
    if _is_whole(path, source):
        return split in _FALLBACKS
    return _resolve(source, split or "val", divide=False)[1] is None


def whole_split(path: Path) -> str | None:
    """The split that a COCO file, or a folder of LabelMe or VOC files, has in its name; None for other data.

    A COCO file without one has its stem. Raises DataError if there is no data set.
    """
    source = find_source(path)
    return next(iter(source.splits)) if _is_whole(path, source) else None


def _is_whole(path: Path, source: Source) -> bool:
    """Whether `path` is a single set as a whole, which is divided only if `train` or `val` is requested."""
    if path.is_file():
        return source.format == "coco"
    return any(place == path and name in _FALLBACKS["val"] for name, place in source.splits.items())


def find_source(path: Path) -> Source:
    """Return the data set at `path` without reading it. Raises DataError if there is none."""
    if not path.exists():
        raise DataError("the data set does not exist", where=path, remedy="check the path")
    finders: tuple[Callable[[Path], Source | None], ...] = (
        coco.find,
        voc.find,
        yolo.find,
        labelme.find,
        partial(voc.find, below=True),  # after what lies in the folder itself, such as the data.yaml made of it
        partial(labelme.find, below=True),
        yolo.find_other,
        partial(coco.find, damaged=True),
    )
    for find in finders:
        source = find(path)
        if source is not None:
            return source
    if is_cvat(path):
        raise cvat_error(path)
    if any(file.suffix.lower() in IMAGE_SUFFIXES for pattern in ("*", "*/*") for file in path.glob(pattern)):
        remedy = "label boxes first (docs/labelling.md shows how), or give a folder that holds the annotations too"
        raise DataError("these images have no labels", where=path, remedy=remedy)
    raise DataError(
        "no data set found here" if path.is_dir() else "this file is not a data set",
        where=path,
        remedy="give a folder with COCO .json files, a YOLO data.yaml, VOC Annotations/*.xml or LabelMe .json files, "
        "or one COCO .json or YOLO .yaml file",
    )


def first_split(source: Source, split: str) -> str | None:
    """Return the set that stands for `train` or `val`, as in the table above; None if there is none."""
    return next((name for name in _FALLBACKS[split] if name in source.splits), None)


def _resolve(source: Source, requested: str, *, divide: bool) -> tuple[list[str], str | None]:
    """Return the names of the sets to read and the origin; origin None means the set must be divided."""
    names = list(source.splits)
    if requested == "all":
        return names, f"all images of {_listing(names)}"
    if divide and requested in _FALLBACKS:
        return names, None
    if requested in _FALLBACKS:
        train, val = first_split(source, "train"), first_split(source, "val")
        if val is None and (train or len(names) == 1):
            return [train or names[0]], None
        fallback = train if requested == "train" else val
        if fallback and fallback != requested:
            return [fallback], f"no {requested} split found: using {fallback} ({source.splits[fallback].name})"
    if requested in names:
        return [requested], f"the {requested} split, {source.splits[requested].name}"
    remedy = "choose one of these with --split"
    if requested in _FALLBACKS:  # only `fcos eval` has --split
        remedy = f"rename one of them to {requested}, or give the folder or file of one; fcos eval also takes --split"
    what = f"the data set has no {requested} split, only {_listing(names)}"
    raise DataError(what, where=source.root, remedy=remedy)


def _table_splits(source: Source, names: Sequence[str]) -> list[str]:
    """Return the sets whose classes form the table: train and val first, the same for every split."""
    main = [first_split(source, "train"), first_split(source, "val")]
    return list(dict.fromkeys([*(name for name in main if name), *names]))


def _listing(names: Sequence[str]) -> str:
    return ", ".join(sorted(names))


def _read(source: Source, names: Sequence[str], classes: ClassTable, notes: Notes) -> list[Sample]:
    samples = [sample for name in names for sample in source.read(name, classes, notes)]
    if len(names) > 1:
        samples = list({sample.image: sample for sample in reversed(samples)}.values())[::-1]
        if len({sample.image_id for sample in samples}) < len(samples):
            if source.format == "coco":  # the other formats have no ids of their own
                notes.add("ids-renumbered", _listing(names), count=len(samples))
            samples = [replace(sample, image_id=number) for number, sample in enumerate(samples, start=1)]
    if not samples:
        what, remedy = "the split has no images", "add images"
        if noted := notes.findings():
            what = f"{what} that can be used; {noted[0].message} ({noted[0].place})"
            remedy = noted[0].remedy
        raise DataError(what, where=f"{source.root}: {_listing(names)}", remedy=remedy)
    return samples


def _without(samples: list[Sample], source: Source, val: str, classes: ClassTable) -> list[Sample]:
    """Drop the images of `trainval` that are also in val."""
    val_images = {sample.image for sample in source.read(val, classes, Notes())}
    return [sample for sample in samples if sample.image not in val_images]


def _divide(samples: list[Sample], root: Path, requested: str, *, val_fraction: float, seed: int) -> list[Sample]:
    """Return the train or val part, with round(n · fraction) images, at least one, in val."""
    if len(samples) < 2:
        raise DataError(
            "a single image cannot be divided into train and val", where=root, remedy="add images, or a val split"
        )

    def order(sample: Sample) -> tuple[str, int]:
        name = _name_in(root, sample.image).as_posix()
        return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), sample.image_id

    count = min(max(round(len(samples) * val_fraction), 1), len(samples) - 1)
    held_out = {id(sample) for sample in sorted(samples, key=order)[:count]}
    return [sample for sample in samples if (id(sample) in held_out) == (requested == "val")]


def _name_in(root: Path, image: Path) -> Path:
    """The path of an image relative to its data set's folder, however the two were typed; its name alone elsewhere."""
    if not image.is_relative_to(root):  # one of them may be relative to the working directory
        root, image = (Path(os.path.abspath(path)) for path in (root, image))  # noqa: PTH100 - keeps links
    return image.relative_to(root) if image.is_relative_to(root) else Path(image.name)


def _rename(samples: list[Sample], own: ClassTable, target: ClassTable, path: Path, notes: Notes) -> list[Sample]:
    """Map class indices of `own` to those of `target`, matched by name."""
    match = np.array([-1 if index is None else index for index in own.match(target)], np.int64)
    if (match < 0).all():
        raise DataError(
            f"no class of the data set ({_listing(own.names)}) is in the class table ({_listing(target.names)})",
            where=path,
            remedy="use data with the model's classes, or train on this data",
        )
    renamed = []
    for sample in samples:
        classes = match[sample.classes]
        keep = classes >= 0
        if not keep.all():
            dropped = own.names[int(sample.classes[~keep][0])]
            notes.add("class-not-in-table", f"{sample.image.name} ({dropped})", count=int((~keep).sum()))
        renamed.append(
            replace(
                sample,
                boxes=sample.boxes[keep],
                classes=classes[keep],
                ignore=sample.ignore[keep],
                areas=sample.areas[keep],
            )
        )
    return renamed
