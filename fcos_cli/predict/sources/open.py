"""Input sources: files, folders, patterns, lists, videos, cameras, addresses and stdin, as images and frames.

The existence of sources is checked first, so that a typo does not surface after an hour. Folders, lists and videos are
read lazily.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError, MissingExtra, UsageError
from fcos_cli.predict.pipeline import Failure, Input
from fcos_cli.predict.sources.address import Address, is_address
from fcos_cli.predict.sources.folder import LeftOut, images_in
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.predict.sources.lists import STDIN, check_list, read_list, read_stdin, require_images, stdin_is_ready
from fcos_cli.predict.sources.output_folder import OutputFolder
from fcos_cli.predict.sources.stop import Stop
from fcos_cli.predict.sources.streams import read_address
from fcos_cli.predict.sources.video import VIDEO_SUFFIXES, import_av, is_camera, read_video


@dataclass(frozen=True)
class Reading:
    """How clips are read; see `open_sources`."""

    frames: int | None
    every: int


def open_sources(
    sources: Sequence[str],
    *,
    frames: int | None = None,
    every: int = 1,
    stop: Stop | None = None,
    leave_out: OutputFolder | None = None,
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
    - An address (`http://`, `https://`) is a picture or a stream, by what the server answers; `rtsp://` is a stream.
      Addresses in lists are not fetched.
    - `-` is stdin: one image file or a list of paths, detected from the first bytes.

    frames: maximum number of frames of each video, camera or stream. every: use each N-th frame only. leave_out: the
    folder of the outputs; folders, patterns and stdin do not yield what an earlier run wrote there.

    Sources that do not exist come first, as Failures; a source without images is a Failure in its place. If there is
    only one source, DataError is raised instead: at once if it does not exist, during iteration if it has no images.
    Raises UsageError if `sources` is empty, MissingExtra if one is a video, a camera or an RTSP stream and PyAV is not
    installed.
    """
    if not sources:
        raise UsageError("no images given", remedy="name image files, folders, glob patterns or a .txt list")
    found: list[Iterator[Input]] = []
    missing: list[Input] = []
    for source in sources:
        try:
            found.append(_expand(source, Reading(frames, every), stop, leave_out))
        except DataError as error:
            if len(sources) == 1:
                raise
            missing.append(Failure(Address(source) if is_address(source) else Path(source), error))
    inputs = found if len(sources) == 1 else [_errors_as_failures(items) for items in found]
    wanted = (items for items in inputs if stop is None or not stop.for_good)
    return chain(missing, chain.from_iterable(wanted))


def readiness(sources: Sequence[str]) -> Callable[[], bool]:
    """Return a test whether the next input of `sources` is there without waiting: never for cameras and addresses."""
    if any(map(is_live, sources)):
        return lambda: False
    return stdin_is_ready if "-" in sources else lambda: True


def is_live(source: str) -> bool:
    """Return whether a source may have no end: a camera or an address."""
    return is_camera(source) or is_address(source)


def _expand(source: str, reading: Reading, stop: Stop | None, leave_out: OutputFolder | None) -> Iterator[Input]:
    if source == "-":
        return _read_videos(_sources_on_stdin(leave_out), reading)
    if is_camera(source):
        import_av(Path(source))
        return read_video(Path(source), **vars(reading), stop=stop)
    if is_address(source):
        if source.lower().startswith("rtsp"):
            import_av(Address(source))
        return read_address(Address(source), **vars(reading), stop=stop)
    paths = paths_of(source, leave_out=leave_out)
    if _is_video(source):
        import_av(Path(source))  # fails before anything runs, instead of once for each video
    return _read_videos(paths, reading)


def _sources_on_stdin(leave_out: OutputFolder | None) -> Iterator[Path | Frame | Failure]:
    """What is on stdin, without what an earlier run wrote: `find . -name '*.jpg'` lists its pictures as well."""
    left_out = LeftOut(leave_out, leave_out.path if leave_out else Path())
    yield from (item for item in read_stdin() if not isinstance(item, Path) or left_out.is_source(item))
    left_out.report(STDIN)


