"""Pictures → batches → detections: the one pipeline behind `predict`, `eval` and the validation of a training.

A batch is the unit of work. Threads open and resize the pictures of the next batches while the network is busy with
this one; at most `workers` + 1 batches are in flight, so memory does not grow with the number of pictures. One
unreadable picture costs its place, not the run. Frames of videos go the same way; with tiles, a picture is a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Geometry, Pixels, ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.predict.frames import Frame, Moment
from fcos_cli.predict.tiles import Tiling, detect_in_tiles
from fcos_cli.runtime.detector import Detector, detect_batch
from fcos_cli.runtime.results import Detections


@dataclass(frozen=True)
class Prediction:
    """What was found in one picture.

    width, height: pixels of the picture as shown. image: uint8 [height, width, 3] RGB where it was asked for.
    moment: of a frame of a video or a camera, where it stands in it.
    """

    source: Path
    width: int
    height: int
    detections: Detections
    image: npt.NDArray[np.uint8] | None = None
    moment: Moment | None = None


@dataclass(frozen=True)
class Failure:
    """A source, a picture or a part of a video that could not be read, and why."""

    source: Path
    error: FcosError


Input = Path | Frame | Failure
"""What can be asked about: a picture file, a picture in memory, or what failed already and keeps its place."""


@dataclass(frozen=True)
class _Picture:
    """image: None where it is not needed any more."""

    source: Path
    size: tuple[int, int]
    image: npt.NDArray[np.uint8] | None
    moment: Moment | None


@dataclass(frozen=True)
class _Batch:
    """`pictures` holds, in input order, what opening each one gave; `pixels` is the network input of the good ones,
    None where there is none or tiles are to be cut."""

    pictures: list[_Picture | Failure]
    pixels: Pixels | None
    geometries: list[Geometry]


@dataclass(frozen=True)
class _Wishes:
    batch: int
    keep_images: bool
    threshold: float | npt.NDArray[np.float32] | None
    tiling: Tiling | None


def predict(
    detector: Detector,
    inputs: Iterable[Input],
    *,
    batch: int = 1,
    workers: int = 1,
    keep_images: bool = False,
    threshold: float | npt.NDArray[np.float32] | None = None,
    tiling: Tiling | None = None,
) -> Iterator[Prediction | Failure]:
    """One answer per input (a path, a frame, or a failure that is passed on), in their order; they are read lazily.

    batch: pictures per call of the network; tiles, where a tiling is given. workers: threads that open and resize ahead
    of it. keep_images: give each `Prediction` its pixels (for drawing). threshold: lowest score to report, one for all
    or one per class [C]; None reports all that the detector returns. Raises UsageError; errors of the detector itself
    are not caught.
    """
    if batch < 1 or workers < 1:
        raise UsageError(f"batch and workers must be at least 1, not {batch} and {workers}")
    wishes = _Wishes(batch, keep_images, threshold, tiling)
    return _predict(detector, _groups(inputs, 1 if tiling else batch), wishes, workers=workers)


def _groups(inputs: Iterable[Input], size: int) -> Iterator[tuple[Input, ...]]:
    remaining = iter(inputs)
    while group := tuple(islice(remaining, size)):
        yield group


def _predict(
    detector: Detector, groups: Iterator[tuple[Input, ...]], wishes: _Wishes, *, workers: int
) -> Iterator[Prediction | Failure]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fcos-open")
    flying: deque[Future[_Batch]] = deque()
    try:
        while True:
            while len(flying) < workers + 1 and (group := next(groups, None)):
                flying.append(pool.submit(_prepare, group, detector.facts.resize, wishes))
            if not flying:
                return
            yield from _answers(detector, flying.popleft().result(), wishes)
    finally:  # also when the caller stops early
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(inputs: tuple[Input, ...], rule: ResizeRule, wishes: _Wishes) -> _Batch:
    pictures: list[_Picture | Failure] = []
    opened: list[npt.NDArray[np.uint8]] = []
    for one in inputs:
        picture = one if isinstance(one, Failure) else _open(one if isinstance(one, Frame) else Frame(one, one))
        if isinstance(picture, _Picture) and picture.image is not None:
            opened.append(picture.image)
            if not wishes.keep_images and not wishes.tiling:
                picture = replace(picture, image=None)
        pictures.append(picture)
    if not opened or wishes.tiling:
        return _Batch(pictures, None, [])
    return _Batch(pictures, *rule.batch(opened))


def _open(frame: Frame) -> _Picture | Failure:
    try:
        image = frame.data if isinstance(frame.data, np.ndarray) else open_image(frame.data)
    except FcosError as error:
        error.where = str(frame.source)
        return Failure(frame.source, error)
    except OSError as error:
        what = f"cannot read the picture: {error.strerror or error}"
        return Failure(frame.source, DataError(what, where=frame.source))
    return _Picture(frame.source, image.shape[1::-1], image, frame.moment)


def _answers(detector: Detector, ready: _Batch, wishes: _Wishes) -> Iterator[Prediction | Failure]:
    found: Iterator[Detections] = iter(())
    if ready.pixels is not None:
        found = iter(detect_batch(detector, ready.pixels, ready.geometries))
    for picture in ready.pictures:
        if isinstance(picture, Failure):
            yield picture
            continue
        if wishes.tiling and picture.image is not None:
            detections = detect_in_tiles(
                detector, picture.image, wishes.tiling, batch=wishes.batch, threshold=wishes.threshold
            )
        else:
            detections = next(found)
            if wishes.threshold is not None:
                detections = detections.above(wishes.threshold)
        image = picture.image if wishes.keep_images else None
        yield Prediction(picture.source, *picture.size, detections, image, picture.moment)
