"""Images → batches → detections: the pipeline behind `predict`, `eval` and validation during training.

Threads open and resize the images of the next batches while the network runs on the current one. At most `workers` + 1
batches are in flight, so memory does not grow with the number of images. An unreadable image becomes a Failure and does
not stop the run. Video frames are handled the same way. With tiling, each image is a batch of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcos_cli.data.geometry import Geometry, Pixels, ResizeRule
from fcos_cli.data.images import ReadImage, read_image
from fcos_cli.data.tiling import Tiling
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.predict.sources.address import Source
from fcos_cli.predict.sources.frames import Frame, Moment
from fcos_cli.predict.tiles import detect_in_tiles
from fcos_cli.runtime.detector import Detector, detect_batch
from fcos_cli.runtime.results import Detections
from fcos_cli.threads import thread_pool


@dataclass(frozen=True)
class Prediction:
    """The detections of one image.

    width, height: size of the upright image in pixels. image: uint8 [height, width, 3] RGB, with `keep_images` only.
    moment: position in the video or camera stream, for frames only. note: says what else the file holds, see
    `read_image`. whole: with tiles, what is found without them, above no threshold; None if the image is one tile.
    """

    source: Source
    width: int
    height: int
    detections: Detections
    image: npt.NDArray[np.uint8] | None = None
    moment: Moment | None = None
    note: str | None = None
    whole: Detections | None = None


@dataclass(frozen=True)
class Failure:
    """A source, an image or a part of a video that could not be read, and the error."""

    source: Source
    error: FcosError


Input = Path | Frame | Failure
"""An image file, an image in memory, or an earlier failure, which is passed on in its place."""


@dataclass(frozen=True)
class _OpenedImage:
    """image: None once it is no longer needed."""

    source: Source
    size: tuple[int, int]
    image: npt.NDArray[np.uint8] | None
    moment: Moment | None
    note: str | None


@dataclass(frozen=True)
class _Batch:
    """images: one entry per input, in order. pixels: network input of the images that could be opened; None if there
    are none, or with tiling."""

    images: list[_OpenedImage | Failure]
    pixels: Pixels | None
    geometries: list[Geometry]


@dataclass(frozen=True)
class _Options:
    batch_size: int
    keep_images: bool
    threshold: float | npt.NDArray[np.float32] | None
    tiling: Tiling | None
    limit: int | None


def predict(
    detector: Detector,
    inputs: Iterable[Input],
    *,
    batch: int = 1,
    workers: int = 1,
    keep_images: bool = False,
    threshold: float | npt.NDArray[np.float32] | None = None,
    tiling: Tiling | None = None,
    limit: int | None = None,
    is_ready: Callable[[], bool] = lambda: True,
) -> Iterator[Prediction | Failure]:
    """Yield one result per input, in order. Inputs are paths, frames or failures (passed on), and are read lazily.

    batch: images per network call, or tiles if `tiling` is given. workers: threads that open and resize images ahead of
    the network. keep_images: keep the pixels in each `Prediction` (for drawing). threshold: lowest score to report, a
    single value or one per class [C]; None reports everything the detector returns. limit: number of detections per
    image, the best above the threshold; None = all. is_ready: whether the next input is there without waiting; while it
    is not, results come first. Raises UsageError if batch or workers is below 1. Errors of the detector are not caught.
    """
    if batch < 1 or workers < 1:
        raise UsageError(f"batch and workers must be at least 1, not {batch} and {workers}")
    options = _Options(batch, keep_images, threshold, tiling, limit)
    return _predict(detector, _chunks(inputs, 1 if tiling else batch), options, workers=workers, is_ready=is_ready)


def _chunks(inputs: Iterable[Input], size: int) -> Iterator[tuple[Input, ...]]:
    remaining = iter(inputs)
    while chunk := tuple(islice(remaining, size)):
        yield chunk


def _predict(
    detector: Detector,
    chunks: Iterator[tuple[Input, ...]],
    options: _Options,
    *,
    workers: int,
    is_ready: Callable[[], bool],
) -> Iterator[Prediction | Failure]:
    with thread_pool(workers, name="fcos-open") as pool:
        pending: deque[Future[_Batch]] = deque()
        while True:
            while len(pending) < workers + 1 and (not pending or is_ready()) and (chunk := next(chunks, None)):
                pending.append(pool.submit(_prepare, chunk, detector.facts.resize, options))
            if not pending:
                return
            yield from _detect(detector, pending.popleft().result(), options)


def _prepare(inputs: tuple[Input, ...], rule: ResizeRule, options: _Options) -> _Batch:
    images: list[_OpenedImage | Failure] = []
    arrays: list[npt.NDArray[np.uint8]] = []
    for item in inputs:
        opened = item if isinstance(item, Failure) else _open(item if isinstance(item, Frame) else Frame(item, item))
        if isinstance(opened, _OpenedImage) and opened.image is not None:
            arrays.append(opened.image)
            if not options.keep_images and not options.tiling:
                opened = replace(opened, image=None)
        images.append(opened)
    if not arrays or options.tiling:
        return _Batch(images, None, [])
    return _Batch(images, *rule.batch(arrays))


def _open(frame: Frame) -> _OpenedImage | Failure:
    try:
        image, note = ReadImage(frame.data, None) if isinstance(frame.data, np.ndarray) else read_image(frame.data)
    except FcosError as error:
        error.where = str(frame.source)
        return Failure(frame.source, error)
    except OSError as error:
        what = f"cannot read the image: {error.strerror or error}"
        return Failure(frame.source, DataError(what, where=frame.source))
    return _OpenedImage(frame.source, image.shape[1::-1], image, frame.moment, note)


def _detect(detector: Detector, batch: _Batch, options: _Options) -> Iterator[Prediction | Failure]:
    batch_detections: Iterator[Detections] = iter(())
    if batch.pixels is not None:
        batch_detections = iter(detect_batch(detector, batch.pixels, batch.geometries))
    for opened in batch.images:
        if isinstance(opened, Failure):
            yield opened
            continue
        whole = None
        if options.tiling and opened.image is not None:
            detections, whole = detect_in_tiles(
                detector, opened.image, options.tiling, batch=options.batch_size, threshold=options.threshold
            )
        else:
            detections = next(batch_detections)
            if options.threshold is not None:
                detections = detections.above(options.threshold)
        image = opened.image if options.keep_images else None
        found = detections.best(options.limit)
        yield Prediction(opened.source, *opened.size, found, image, opened.moment, opened.note, whole)
