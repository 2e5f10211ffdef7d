"""Annotated output: an image per image, a video per video, and optionally crops."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from fcos_cli.atomic import check_writable
from fcos_cli.console import say
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.crops import Crop, crop_paths, crops_of, safe_name, write_crops
from fcos_cli.predict.draw import JPEG_LIMIT, draw, save_image
from fcos_cli.predict.encode import VideoWriter, open_video
from fcos_cli.predict.outputs import OutputNames, shorten
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.sources.frames import Clip, Moment

MIN_SIDE = 320
"""Smaller images are enlarged so that their longer side has this many pixels; frames keep their size."""


class AnnotatedWriter:
    """Writes predictions that carry their images. A video is complete once the next clip or an image follows, or the
    context exits.

    viz_dir: folder for annotated images and videos. crops_dir: folder for crops. None: not written. names: the names
    that are free. Raises UsageError if crops cannot be written.
    """

    def __init__(
        self, classes: ClassTable, *, viz_dir: Path | None, crops_dir: Path | None, names: OutputNames
    ) -> None:
        if crops_dir is not None:
            check_writable(crops_dir, folder=True)
        self.classes, self.viz_dir, self.crops_dir, self.names = classes, viz_dir, crops_dir, names
        self._clip: Clip | None = None
        self._clip_stem = ""
        self._video: VideoWriter | None = None
        self._open_files = ExitStack()

    def __enter__(self) -> AnnotatedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open_files.__exit__(kind, error, trace)

    def write(self, prediction: Prediction) -> Path | None:
        """Return the path of the annotated image, or of the video that the frame belongs to."""
        if prediction.image is None:
            return None
        if prediction.moment is not None:
            return self._write_frame(prediction, prediction.image, prediction.moment)
        self._finish_clip()  # an interruption after this does not lose the video
        as_png = prediction.source.suffix.lower() == ".png" or max(prediction.image.shape) > JPEG_LIMIT
        crops = self._crops(prediction)

        def paths(stem: str) -> list[Path]:
            drawn = [] if self.viz_dir is None else [self.viz_dir / f"{stem}{'.png' if as_png else '.jpg'}"]
            return [*self._crop_paths(stem, crops), *drawn]

        chosen = paths(self.names.choose(prediction.source.stem, paths))
        write_crops(prediction.image, crops, chosen[: len(crops)])
        if self.viz_dir is None:
            return None
        save_image(chosen[-1], draw(prediction.image, prediction.detections, self.classes, min_side=MIN_SIDE))
        return chosen[-1]

    def _write_frame(self, prediction: Prediction, image: npt.NDArray[np.uint8], moment: Moment) -> Path | None:
        if moment.clip is not self._clip:
            self._start_clip(moment.clip)
        crops = self._crops(prediction)
        if crops:
            stem = shorten(self._clip_stem, end=f"-{moment.number:06}")
            name = self.names.choose(stem, lambda name: self._crop_paths(name, crops))
            write_crops(image, crops, self._crop_paths(name, crops))
        if self._video is None or self.viz_dir is None:
            return None
        self._video.write(draw(image, prediction.detections, self.classes), moment.time)
        return self.viz_dir / f"{self._clip_stem}.mp4"

    def _finish_clip(self) -> None:
        self._open_files.close()
        self._clip = self._video = None

    def _start_clip(self, clip: Clip) -> None:
        self._finish_clip()
        stem = safe_name(clip.source.stem) if clip.live else clip.source.stem
        folder = self.viz_dir
        stem = self.names.choose(stem, lambda name: [] if folder is None else [folder / f"{name}.mp4"])
        self._clip, self._clip_stem = clip, stem
        if folder is not None:
            self._video = self._open_files.enter_context(open_video(folder / f"{stem}.mp4", clip))
            if clip.sound:
                say(f"{clip.source}: the sound is not copied")

    def _crops(self, prediction: Prediction) -> list[Crop]:
        return [] if self.crops_dir is None else crops_of(prediction, self.classes)

    def _crop_paths(self, stem: str, crops: list[Crop]) -> list[Path]:
        return [] if self.crops_dir is None else crop_paths(self.crops_dir, stem, crops)
