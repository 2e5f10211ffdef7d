"""Class rows: which row of a foreign class layer is which class. COCO's table from torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fcos_cli.errors import UsageError
from fcos_cli.model.classes import ClassTable

COCO_ROWS = 91
"""Rows of a class layer whose row is the COCO category id: 0…90, of which 80 are classes."""


@cache
def coco_classes() -> ClassTable:
    """COCO's 80 classes in ascending category id (1…90, with gaps)."""
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

    names = enumerate(FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
    used = [(i, name) for i, name in names if name not in ("__background__", "N/A")]
    return ClassTable(tuple(name for _, name in used), tuple(i for i, _ in used))


def class_rows(
    rows: int, names: Sequence[str] | str | None, *, rows_are_ids: bool, where: Path
) -> tuple[ClassTable, list[int]]:
    """The class table of a class layer with `rows` rows, and each class's row.

    names: the classes in order, "coco", or None: COCO where there are as many rows as it has. rows_are_ids: row i is
    the class with id i, so that row 0 (the background) and ids without a class have no class.
    Raises UsageError where names and rows do not go together, or nobody knows the names.
    """
    coco = coco_classes()
    coco_rows = COCO_ROWS if rows_are_ids else len(coco)
    if names == "coco" or (names is None and rows == coco_rows):
        if rows != coco_rows:
            raise _mismatch(f"COCO's class layer has {coco_rows} rows here, the file's has {rows}", rows, where)
        return coco, list(coco.ids) if rows_are_ids else list(range(len(coco)))
    if names is None:
        raise _mismatch(f"the class layer has {rows} rows, and the file does not name its classes", rows, where)
    if len(names) == rows:
        return ClassTable.from_names(names, first_id=0 if rows_are_ids else 1), list(range(rows))
    if rows_are_ids and len(names) == rows - 1:  # row 0 is the background
        return ClassTable.from_names(names, first_id=1), list(range(1, rows))
    raise _mismatch(f"there are {len(names)} class names for {rows} rows of the class layer", rows, where)


def read_names(argument: str | None) -> list[str] | str | None:
    """What --classes says: None, "coco", or the lines of a text file. Raises UsageError."""
    if argument is None or argument == "coco":
        return argument
    try:
        lines = Path(argument).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the class names cannot be read", where=argument, remedy="--classes FILE, one name per line, or coco"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated:
        told = f"the name {repeated[0]!r} stands there twice" if repeated else "there are no class names"
        raise UsageError(told, where=argument, remedy="one name per line, each once")
    return names


def _mismatch(what: str, rows: int, where: Path) -> UsageError:
    return UsageError(
        what,
        where=where,
        remedy=f"--classes names.txt with one name per line, {rows} in the order of the class layer",
    )
