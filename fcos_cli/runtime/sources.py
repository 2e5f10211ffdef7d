"""What the user named → picture paths, one after the other: files, folders, glob patterns, lists.

What was named is checked at once, so that a typing error does not surface after an hour; folders and lists are read as
the pictures are used.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError, UsageError


def expand(sources: Sequence[str]) -> Iterator[Path]:
    """Paths in the order of `sources`, repeats kept.

    A file is itself, whatever its suffix. A folder gives its pictures, then those of its subfolders, each sorted by
    name; hidden ones are skipped. A glob pattern gives the pictures that match, sorted (`**` goes into subfolders). A
    `.txt` file gives one path a line, relative to its own folder or else to the working one; empty lines and those
    that begin with # are skipped, and a path that does not exist is left for the reader to report.
    Raises UsageError where nothing is named; DataError for a source that does not exist or holds no picture (the
    latter when it is reached).
    """
    if not sources:
        raise UsageError("no picture named", remedy="name picture files, folders, patterns or a .txt list")
    return chain.from_iterable([_expand(source) for source in sources])


def _expand(source: str) -> Iterator[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _some(_folder(path), source)
    if path.exists():
        return _some(_listed(path), source) if path.suffix.lower() == ".txt" else iter([path])
    if glob.has_magic(source):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return _some((Path(match) for match in matches if _is_picture(match)), source)
    raise DataError("no such file or folder", where=source, remedy="check the path; quote patterns such as 'in/*.jpg'")


def _folder(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_picture(name):
                yield Path(here, name)


def _listed(path: Path) -> Iterator[Path]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for line in lines:
                if (text := line.strip()) and not text.startswith("#"):
                    beside = path.parent / text
                    yield beside if beside.exists() or not Path(text).exists() else Path(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list ({error})", where=path, remedy="one path a line, in UTF-8") from error


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _some(paths: Iterator[Path], source: str) -> Iterator[Path]:
    """`paths`, or DataError where there is none."""
    first = next(paths, None)
    if first is None:
        raise DataError("no pictures here", where=source, remedy=f"known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}")
    yield first
    yield from paths
