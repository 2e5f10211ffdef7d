"""Which row of a foreign class layer belongs to which class. COCO's class table comes from torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable

COCO_ROWS = 91
"""Rows of a class layer that is indexed by COCO category id: 0…90, of which 80 are classes."""


@cache
def coco_classes() -> ClassTable:
    """Return COCO's 80 classes in ascending category id (1…90, with gaps)."""
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

    names = enumerate(FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
    used = [(i, name) for i, name in names if name not in ("__background__", "N/A")]
    return ClassTable(tuple(name for _, name in used), tuple(i for i, _ in used))


def class_rows(
    rows: int, names: Sequence[str] | str | None, *, rows_are_ids: bool, where: Path
) -> tuple[ClassTable, list[int]]:
    """Return the class table for a class layer with `rows` rows, and each class's row.

    names: the classes in order, "coco", or None for COCO if the number of rows matches. COCO's own names in their order
    have COCO's ids; others are numbered. rows_are_ids: row i is the class with id i; row 0 (background) and ids without
    a class are dropped. Raises UsageError if `names` does not fit the rows, or is None and the rows are not COCO's.
    """
    coco = coco_classes()
    coco_rows = COCO_ROWS if rows_are_ids else len(coco)
    if names == "coco" or (names is None and rows == coco_rows):
        if rows != coco_rows:
            raise _mismatch(f"COCO needs {coco_rows} rows in the class layer, but the file has {rows}", rows, where)
        return coco, list(coco.ids) if rows_are_ids else list(range(len(coco)))
    if names is None:
        raise _mismatch(f"the class layer has {rows} rows, and the file does not name its classes", rows, where)
    if not rows_are_ids and len(names) == rows and [name.replace("_", " ") for name in names] == list(coco.names):
        return ClassTable(tuple(names), coco.ids), list(range(rows))  # mmdetection 1 writes `traffic_light`
    if len(names) == rows:
        return ClassTable.from_names(names, first_id=0 if rows_are_ids else 1), list(range(rows))
    if rows_are_ids and len(names) == rows - 1:  # row 0 is the background
        return ClassTable.from_names(names, first_id=1), list(range(1, rows))
    raise _mismatch(f"got {len(names)} class names for {rows} rows of the class layer", rows, where)


def read_names(argument: str | None) -> list[str] | str | None:
    """Read the value of --classes: None, "coco", or the lines of a text file. Raises UsageError."""
    if argument is None or argument == "coco":
        return argument
    try:
        lines = Path(argument).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the class names cannot be read",
            where=argument,
            remedy="use --classes coco or a text file, one name per line",
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated:
        what = f"duplicate class name {repeated[0]!r}" if repeated else "the file has no class names"
        raise UsageError(what, where=argument, remedy="write one name per line, each once")
    return names


def _mismatch(what: str, rows: int, where: Path) -> UsageError:
    return UsageError(
        what,
        where=where,
        remedy=f"use --classes names.txt with {rows} names, one per line, in the order of the class layer",
    )
