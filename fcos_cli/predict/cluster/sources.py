"""From what the user typed to the list of pictures of a job.

Paths are listed as without --engine, so the order is the same. Addresses in lists and Parquet files are read only from
the kind of store whose address the user typed: somebody else may have written them.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.cluster.listing import Entry
from fcos_cli.predict.cluster.parquet import COLUMN, holds_bytes, row_groups, values
from fcos_cli.predict.cluster.places import Place, locate, walk
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.address import Address, is_address
from fcos_cli.predict.sources.lists import find_listed, require_images
from fcos_cli.predict.sources.open import expand_pattern, no_such, paths_of, typed_path
from fcos_cli.predict.sources.output_folder import OutputFolder
from fcos_cli.predict.sources.video import VIDEO_SUFFIXES, is_camera

PARQUET = ".parquet"


def check_sources(sources: Sequence[str]) -> list[Place]:
    """The places of all sources. Raises UsageError for what cannot be spread over a cluster, DataError if an address
    cannot be opened.
    """
    if not sources:
        raise UsageError("no images given", remedy="name a folder, a .txt list, a Parquet file or s3://BUCKET/FOLDER/")
    for source in sources:
        if source == "-" or is_camera(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES:
            what = "--engine ray reads images, not stdin, cameras and videos"
            raise UsageError(what, where=source, remedy="omit --engine for this source")
    return [locate(source) for source in sources]


def list_sources(sources: Sequence[str], roots: Sequence[Place], *, column: str | None, out: Place) -> Iterator[Entry]:
    """The pictures of all sources, in order; duplicates are kept.

    roots: the places of the sources. column: of Parquet files; if it is given, all sources are Parquet. out: folder of
    the results, which is passed over inside a source. Raises DataError for a source that does not exist or has no
    pictures, and for a Parquet file without the column.
    """
    folder = Path(out.path) if out.is_local else None
    leave_out = None if folder is None else OutputFolder(folder, writes=True)
    entries: Iterator[Entry]
    for number, (source, root) in enumerate(zip(sources, roots, strict=True)):
        if column is not None or source.rstrip("/").lower().endswith(PARQUET):
            files = _parquet_files(source, root, folder)
            entries = (entry for file in files for entry in _rows(file, number, column or COLUMN))
        elif root.scheme is None:
            entries = (_local(item, number) for item in paths_of(source, leave_out=leave_out))
        else:
            entries = _stored(root, number)
        yield from require_images(entries, str(Address(source)) if root.scheme else source)


def _local(item: Path | Failure, root: int) -> Entry:
    if isinstance(item, Failure):
        return Entry(str(item.source), root, error=item.error.what)
    if item.suffix.lower() in VIDEO_SUFFIXES:
        return Entry(str(item), root, error="videos are not read by --engine ray")
    return Entry(str(item), root)


def _stored(place: Place, root: int) -> Iterator[Entry]:
    """The pictures at an address: a folder, a list or one picture."""
    kind = place.kind
    if kind == "folder":
        suffixes = IMAGE_SUFFIXES
        yield from (Entry(file.name, root) for file in walk(place) if _suffix(file.name) in suffixes)
    elif not kind:
        raise DataError("there is no such file or folder", where=place.name, remedy="check the address")
    elif _suffix(place.name) == ".txt":
        try:
            lines = place.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError("this list is not UTF-8", where=place.name, remedy="write one address per line") from error
        texts = (line.strip() for line in lines)
        yield from (_named(text, place, root) for text in texts if text and not text.startswith("#"))
    else:
        yield Entry(place.name, root)


def _parquet_files(source: str, root: Place, leave_out: Path | None) -> Iterator[Place]:
    """The Parquet files that a source names, sorted. Raises DataError if there are none."""
    files = _local_parquet(source, root, leave_out) if root.scheme is None else _stored_parquet(root)
    first = next(files, None)
    if first is None:
        remedy = f"name files that end with {PARQUET}, or a folder with them"
        raise DataError("no Parquet files found", where=Address(source) if root.scheme else source, remedy=remedy)
    yield first
    yield from files


def _stored_parquet(root: Place) -> Iterator[Place]:
    if root.kind != "folder":
        yield root
    else:
        yield from (file for file in walk(root) if _suffix(file.name) == PARQUET)


def _local_parquet(source: str, root: Place, leave_out: Path | None) -> Iterator[Place]:
    """Files of this machine, named as the source is."""
    path = typed_path(source)
    if path.is_dir():
        found = [file for file in sorted(path.rglob(f"*{PARQUET}")) if not _is_hidden(file.relative_to(path))]
    elif path.exists():
        found = [path]
    elif glob.has_magic(source):
        found = expand_pattern(path)
    else:
        raise no_such(source)
    for file in found:
        if leave_out is None or leave_out not in file.absolute().parents:
            yield Place(str(file), root.system, os.path.abspath(file))  # noqa: PTH100 - keeps links


def _rows(file: Place, root: int, column: str) -> Iterator[Entry]:
    """The rows of a Parquet file: groups of rows that hold pictures, or the files that the rows name."""
    if holds_bytes(file, column):
        yield from (Entry(file.name, root, first=first, rows=rows) for first, rows in row_groups(file))
        return
    for row, text in enumerate(values(file, column)):
        if text is None:
            yield Entry(f"{file.name}:{row}", root, error="this row names no picture")
        else:
            yield _named(text, file, root)


def _named(text: str, by: Place, root: int) -> Entry:
    """The picture that a list or a Parquet file names: an address, or a path from its folder or the working folder."""
    if is_address(text):
        scheme, _, rest = text.partition("://")
        if by.scheme is None or scheme.lower() != by.scheme:
            what = f"{scheme}:// addresses in a file are read only if the file itself is at such an address"
            return Entry(str(Address(text)), root, error=what)
        host, slash, key = rest.partition("/")
        return Entry(by.beside(f"{host.rpartition('@')[2]}{slash}{key}").name, root)
    if by.scheme is None:
        found = find_listed(text, Path(by.name).parent)
        return _local(found or Path(by.name).parent / text, root)
    folder = PurePosixPath(by.path).parent
    return Entry(by.beside(str(folder / text)).name, root)


def _is_hidden(path: Path) -> bool:
    """Whether Parquet's readers pass over the path: it, or a folder on the way, begins with a dot or underscore."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
