"""The folder of a run: its name, what a new run would replace there, and the lock that keeps a second run out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from shlex import quote

from fcos_cli.atomic import ELSEWHERE, check_writable, lock
from fcos_cli.distributed.world import announced
from fcos_cli.errors import UsageError
from fcos_cli.train.checkpoint import has_state

RUNS = Path("runs/train")

LOCK = ".lock"
"""The file that a run locks. It stays, and shows that the files beside it belong to a run."""

TRACKER_RUN = "tracker.json"
"""The experiment tracker's own name of the run."""

WEIGHTS = ("best.safetensors", "last.safetensors")
BEGINNING = ("config.toml", "origins.json", TRACKER_RUN)
OTHERS = (*BEGINNING, "metrics.jsonl", "report.html", "best.onnx", "best.parity.json")
"""Other files that a new run replaces. Those in BEGINNING are written before the first save."""

_held: set[int] = set()
"""Descriptors of the files that this process has locked."""


@contextmanager
def new_folder(folder: Path | None, *, data: Path) -> Iterator[Path]:
    """Make the folder of a new run, and keep other runs out of it inside the block.

    Without `folder`, it is runs/train/NAME, with the name of the data and the first free number. A folder that is made
    here and stays empty is removed at the end. Raises UsageError as `check_folder` and `hold_folder` do.
    """
    check_folder(folder)
    place, made = RUNS, list[Path]()
    for place in _names(data) if folder is None else [folder]:
        made = [part for part in (place, *place.parents) if not part.exists()]
        with suppress(FileExistsError):
            place.mkdir(parents=True, exist_ok=folder is not None)
            break
    try:
        with hold_folder(place):
            yield place
    finally:
        with suppress(OSError):  # not empty
            for part in made:
                part.rmdir()


def check_folder(folder: Path | None) -> None:
    """Raise UsageError if `folder` holds a run or files that a new one would replace, or if nothing could be written.

    None: a new folder in runs/train. Only the main process writes: another machine may not even have the disk.
    """
    if not announced().main:
        return
    check_writable(folder or RUNS, folder=True)
    if folder is None:
        return
    if has_state(folder):
        raise UsageError(
            "this run folder is already in use",
            where=folder,
            remedy=f"fcos train --resume {quote(str(folder))}, or choose another --name or --out",
        )
    begun = (folder / LOCK).exists()
    for file in (folder / name for name in (*WEIGHTS, *OTHERS)):
        if begun and _is_of_beginning(file):
            continue
        if file.exists():  # without a saved run, perhaps because somebody put it there
            what = "a detector" if file.name in WEIGHTS else "a file"
            raise UsageError(
                f"this folder holds {what}, which a new run would replace",
                where=file,
                remedy="choose another --name or --out, or move the file away",
            )


def _is_of_beginning(file: Path) -> bool:
    """Whether a run writes such a file before its first save, so that nothing is lost if it is replaced."""
    return file.name in BEGINNING or (file.is_file() and not file.stat().st_size)


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder inside the block. Raises UsageError if one is in it.

    The lock is released when this process ends, however it ends.
    """
    path = folder / LOCK
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UsageError(f"cannot write here ({error.strerror})", where=path, remedy=ELSEWHERE) from error
    _held.add(file)
    try:
        remedy = "wait until it has ended, stop it, or choose another folder"
        lock(file, UsageError("another run of fcos train is using this folder", where=folder, remedy=remedy))
        try:
            yield
        finally:
            if not (folder / "config.toml").exists():  # the run failed before it wrote anything
                path.unlink(missing_ok=True)
    finally:
        _held.discard(file)
        os.close(file)


def _names(data: Path) -> Iterator[Path]:
    """runs/train/NAME, runs/train/NAME-2, …"""
    stem = data.stem if data.is_file() else data.resolve().name
    return (RUNS / (stem if number == 1 else f"{stem}-{number}") for number in count(1))


def _let_go() -> None:
    """Close what was inherited: the loader processes live a few seconds longer than a run that was killed."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_let_go)
