"""Input sources: files, folders, glob patterns, lists, videos, cameras and stdin, as a stream of images and frames.

The existence of sources is checked first, so that a typo does not surface after an hour. Folders, lists and videos are
read lazily.
"""

from __future__ import annotations

import glob
import io
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.folder import LeftOut, images_in
from fcos_cli.predict.frames import Frame
from fcos_cli.predict.pipeline import Failure, Input
from fcos_cli.predict.video import VIDEO_SUFFIXES, is_camera, read_video

T = TypeVar("T")

LONG_LIST = 1000
"""Entries of a list that are looked for before anything runs, until one exists."""

STDIN = Path("stdin")
"""The source name of images read from stdin."""


def open_sources(
    sources: Sequence[str],
    *,
    frames: int | None = None,
    stop: threading.Event | None = None,
    leave_out: Path | None = None,
) -> Iterator[Input]:
    """Return the inputs for the pipeline, in the order of `sources`; duplicates are kept.

    - A file is used as it is, whatever its suffix. A video yields its frames.
    - A folder yields its images, then those of its subfolders, sorted by name. Hidden files, linked folders and videos
      are skipped. How many videos, linked folders and pictures in unreadable formats were skipped is reported.
    - A glob pattern yields the matching images and videos, sorted (`**` matches subfolders). Folders at its beginning
      that exist are taken by their name, also with brackets.
    - A `.txt` file lists one path per line, relative to its own folder or else to the working directory. Empty lines
      are skipped, and so are lines that start with #, unless a file has that name. A listed path that does not exist is
      reported when it is read, unless none does: then the list counts as a source that does not exist.
    - `camera:0` (or `/dev/video0`) is a camera, read until `stop` is set.
    - `-` is stdin: one image file or a list of paths, detected from the first bytes.

    frames: maximum number of frames of each video or camera. leave_out: the folder of the outputs. Inside another
    folder it is passed over; if it is itself a source, files that an earlier run wrote there are.

    Sources that do not exist come first, as Failures; a source without images is a Failure in its place. If there is
    only one source, DataError is raised instead: at once if it does not exist, during iteration if it has no images.
    Raises UsageError if `sources` is empty.
    """
    if not sources:
        raise UsageError("no images given", remedy="name image files, folders, glob patterns or a .txt list")
    found: list[Iterator[Input]] = []
    missing: list[Input] = []
    for source in sources:
        try:
            found.append(_expand(source, frames, stop, leave_out))
        except DataError as error:
            if len(sources) == 1:
                raise
            missing.append(Failure(Path(source), error))
    inputs = found if len(sources) == 1 else [_errors_as_failures(items) for items in found]
    return chain(missing, chain.from_iterable(inputs))


def _expand(source: str, frames: int | None, stop: threading.Event | None, leave_out: Path | None) -> Iterator[Input]:
    if source == "-":
        return _read_videos(_stdin(), frames, stop)
    if is_camera(source):
        return read_video(Path(source), frames=frames, stop=stop)
    path = Path(source).expanduser()
    if path.is_dir():
        return _require_images(images_in(path, leave_out=leave_out), source)
    if path.exists():
        is_list = path.suffix.lower() == ".txt"
        if is_list and path.is_file():  # a pipe cannot be read twice
            _check_list(path)
        paths = _require_images(read_list(path), source) if is_list else iter([path])
        return _read_videos(paths, frames, stop)
    if glob.has_magic(source):
        paths = _images_and_videos(expand_pattern(path), source)
        return _read_videos(_require_images(paths, source), frames, stop)
    raise DataError(
        "no such file or folder",
        where=source,
        remedy="check the path; put quotes around patterns, for example 'in/*.jpg'",
    )


def _images_and_videos(matches: Iterable[Path], source: str) -> Iterator[Path]:
    """Yield the images and videos, and report the pictures that cannot be read."""
    left_out = LeftOut()
    for match in matches:
        if _is_image(match.name) or _is_video(match.name):
            yield match
        else:
            left_out.add(match)
    left_out.report(source)


def expand_pattern(pattern: Path) -> list[Path]:
    """Return what a glob pattern matches, sorted. Folders at its beginning that exist are names, `runs[1]` too."""
    known = next(folder for folder in pattern.parents if folder.is_dir() or folder == folder.parent)
    found = glob.glob(str(pattern.relative_to(known)), root_dir=known, recursive=True)  # noqa: PTH207 - follows symlinks
    return sorted(known / match for match in found)


def _read_videos(
    items: Iterable[Path | Frame | Failure], frames: int | None, stop: threading.Event | None
) -> Iterator[Input]:
    """Replace each video in `items` by its frames."""
    for item in items:
        if isinstance(item, Path) and _is_video(item.name):
            yield from read_video(item, frames=frames, stop=stop)
        else:
            yield item


def _errors_as_failures(inputs: Iterator[Input]) -> Iterator[Input]:
    """Yield a DataError of a source (for example, no images) as a Failure."""
    try:
        yield from inputs
    except DataError as error:
        yield Failure(Path(error.where or ""), error)


def _stdin() -> Iterator[Path | Frame]:
    stream = sys.stdin.buffer
    head = stream.peek(512)[:512] if isinstance(stream, io.BufferedReader) else b""
    if not head:
        raise DataError("stdin is empty", where=STDIN, remedy="pipe an image or a list of paths into stdin")
    if not _is_text(head):
        yield Frame(STDIN, stream.read())
        return
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        yield from _require_images(_parse_lines(lines, Path()), str(STDIN))
    finally:
        lines.detach()  # keeps stdin open


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


def read_list(path: Path) -> Iterator[Path]:
    """Paths in a list, as in `open_sources`. Raises DataError if it is not UTF-8 text."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from _parse_lines(lines, path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the list ({error})", where=path, remedy="write one path per line, in UTF-8"
        ) from error


def _check_list(path: Path) -> None:
    """Raise DataError if a list has entries, but none of them exists. Of a long list, only the beginning is looked at:
    its missing files are reported as they are read.
    """
    entries: list[Path] = []
    for entry in read_list(path):
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


def _parse_lines(lines: Iterable[str], folder: Path) -> Iterator[Path]:
    for line in lines:
        name = line.rstrip("\r\n")
        text = name.strip()
        found = _find(name, folder) or _find(text, folder)  # a name may begin or end with spaces
        if found is not None:
            yield found
        elif text and not text.startswith("#"):
            yield folder / text


def _find(name: str, folder: Path) -> Path | None:
    """Return the existing file or folder that a line names."""
    return next((path for path in (folder / name, Path(name)) if name and _exists(path)), None)


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises if a line is too long for a file name


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _require_images(paths: Iterator[T], source: str) -> Iterator[T]:
    """Yield `paths`. Raises DataError if there are none."""
    first = next(paths, None)
    if first is None:
        remedy = f"supported suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}"
        if "[" in Path(source).name:
            remedy = "brackets in a pattern are a choice of characters: write [[] for [ itself"
        raise DataError("no images found", where=source, remedy=remedy)
    yield first
    yield from paths
