"""The images in a folder, and what is passed over there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from fcos_cli.console import say
from fcos_cli.data.decode.signatures import UNREAD_SUFFIXES
from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import DataError
from fcos_cli.predict.mark import was_written_by_us
from fcos_cli.predict.pipeline import Failure
from fcos_cli.predict.sources.video import VIDEO_SUFFIXES


def images_in(folder: Path, *, leave_out: Path | None) -> Iterator[Path | Failure]:
    """Yield the images of a folder, then those of its subfolders, sorted by name; see `open_sources`.

    At the end, what was passed over is reported on stderr: pictures in formats that cannot be read, videos and links to
    folders. A subfolder that cannot be read is a Failure in its place.
    """
    excluded = None if leave_out is None else leave_out.resolve()
    in_outputs = excluded is not None and folder.resolve() == excluded  # with all of its subfolders, as of crops
    left_out, errors = LeftOut(), list[OSError]()
    for parent, subfolders, files in os.walk(folder, onerror=errors.append):
        yield from _as_failures(errors)
        subfolders[:] = sorted(name for name in subfolders if _is_entered(Path(parent, name), excluded, left_out))
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                left_out.add(path)
            elif not in_outputs or not was_written_by_us(path):  # what an earlier run drew is no source
                yield path
    yield from _as_failures(errors)
    left_out.report(folder)


class LeftOut:
    """Counts pictures that cannot be read, videos and links to folders; the rest of a folder is nobody's loss."""

    def __init__(self) -> None:
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

    def report(self, source: Path | str) -> None:
        """Say for each kind how many were left out, with an example and what to do."""
        for (kind, remedy), paths in self._paths.items():
            one = len(paths) == 1
            count = f"1 {kind} was" if one else f"{len(paths):,} {kind}s were"
            say(f"{source}: {count} left out ({'' if one else 'such as '}{paths[0]}): {remedy}")


def _is_entered(subfolder: Path, excluded: Path | None, left_out: LeftOut) -> bool:
    if subfolder.name.startswith((".", "@eaDir")) or subfolder.resolve() == excluded:
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
