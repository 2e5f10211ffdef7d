"""Annotated output: an image per image, a video per video, and optionally crops."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fcos_cli.console import say
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.crops import safe_name, write_crops
from fcos_cli.predict.draw import draw, save_image
from fcos_cli.predict.frames import Clip
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.predict.video import VideoWriter, open_video

MIN_SIDE = 320
"""Smaller images are enlarged so that their longer side has this many pixels; frames keep their size."""


class AnnotatedWriter:
    """Writes predictions that carry their images. A video is complete once the next clip starts or the context exits.

    viz_dir: folder for annotated images and videos. crops_dir: folder for crops. None: not written.
    """

    def __init__(self, classes: ClassTable, *, viz_dir: Path | None, crops_dir: Path | None) -> None:
        self.classes, self.viz_dir, self.crops_dir = classes, viz_dir, crops_dir
        self._used_stems: set[str] = set()
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
            return self._write_frame(prediction, prediction.moment.clip)
        stem = self._unique_stem(prediction.source.stem)
        self._write_crops(prediction, stem)
        if self.viz_dir is None:
            return None
        path = self.viz_dir / f"{stem}{'.png' if prediction.source.suffix.lower() == '.png' else '.jpg'}"
        save_image(path, draw(prediction.image, prediction.detections, self.classes, min_side=MIN_SIDE))
        return path

    def _write_frame(self, prediction: Prediction, clip: Clip) -> Path | None:
        assert prediction.image is not None
        assert prediction.moment is not None
        if clip is not self._clip:
            self._start_clip(clip)
        self._write_crops(prediction, f"{self._clip_stem}-{prediction.moment.number:06}")
        if self._video is None or self.viz_dir is None:
            return None
        self._video.write(draw(prediction.image, prediction.detections, self.classes), prediction.moment.time)
        return self.viz_dir / f"{self._clip_stem}.mp4"

    def _start_clip(self, clip: Clip) -> None:
        self._open_files.close()
        stem = safe_name(clip.source.stem) if clip.live else clip.source.stem
        self._clip, self._clip_stem = clip, self._unique_stem(stem)
        if self.viz_dir is not None:
            self._video = self._open_files.enter_context(open_video(self.viz_dir / f"{self._clip_stem}.mp4", clip))
            if clip.sound:
                say(f"{clip.source}: the sound is not copied")

    def _write_crops(self, prediction: Prediction, stem: str) -> None:
        if self.crops_dir is not None:
            write_crops(self.crops_dir, stem, prediction, self.classes)

    def _unique_stem(self, stem: str) -> str:
        """Return `stem`, with a number appended if another source already uses it."""
        name, number = stem, 1
        while name in self._used_stems:
            number += 1
            name = f"{stem}-{number}"
        self._used_stems.add(name)
        return name
