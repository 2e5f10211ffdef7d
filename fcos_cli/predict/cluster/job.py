"""The folder of a job: `part-00000.parquet` …, and what --resume needs in `_job/`, which Parquet readers skip.

A part is written atomically, named after its partition, so work done twice leaves one part, and missing parts are
noticed. `_job/job.json` is written when the list of pictures is complete: without it there is no job yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fcos_cli.atomic import check_writable
from fcos_cli.errors import DataError, UsageError
from fcos_cli.predict.cluster.listing import Entry, Listed, write_listing
from fcos_cli.predict.cluster.places import Place, write_errors
from fcos_cli.predict.cluster.schema import Counts, counts_of
from fcos_cli.threads import thread_pool

FOLDER = "_job"
READERS = 16
"""Threads that read the ends of finished parts."""

_PART = re.compile(r"part-(\d{5,})\.parquet")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


class JobFolder:
    """The folder of a job. place: where it is."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.listing = place.at(FOLDER, "sources.arrow")
        self._manifest = place.at(FOLDER, "job.json")

    def part(self, number: int) -> Place:
        return self.place.at(f"part-{number:05}.parquet")

    def check(self) -> None:
        """Raise UsageError if the folder cannot be written, or holds anything but a job."""
        if self.place.is_local:
            check_writable(Path(self.place.path), folder=True)
        if self.place.kind == "file":
            raise UsageError("this is a file, not a folder", where=self.place.name, remedy="choose another --out")
        foreign = [name for name, is_folder in self.place.entries() if not _is_ours(name, is_folder=is_folder)]
        if foreign:
            what = f"this folder holds something that is not part of such results: {foreign[0]}"
            remedy = "choose another --out: a new folder, such as found.parquet/"
            raise UsageError(what, where=self.place.name, remedy=remedy)

    def open(self, settings: dict[str, Any], *, resume: bool) -> Listed | None:
        """The list of an interrupted job; None if there is no job yet.

        settings: what must be the same, as JSON values. Raises UsageError if there is a job with other settings, or any
        job without `resume`.
        """
        document = self._document()
        if document is None:
            if self.finished():
                what = "this folder has results, but no job that could be continued"
                raise UsageError(what, where=self.place.name, remedy="choose another --out")
            return None
        if not resume:
            what = "this folder has the results of a job"
            raise UsageError(what, where=self.place.name, remedy="add --resume to continue, or choose another --out")
        before, now = document["settings"], json.loads(json.dumps(settings))
        changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
        if changed:
            what = f"the interrupted job had a different model, sources or options: {', '.join(changed)}"
            raise UsageError(what, where=self.place.name, remedy="repeat its command line, or choose another --out")
        return Listed(document["partitions"], document["pictures"], document["base"])

    def begin(self, settings: dict[str, Any], entries: Iterable[Entry], *, base: str) -> Listed:
        """List the pictures and write down the job. Raises what `entries` raises, and FcosError if the folder cannot be
        written; then nothing is left.

        base: the folder that paths in `entries` are relative to.
        """
        with write_errors(self.place):
            self.place.system.create_dir(self.place.at(FOLDER).path)
        try:
            listed = write_listing(self.listing, entries, base=base)
            self._manifest.write(json.dumps({"settings": settings, **listed._asdict()}, indent=2).encode())
        except BaseException:
            self.discard()
            raise
        return listed

    def finished(self) -> set[int]:
        """Numbers of the parts that are there."""
        matches = (_PART.fullmatch(name) for name, _ in self.place.entries())
        return {int(match[1]) for match in matches if match}

    def counts(self, numbers: Iterable[int], *, read: Callable[[Place], Counts] = counts_of) -> Counts:
        """The sum of the counts of these parts."""
        with thread_pool(READERS, name="fcos-count") as pool:
            return sum(pool.map(read, map(self.part, numbers)), Counts())

    def tidy(self) -> None:
        """Remove what killed workers left. Call it when none is running."""
        for name, _ in self.place.entries():
            if self.place.is_local and _TEMPORARY.fullmatch(name):
                Path(self.place.path, name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove a job that has done nothing, and its folder if nothing else is there."""
        with suppress(DataError):
            self.place.at(FOLDER).remove()
        if self.place.is_local:
            with suppress(OSError):
                Path(self.place.path).rmdir()

    def _document(self) -> dict[str, Any] | None:
        if not self._manifest.kind:
            return None
        try:
            document = json.loads(self._manifest.read())
            _ = document["settings"].items(), int(document["partitions"]), int(document["pictures"]), document["base"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = "this is not a job file"
            raise UsageError(what, where=self._manifest.name, remedy="choose another --out") from error
        return dict(document)


def _is_ours(name: str, *, is_folder: bool) -> bool:
    if is_folder:
        return name == FOLDER
    return _PART.fullmatch(name) is not None or _TEMPORARY.fullmatch(name) is not None
