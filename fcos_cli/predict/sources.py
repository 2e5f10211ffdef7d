"""What the user named → pictures and frames, one after the other: files, folders, glob patterns, lists, videos,
cameras, stdin.

What was named is checked at once, so that a typing error does not surface after an hour; folders, lists and videos are
read as they are used.
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

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.frames import Frame
from fcos_cli.predict.pipeline import Failure, Input
from fcos_cli.predict.video import VIDEO_SUFFIXES, is_camera, read_video

STDIN = Path("stdin")
"""What pictures that came through stdin are called."""


def open_sources(
    sources: Sequence[str], *, frames: int | None = None, stop: threading.Event | None = None
) -> Iterator[Input]:
    """What the pipeline takes, in the order of `sources`, repeats kept.

    A file is itself, whatever its suffix; a video gives its frames. A folder gives its pictures, then those of its
    subfolders, each sorted by name; hidden ones are skipped, and so are videos. A glob pattern gives the pictures and
    videos that match, sorted (`**` goes into subfolders). A `.txt` file gives one path a line, relative to its own
    folder or else to the working one; empty lines and those that begin with # are skipped, and a path that does not
    exist is left for the reader to report. `camera:0` (or `/dev/video0`) is a camera, read until `stop` is set. `-` is
    stdin: the bytes of one picture, or a list of paths, found out by its first bytes.

    frames: how many at most of each video or camera. A source that does not exist is a Failure before everything else,
    one that holds no picture is one in its place; of a single source, both are raised as DataError, the latter when it
    is reached. Raises UsageError where nothing is named.
    """
    if not sources:
        raise UsageError("no picture named", remedy="name picture files, folders, patterns or a .txt list")
    known: list[Iterator[Input]] = []
    missing: list[Input] = []
    for source in sources:
        try:
            known.append(_expand(source, frames, stop))
        except DataError as error:
            if len(sources) == 1:
                raise
            missing.append(Failure(Path(source), error))
    named = known if len(sources) == 1 else [_forgiving(inputs) for inputs in known]
    return chain(missing, chain.from_iterable(named))


def _expand(source: str, frames: int | None, stop: threading.Event | None) -> Iterator[Input]:
    if source == "-":
        return _each(_stdin(), frames, stop)
    if is_camera(source):
        return read_video(Path(source), frames=frames, stop=stop)
    path = Path(source).expanduser()
    if path.is_dir():
        return iter(_some(_folder(path), source))
    if path.exists():
        listed = path.suffix.lower() == ".txt"
        return _each(_some(_listed(path), source) if listed else iter([path]), frames, stop)
    if glob.has_magic(source):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        known = (Path(match) for match in matches if _is_picture(match) or _is_video(match))
        return _each(_some(known, source), frames, stop)
    raise DataError("no such file or folder", where=source, remedy="check the path; quote patterns such as 'in/*.jpg'")


def _each(found: Iterable[Path | Frame], frames: int | None, stop: threading.Event | None) -> Iterator[Input]:
    """`found`, the videos in it as their frames."""
    for one in found:
        if isinstance(one, Path) and _is_video(one.name):
            yield from read_video(one, frames=frames, stop=stop)
        else:
            yield one


def _forgiving(inputs: Iterator[Input]) -> Iterator[Input]:
    """`inputs`, a source without pictures as a Failure."""
    try:
        yield from inputs
    except DataError as error:
        yield Failure(Path(error.where or ""), error)


def _folder(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_picture(name):
                yield Path(here, name)


def _stdin() -> Iterator[Path | Frame]:
    stream = sys.stdin.buffer
    head = stream.peek(512)[:512] if isinstance(stream, io.BufferedReader) else b""
    if not head:
        raise DataError("nothing came through stdin", where=STDIN, remedy="pipe a picture or a list of paths into it")
    if not _is_text(head):
        yield Frame(STDIN, stream.read())
        return
    lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
    try:
        yield from _some(_lines(lines, Path()), str(STDIN))
    finally:
        lines.detach()  # stdin is not ours to close


def _is_text(head: bytes) -> bool:
    """Does a file that begins like this hold lines of text? Pictures have control characters or are no UTF-8."""
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():  # PNM, the one format that begins as text
        return False
    return not any(byte < 32 and byte not in b"\t\r\n" for byte in head) and _decodes(head)


def _decodes(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and error.reason == "unexpected end of data"
    return True


def _listed(path: Path) -> Iterator[Path]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from _lines(lines, path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list ({error})", where=path, remedy="one path a line, in UTF-8") from error


def _lines(lines: Iterable[str], folder: Path) -> Iterator[Path]:
    for line in lines:
        if (text := line.strip()) and not text.startswith("#"):
            beside = folder / text
            yield beside if _exists(beside) or not _exists(Path(text)) else Path(text)


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises where a line is too long to be a name


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _some(paths: Iterator[Path], source: str) -> Iterator[Path]:
    """`paths`, or DataError where there is none."""
    first = next(paths, None)
    if first is None:
        raise DataError("no pictures here", where=source, remedy=f"known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}")
    yield first
    yield from paths
