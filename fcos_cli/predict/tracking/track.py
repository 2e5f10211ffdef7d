"""`fcos predict --track`: from predictions of frames to predictions with identities."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

import numpy as np
import numpy.typing as npt

from fcos_cli.data.images import IMAGE_SUFFIXES
from fcos_cli.errors import UsageError
from fcos_cli.predict.pipeline import Failure, Prediction
from fcos_cli.predict.sources.address import Address, Source, is_address
from fcos_cli.predict.sources.frames import Clip
from fcos_cli.predict.sources.video import VIDEO_SUFFIXES, is_camera
from fcos_cli.predict.tracking.bytetrack import LOW_SCORE, Tracker

Thresholds = npt.NDArray[np.float32]


def low_thresholds(thresholds: Thresholds) -> Thresholds:
    """The scores that the tracker needs, [C]: LOW_SCORE, or less if less is reported; infinity stays."""
    return np.where(np.isfinite(thresholds), np.minimum(thresholds, np.float32(LOW_SCORE)), thresholds)


def track(
    results: Iterable[Prediction | Failure], *, thresholds: Thresholds, limit: int | None = None
) -> Iterator[Prediction | Failure]:
    """Yield the results with the identities of the objects, which start over in each clip.

    results: frames in order, with all boxes above `low_thresholds`. thresholds: scores [C] from which boxes are
    reported; boxes below are reported only if they are objects seen before. limit: number of detections per frame.
    A picture becomes a Failure: one among videos does not end the run.
    """
    clip: Clip | None = None
    for result in results:
        if isinstance(result, Failure):
            yield result
            continue
        if result.moment is None:
            yield Failure(result.source, still_picture(result.source))
            continue
        if result.moment.clip is not clip:
            clip, tracker = result.moment.clip, Tracker(thresholds)
        found = result.detections
        ids = tracker.update(found, result.moment.time)
        reported = (found.scores >= thresholds[found.classes]) | (ids > 0)
        yield replace(result, detections=replace(found, ids=ids).select(reported).best(limit))


def still_picture(source: Source | str) -> UsageError:
    """The error for --track with a picture or a folder."""
    command = "ffmpeg -framerate 25 -i %06d.jpg clip.mp4"
    remedy = f"make a video of numbered frames first: {command}"
    if not isinstance(source, Address):
        path = Path(source)
        if path.suffix.lower() == ".gif":
            remedy = f"make a video of it first: ffmpeg -i {quote(str(path))} {quote(str(path.with_suffix('.mp4')))}"
        elif path.is_dir():
            remedy = f"name the videos in it, {quote(str(path / '*.mp4'))}, or make one of numbered frames: {command}"
    what = "--track follows objects through a video, and this is not a video"
    return UsageError(what, where=source, remedy=f"omit --track, or {remedy}")


def check_tracking(sources: Sequence[str], save: Sequence[Path], *, wanted: bool) -> None:
    """Raise UsageError, before anything runs, if identities cannot be given or saved as asked.

    A MOTChallenge file holds one clip. Pictures in lists and patterns become failures when they are read.
    """
    files = [file for file in save if is_mot(file)]
    if files and not wanted:
        raise UsageError("a .mot.txt file holds identities", where=files[0], remedy="add --track")
    if files and (len(sources) != 1 or not _is_clip(sources[0])):
        what = "a .mot.txt file holds one clip: there must be one source, a video, a camera or a stream"
        raise UsageError(what, where=files[0], remedy="run fcos predict once per video, or save .jsonl or .csv")
    for source in sources if wanted else ():
        if source == "-" or (not is_address(source) and _holds_pictures(Path(source))):
            raise still_picture("stdin" if source == "-" else source)


def is_mot(file: Path) -> bool:
    """Whether a file to save is one of MOTChallenge."""
    return file.name.lower().endswith(".mot.txt")


def _holds_pictures(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or path.is_dir()


def _is_clip(source: str) -> bool:
    if is_camera(source) or is_address(source):
        return True
    path = Path(source)
    return path.suffix.lower() in VIDEO_SUFFIXES and (path.exists() or not glob.has_magic(source))
