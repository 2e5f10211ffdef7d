"""Where pictures with boxes go: a file per picture, a video per video, and crops if they are wanted."""

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

_LEAST = 320
"""Pixels of the longer side that a drawn picture has at least; frames keep their size."""


class AnnotatedWriter:
    """Writes answers that have their images. A video is whole when the next clip begins or the context ends.

    pictures: folder for drawn pictures and videos; crops: folder for crops; None: not wanted.
    """

    def __init__(self, classes: ClassTable, *, pictures: Path | None, crops: Path | None) -> None:
        self.classes, self.pictures, self.crops = classes, pictures, crops
        self._used: set[str] = set()
        self._clip: Clip | None = None
        self._stem = ""
        self._open = ExitStack()
        self._video: VideoWriter | None = None

    def __enter__(self) -> AnnotatedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, answer: Prediction) -> Path | None:
        """Returns the drawn picture's path, or that of the video which this frame belongs to."""
        if answer.image is None:
            return None
        if answer.moment is not None:
            return self._frame(answer, answer.moment.clip)
        stem = self._free(answer.source.stem)
        self._crops(answer, stem)
        if self.pictures is None:
            return None
        path = self.pictures / f"{stem}{'.png' if answer.source.suffix.lower() == '.png' else '.jpg'}"
        save_image(path, draw(answer.image, answer.detections, self.classes, min_side=_LEAST))
        return path

    def _frame(self, answer: Prediction, clip: Clip) -> Path | None:
        assert answer.image is not None
        assert answer.moment is not None
        if clip is not self._clip:
            self._begin(clip)
        self._crops(answer, f"{self._stem}-{answer.moment.number:06}")
        if self._video is None or self.pictures is None:
            return None
        self._video.write(draw(answer.image, answer.detections, self.classes), answer.moment.time)
        return self.pictures / f"{self._stem}.mp4"

    def _begin(self, clip: Clip) -> None:
        self._open.close()
        self._clip, self._stem = clip, self._free(safe_name(clip.source.stem) if clip.live else clip.source.stem)
        if self.pictures is not None:
            self._video = self._open.enter_context(open_video(self.pictures / f"{self._stem}.mp4", clip))
            if clip.sound:
                say(f"{clip.source}: the sound is not copied")

    def _crops(self, answer: Prediction, stem: str) -> None:
        if self.crops is not None:
            write_crops(self.crops, stem, answer, self.classes)

    def _free(self, stem: str) -> str:
        """The source's own name, numbered where two sources share one."""
        name, number = stem, 1
        while name in self._used:
            number += 1
            name = f"{stem}-{number}"
        self._used.add(name)
        return name
