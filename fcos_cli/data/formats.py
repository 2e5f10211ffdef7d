"""Reads any data set we know: finds the format and the splits from the files, gives Samples.

Which pictures a split is made of is decided here, for all formats alike, and said in `Dataset.origin`:

    asked        taken
    train        `train`, else `trainval` without the pictures of the val split
    val          `val`, else `valid`, else `validation`, else `test`
    all          every picture of a folder, or the whole annotation file
    other name   the split of that name
    None         the whole of an annotation file; of a folder or a data.yaml, what `val` means

Where a train set has no val beside it (and always when `path` is a COCO file and `train` or `val` is asked), the one
set is divided: pictures are ordered by a hash of seed and file name, so the division depends neither on the order in
the file nor on where the folder lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fcos_cli.data import coco, voc, yolo
from fcos_cli.data.records import Notes, Source
from fcos_cli.data.samples import Dataset, Sample
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
    """One split of the data set at `path`, a folder or an annotation file (COCO .json, YOLO data.yaml).

    split: see the module's table. val_fraction: share of the pictures set aside where no val split exists, 0…1.
    seed: of that choice. classes: use this table; the data's classes are matched to it by name, boxes of classes it
    lacks are dropped with a finding. Without it the table is the data set's own, the same for every split.
    Raises DataError where nothing can be read, UsageError for a fraction that is none.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(
            f"val_fraction is a share between 0 and 1, not {val_fraction:g}", remedy="0.1 sets a tenth aside"
        )
    source = _find(path)
    whole_file = path.is_file() and source.format == "coco"
    asked = split or ("all" if whole_file else "val")
    names, origin = _resolve(source, asked, divide=whole_file)
    own = source.classes(_table_splits(source, names))
    notes = Notes()
    samples = _read(source, names, own, notes)
    if origin is None:
        reason = f"{path.name} divided" if whole_file else "no val split found"
        held = f"{val_fraction * 100:g} % of {len(samples)} pictures set aside, seed {seed}"
        samples, origin = (
            _divide(samples, source.root, asked, val_fraction=val_fraction, seed=seed),
            f"{reason}: {held}",
        )
    elif names == ["trainval"]:
        samples = _without(samples, source, _first(source, "val"), own)
    if classes is not None:
        samples = _rename(samples, own, classes, path, notes)
    return Dataset(samples, classes or own, source.format, asked, path, origin, notes.findings())


def _find(path: Path) -> Source:
    if not path.exists():
        raise DataError("the data set does not exist", where=path, remedy="check the path")
    finders: tuple[Callable[[Path], Source | None], ...] = (coco.find, voc.find, yolo.find)
    for find in finders:
        source = find(path)
        if source is not None:
            return source
    raise DataError(
        "no data set found here" if path.is_dir() else "this file is not a data set",
        where=path,
        remedy="a data set is a folder with COCO .json files, a YOLO data.yaml, or VOC Annotations/*.xml, "
        "or one of those .json or .yaml files",
    )


def _first(source: Source, split: str) -> str | None:
    return next((name for name in _FALLBACKS[split] if name in source.splits), None)


def _resolve(source: Source, asked: str, *, divide: bool) -> tuple[list[str], str | None]:
    """The names of the sets to read, and where they came from; None for "divide what you read"."""
    names = list(source.splits)
    if asked == "all":
        return names, f"all pictures of {_listing(names)}"
    if divide and asked in _FALLBACKS:
        return names, None
    if asked in _FALLBACKS:
        train, val = _first(source, "train"), _first(source, "val")
        if val is None and (train or len(names) == 1):
            return [train or names[0]], None
        found = train if asked == "train" else val
        if found and found != asked:
            return [found], f"no {asked} split found: {found} ({source.splits[found].name}) stands in for it"
    if asked in names:
        return [asked], f"the {asked} split, {source.splits[asked].name}"
    raise DataError(
        f"the data set has no {asked} split, only {_listing(names)}",
        where=source.root,
        remedy="name one of these with --split, or name an annotation file itself",
    )


def _table_splits(source: Source, names: Sequence[str]) -> list[str]:
    """Sets whose classes make the table: train and val first, so that every split of a data set gets the same."""
    ends = [_first(source, "train"), _first(source, "val")]
    return list(dict.fromkeys([*(name for name in ends if name), *names]))


def _listing(names: Sequence[str]) -> str:
    return ", ".join(sorted(names))


def _read(source: Source, names: Sequence[str], classes: ClassTable, notes: Notes) -> list[Sample]:
    samples = [sample for name in names for sample in source.read(name, classes, notes)]
    if len(names) > 1:
        samples = list({sample.image: sample for sample in reversed(samples)}.values())[::-1]
        if len({sample.image_id for sample in samples}) < len(samples):
            if source.format == "coco":  # the others have no ids of their own to lose
                notes.add("ids-renumbered", _listing(names), count=len(samples))
            samples = [replace(sample, image_id=number) for number, sample in enumerate(samples, start=1)]
    if not samples:
        raise DataError("the split has no pictures", where=f"{source.root}: {_listing(names)}", remedy="add pictures")
    return samples


def _without(samples: list[Sample], source: Source, val: str | None, classes: ClassTable) -> list[Sample]:
    """Pictures of `trainval` that are not in val too."""
    held = {sample.image for sample in source.read(val, classes, Notes())} if val else set()
    return [sample for sample in samples if sample.image not in held]


def _divide(samples: list[Sample], root: Path, asked: str, *, val_fraction: float, seed: int) -> list[Sample]:
    """Sets round(n · fraction) pictures aside as val, at least one; the others are train."""
    if len(samples) < 2:
        raise DataError(
            "a single picture cannot be divided into train and val", where=root, remedy="add pictures, or a val split"
        )

    def order(sample: Sample) -> tuple[str, int]:
        name = sample.image.relative_to(root) if sample.image.is_relative_to(root) else Path(sample.image.name)
        return hashlib.sha256(f"{seed}:{name.as_posix()}".encode()).hexdigest(), sample.image_id

    count = min(max(round(len(samples) * val_fraction), 1), len(samples) - 1)
    held = {id(sample) for sample in sorted(samples, key=order)[:count]}
    return [sample for sample in samples if (id(sample) in held) == (asked == "val")]


def _rename(samples: list[Sample], own: ClassTable, wanted: ClassTable, path: Path, notes: Notes) -> list[Sample]:
    """Class indices of `own` → those of `wanted`, matched by name."""
    match = np.array([-1 if index is None else index for index in own.match(wanted)], np.int64)
    if (match < 0).all():
        raise DataError(
            f"no class of the data set ({_listing(own.names)}) is in the class table ({_listing(wanted.names)})",
            where=path,
            remedy="use data with the model's classes, or train on these",
        )
    renamed = []
    for sample in samples:
        classes = match[sample.classes]
        keep = classes >= 0
        if not keep.all():
            lost = own.names[int(sample.classes[~keep][0])]
            notes.add("class-not-in-table", f"{sample.image.name} ({lost})", count=int((~keep).sum()))
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
