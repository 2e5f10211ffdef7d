"""The images in a folder, and what is passed over there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fcos_cli.console import say
from fcos_cli.data.decode.signatures import UNREAD_SUFFIXES
from fcos_cli.data.formats.file_index import is_hidden
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.output_folder import OutputFolder
from fcos_cli.predict.sources.video import VIDEO_SUFFIXES


def images_in(folder: Path, *, leave_out: OutputFolder | None) -> Iterator[Path | Failure]:
    """Yield the images of a folder, then those of its subfolders, sorted by name; see `open_sources`.

    At the end, what was passed over is reported on stderr: pictures in formats that cannot be read, videos, links to
    folders and what an earlier run wrote. A subfolder that cannot be read is a Failure in its place.
    """
    left_out, errors = LeftOut(leave_out, folder), list[OSError]()
    for parent, subfolders, files in os.walk(folder, onerror=errors.append):
        yield from _as_failures(errors)
        subfolders[:] = sorted(name for name in subfolders if _is_entered(Path(parent, name), leave_out, left_out))
        for name in sorted(files):
            path = Path(parent, name)
            if is_hidden(name):
                continue
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                left_out.add(path)
            elif left_out.is_source(path):
                yield path
    yield from _as_failures(errors)
    left_out.report(folder)


class LeftOut:
    """Counts pictures that cannot be read, videos, links to folders, folders that only a pattern names, and what an
    earlier run wrote; the other files in a folder do not matter.

    outputs, named: as in `OutputFolder.hides`.
    """

    def __init__(self, outputs: OutputFolder | None, named: Path) -> None:
        self._outputs, self._named = outputs, named
        self._paths: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)

    def add(self, path: Path) -> None:
        """Count a file, if it is a video or a picture that cannot be read."""
        suffix = path.suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            self._paths[f"{suffix} file", UNREAD_SUFFIXES[suffix]].append(path)
        elif suffix in VIDEO_SUFFIXES:
            self._paths["video", "give the path of each, or a pattern like '*.mp4'"].append(path)

    def add_link(self, path: Path) -> None:
        """Count a link to a folder."""
        self._paths["linked folder", "give its path as well"].append(path)

    def add_folder(self, path: Path) -> None:
        """Count a folder that a pattern matches without matching its files. Anything else is not counted."""
        if not os.path.isdir(path) or is_hidden(path.name):  # noqa: PTH112 - Path.is_dir may raise
            return
        if self._outputs is None or path.resolve() != self._outputs.path:
            self._paths["folder", "give its path, or a pattern like '**/*.jpg'"].append(path)

    def is_source(self, path: Path) -> bool:
        """Whether a picture or a video is a source; one that an earlier run wrote is not, and is counted."""
        if self._outputs is None or not self._outputs.hides(path, named=self._named):
            return True
        self._paths["earlier output", "name the file itself to use it as a source"].append(path)
        return False

    def report(self, source: Path | str) -> None:
        """Say for each kind how many were left out, with an example and what to do."""
        for (kind, remedy), paths in self._paths.items():
            one = len(paths) == 1
            count = f"1 {kind} was" if one else f"{len(paths):,} {kind}s were"
            say(f"{source}: {count} left out ({'' if one else 'such as '}{paths[0]}): {remedy}")


def _is_entered(subfolder: Path, leave_out: OutputFolder | None, left_out: LeftOut) -> bool:
    if is_hidden(subfolder.name) or (leave_out is not None and leave_out.is_passed_over(subfolder)):
        return False
    if subfolder.is_symlink():  # which may lead back here; os.walk does not follow it
        left_out.add_link(subfolder)
        return False
    return True


def _as_failures(errors: list[OSError]) -> Iterator[Failure]:
    while errors:
        error = errors.pop(0)
        place = Path(error.filename)
        what = f"the folder cannot be read ({error.strerror})"
        yield Failure(place, DataError(what, where=place, remedy="check its permissions"))
