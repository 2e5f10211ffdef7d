"""Where labels are written: a new data set, or with `--merge` one that exists. Decided before any work.

A data set that exists must be of the same format and have a place for new pictures: the train split, or the only one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fcos_cli.atomic import lock
from fcos_cli.data.formats.notes import Notes
from fcos_cli.data.formats.read import find_source, first_split
from fcos_cli.data.formats.records import Source
from fcos_cli.errors import DataError, UsageError
from fcos_cli.model.classes import ClassTable
from fcos_cli.runtime.results import Detections


class LabelSet(Protocol):
    """A data set that pictures with labels are added to. images: the folder of new pictures, which may not exist."""

    @property
    def images(self) -> Path: ...

    def taken(self) -> Iterable[str]:
        """Stems that no new picture may have: those of its pictures and of its label files."""
        ...

    def listed(self) -> Iterable[Path]:
        """The pictures that are in a split. Raises DataError if one of the splits cannot be read."""
        ...

    def takes(self, picture: Path) -> bool:
        """Whether a picture that lies in `images`, but is in no split, can be added where it is: no label is lost."""
        ...

    def begin(self, classes: ClassTable) -> None:
        """Match the classes by name; new ones are appended. Writes nothing. Raises UsageError if the format cannot hold
        a name."""
        ...

    def add(self, picture: Path, size: tuple[int, int], labels: Detections) -> None:
        """Add a picture of (width, height) pixels that is about to appear in `images`, or one that `takes` accepts."""
        ...

    def end(self) -> None:
        """Write what concerns the set as a whole. Called once, after the last picture, also if the run failed."""
        ...


def new_or_existing(format: str, folder: Path, *, merge: bool) -> Source | None:
    """Return the data set to add to, or None if `folder` is empty or missing.

    Raises UsageError if it holds anything and `merge` is not set, or if that is not a data set of this format.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    if not merge:
        raise UsageError(
            "the output folder is not empty",
            where=folder,
            remedy="name a new folder with --out, or add --merge to add to the data set in this one",
        )
    try:
        source: Source = find_source(folder)
    except DataError as error:
        raise UsageError(
            f"labels cannot be added here: {error.what}", where=folder, remedy="name a new folder"
        ) from error
    if source.format != format:
        raise UsageError(
            f"this folder holds a {source.format} data set, so {format} labels cannot be added",
            where=folder,
            remedy=f"use --label {source.format}, or a new folder",
        )
    return source


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep other runs from adding to a data set inside the block: they would choose the same names.

    The folder is made, and removed at the end if it stays empty. Raises UsageError if another run holds it.
    """
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = None
    with suppress(PermissionError):  # on Windows, which opens no folders
        file = os.open(folder, os.O_RDONLY)
    try:
        if file is not None:
            what, remedy = "another run of fcos predict is adding labels here", "wait for it, or name another folder"
            lock(file, UsageError(what, where=folder, remedy=remedy))
        yield
    finally:
        with suppress(OSError):  # not empty
            for part in made:
                part.rmdir()
        if file is not None:
            os.close(file)


def training_split(source: Any) -> str:
    """Return the split that new pictures belong to. Raises UsageError if it is not clear."""
    name = first_split(source, "train") or (next(iter(source.splits)) if len(source.splits) == 1 else None)
    if name is None:
        raise refusal(source.root, f"it has no train split, only {', '.join(sorted(source.splits))}")
    return name


def pictures_of(source: Source | None) -> set[Path]:
    """The pictures in all splits of a data set; none of a new one. Raises DataError."""
    if source is None:
        return set()
    classes = source.classes(list(source.splits))
    return {sample.image for split in source.splits for sample in source.read(split, classes, Notes())}


def refusal(place: Path, reason: str) -> UsageError:
    """The error for a data set whose layout does not allow adding to it."""
    return UsageError(
        f"labels cannot be added to this data set: {reason}",
        where=place,
        remedy="write a new data set to another folder, and put the two together with your labelling tool",
    )


def stems(folder: Path) -> Iterator[str]:
    """Yield the stems of the files in a folder and its subfolders; none if it does not exist."""
    return (file.stem for file in folder.rglob("*") if not file.is_dir())