def paths_of(source: str, *, leave_out: OutputFolder | None) -> Iterator[Path | Failure]:
    """The images and videos that a path, a folder, a list or a pattern names; see `open_sources`.

    Raises DataError: at once if no such source may be read, during iteration if it has no images.
    """
    try:
        return _paths_of(source, leave_out)
    except PermissionError as error:
        remedy = "check its permissions, and those of the folders above it"
        raise DataError("no permission to read this", where=source, remedy=remedy) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no disk is to blame
            raise
        remedy = "check the disk or the connection"
        raise DataError(f"this cannot be read ({error.strerror})", where=source, remedy=remedy) from error


def _paths_of(source: str, leave_out: OutputFolder | None) -> Iterator[Path | Failure]:
    path = typed_path(source)
    if path.is_dir():
        return require_images(images_in(path, leave_out=leave_out), source)
    if path.exists():
        is_list = path.suffix.lower() == ".txt"
        if is_list and path.is_file():  # a pipe cannot be read twice
            check_list(path)
        return require_images(read_list(path), source) if is_list else iter([path])
    if glob.has_magic(source):
        left_out = LeftOut(leave_out, known_folder(path))
        return require_images(_images_and_videos(expand_pattern(path), source, left_out), source)
    raise no_such(source)


def no_such(source: str) -> DataError:
    """The error for a path that does not exist."""
    remedy = "check the path; put quotes around patterns, for example 'in/*.jpg'"
    return DataError("no such file or folder", where=source, remedy=remedy)


def typed_path(text: str) -> Path:
    """The path that the user typed, with `~` for a home folder where the shell left it: in quotes, or in a pattern.

    A file whose name begins with `~` takes precedence, and a user that does not exist has no home. Raises DataError for
    an empty name, which would be the working directory.
    """
    if not text:
        remedy = "check the variable it comes from; use . for the working directory"
        raise DataError("the name of a source is empty", remedy=remedy)
    path = Path(text)
    if os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _images_and_videos(matches: Iterable[Path], source: str, left_out: LeftOut) -> Iterator[Path]:
    """Yield the images and videos, and report pictures that cannot be read, folders, and earlier outputs."""
    for match in matches:
        if not _is_image(match.name) and not _is_video(match.name):
            left_out.add(match)
            if "**" not in source:  # `**` matches what is in them too
                left_out.add_folder(match)
        elif left_out.is_source(match):
            yield match
    left_out.report(source)


def known_folder(pattern: Path) -> Path:
    """Return the longest existing folder at the beginning of a glob pattern, which is taken by its name."""
    return next(folder for folder in pattern.parents if folder.is_dir() or folder == folder.parent)


def expand_pattern(pattern: Path) -> list[Path]:
    """Return what a glob pattern matches, sorted. Existing folders at its beginning are names, even `runs[1]`."""
    known = known_folder(pattern)
    found = glob.glob(str(pattern.relative_to(known)), root_dir=known, recursive=True)  # noqa: PTH207 - follows symlinks
    return sorted(known / match for match in found)


def _read_videos(items: Iterable[Path | Frame | Failure], reading: Reading) -> Iterator[Input]:
    """Replace each video in `items` by its frames."""
    for item in items:
        if isinstance(item, Path) and _is_video(item.name):
            yield from read_video(item, **vars(reading))
        else:
            yield item


def _errors_as_failures(inputs: Iterator[Input]) -> Iterator[Input]:
    """Yield a DataError of a source (for example, no images) as a Failure, and PyAV missing for an http stream too."""
    try:
        yield from inputs
    except (DataError, MissingExtra) as error:
        where = error.where or ""
        yield Failure(Address(where) if is_address(where) else Path(where), error)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES
