"""Lists of paths: `.txt` files, and what comes on stdin."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.address import Address, is_address
from fcos_cli.predict.sources.frames import Frame

T = TypeVar("T")

LONG_LIST = 1000
"""Entries of a list that are looked for before anything runs, until one exists."""

STDIN = Path("stdin")
"""The source name of images read from stdin."""


def read_stdin() -> Iterator[Path | Frame | Failure]:
    """One image file, or the paths of a list, as in `open_sources`. Raises DataError if there is nothing."""
    stream = sys.stdin.buffer
    head = stream.peek(512)[:512] if isinstance(stream, io.BufferedReader) else b""
    if not head:
        raise DataError("stdin is empty", where=STDIN, remedy="pipe an image or a list of paths into stdin")
    if not _is_text(head):
        yield Frame(STDIN, stream.read())
        return
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        yield from require_images(_parse_lines(lines, Path()), str(STDIN))
    finally:
        lines.detach()  # keeps stdin open


def stdin_is_ready() -> bool:
    """Whether stdin can be read without waiting: it has data or has ended. True where the system cannot tell."""
    try:
        return bool(select.select([sys.stdin], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _is_text(head: bytes) -> bool:
    """Return whether a file that starts with `head` is text. Images contain control characters or invalid UTF-8."""
    if (
        head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    ):  # PNM, the only image format with a text header
        return False
    return not any(byte < 32 and byte not in b"\t\r\n" for byte in head) and _is_utf8(head)


def _is_utf8(head: bytes) -> bool:
    """Return whether `head` is valid UTF-8, except that it may end within a character."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and error.reason == "unexpected end of data"
    return True


def read_list(path: Path) -> Iterator[Path | Failure]:
    """Paths in a list, as in `open_sources`, and a Failure for an address. Raises DataError if it cannot be read, or
    does not begin as UTF-8 text; further down, a name may have any bytes.
    """
    remedy = "write one path per line, in UTF-8"
    try:
        with path.open("rb") as stream:
            if not _is_utf8(stream.peek(512)[:512]):
                raise DataError("cannot read the list (it is not UTF-8 text)", where=path, remedy=remedy)
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
            yield from _parse_lines(lines, path.parent)
    except OSError as error:
        raise DataError(f"cannot read the list ({error})", where=path, remedy=remedy) from error


def check_list(path: Path) -> None:
    """Raise DataError if a list has entries, but none of them exists. Of a long list, only the beginning is checked:
    its missing files are reported as they are read.
    """
    entries: list[Path] = []
    for entry in read_list(path):
        if isinstance(entry, Failure):
            return
        entries.append(entry)
        if _exists(entry) or len(entries) > LONG_LIST:
            return
    if not entries:
        return
    first = entries[0].relative_to(path.parent) if entries[0].is_relative_to(path.parent) else entries[0]
    raise DataError(
        f"none of the {len(entries)} paths in this list exists",
        where=f"{path}, first entry: {first}",
        remedy=f"they were looked for in {path.parent.resolve()} and in {Path.cwd()}",
    )


def _parse_lines(lines: Iterable[str], folder: Path) -> Iterator[Path | Failure]:
    for line in lines:
        name = line.rstrip("\r\n")
        text = name.strip()
        found = find_listed(name, folder) or find_listed(text, folder)  # a name may begin or end with spaces
        if found is not None:
            yield found
        elif is_address(text):  # somebody else may have written the list
            address, remedy = Address(text), "give it on the command line"
            yield Failure(address, DataError("addresses in a list are not fetched", where=address, remedy=remedy))
        elif text and not text.startswith("#"):
            yield folder / text


def find_listed(name: str, folder: Path) -> Path | None:
    """Return the existing file or folder that an entry of a list in `folder` names."""
    return next((path for path in (folder / name, Path(name)) if name and _exists(path)), None)


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises if a line is too long for a file name


def require_images(paths: Iterator[T], source: str) -> Iterator[T]:
    """Yield `paths`. Raises DataError if there are none."""
    first = next(paths, None)
    if first is None:
        remedy = f"supported suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}"
        if "[" in Path(source).name:
            remedy = "brackets in a pattern are a choice of characters: write [[] for [ itself"
        raise DataError("no images found", where=source, remedy=remedy)
    yield first
    yield from paths
