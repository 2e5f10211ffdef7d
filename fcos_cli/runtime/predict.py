"""Pictures → batches → detections: the one pipeline behind `predict`, `eval` and the validation of a training.

A batch is the unit of work. Threads open and resize the pictures of the next batches while the network is busy with
this one; at most `workers` + 1 batches are in flight, so memory does not grow with the number of pictures. One
unreadable picture costs its place, not the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Geometry, ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.runtime.detector import Detections, Detector, to_source


@dataclass(frozen=True)
class Prediction:
    """What was found in one picture.

    width, height: pixels of the picture as shown. image: uint8 [height, width, 3] RGB where it was asked for.
    """

    source: Path
    width: int
    height: int
    detections: Detections
    image: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Failure:
    """A picture that could not be read, and why."""

    source: Path
    error: FcosError


@dataclass(frozen=True)
class _Batch:
    """`pictures` holds, in input order, what opening each file gave; `pixels` is the network input of the good ones."""

    pictures: list[tuple[Path, npt.NDArray[np.uint8] | None] | Failure]
    pixels: npt.NDArray[np.uint8] | None
    geometries: list[Geometry]


def predict(
    detector: Detector,
    paths: Iterable[Path],
    *,
    batch: int = 1,
    workers: int = 1,
    keep_images: bool = False,
    threshold: float | npt.NDArray[np.float32] | None = None,
) -> Iterator[Prediction | Failure]:
    """One answer per path, in the order of `paths`, which is read lazily.

    batch: pictures per call of the network. workers: threads that open and resize ahead of it. keep_images: give each
    `Prediction` its pixels (for drawing). threshold: lowest score to report, one for all or one per class [C]; None
    reports all that the detector returns. Raises UsageError; errors of the detector itself are not caught.
    """
    if batch < 1 or workers < 1:
        raise UsageError(f"batch and workers must be at least 1, not {batch} and {workers}")
    groups = _batches(paths, batch)
    return _predict(detector, groups, workers=workers, keep_images=keep_images, threshold=threshold)


def _batches(paths: Iterable[Path], size: int) -> Iterator[tuple[Path, ...]]:
    remaining = iter(paths)
    while group := tuple(islice(remaining, size)):
        yield group


def _predict(
    detector: Detector,
    groups: Iterator[tuple[Path, ...]],
    *,
    workers: int,
    keep_images: bool,
    threshold: float | npt.NDArray[np.float32] | None,
) -> Iterator[Prediction | Failure]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fcos-open")
    ahead: deque[Future[_Batch]] = deque()
    try:
        while True:
            while len(ahead) < workers + 1 and (group := next(groups, None)):
                ahead.append(pool.submit(_prepare, group, detector.facts.resize, keep_images=keep_images))
            if not ahead:
                return
            yield from _answers(detector, ahead.popleft().result(), threshold)
    finally:  # also when the caller stops early
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(paths: tuple[Path, ...], rule: ResizeRule, *, keep_images: bool) -> _Batch:
    pictures: list[tuple[Path, npt.NDArray[np.uint8] | None] | Failure] = []
    opened: list[npt.NDArray[np.uint8]] = []
    for path in paths:
        try:
            image = open_image(path)
        except FcosError as error:
            pictures.append(Failure(path, error))
        except OSError as error:
            pictures.append(Failure(path, DataError(f"cannot read the picture: {error.strerror or error}", where=path)))
        else:
            opened.append(image)
            pictures.append((path, image if keep_images else None))
    pixels, geometries = rule.batch(opened) if opened else (None, [])
    return _Batch(pictures, pixels, geometries)


def _answers(
    detector: Detector, ready: _Batch, threshold: float | npt.NDArray[np.float32] | None
) -> Iterator[Prediction | Failure]:
    found: Iterator[tuple[Detections, Geometry]] = iter(())
    if ready.pixels is not None:
        found = zip(to_source(detector(ready.pixels), ready.geometries), ready.geometries, strict=True)
    for picture in ready.pictures:
        if isinstance(picture, Failure):
            yield picture
            continue
        path, image = picture
        detections, geometry = next(found)
        if threshold is not None:
            detections = detections.above(threshold)
        yield Prediction(path, *geometry.source, detections, image)
