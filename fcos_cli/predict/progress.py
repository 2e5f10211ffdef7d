"""Progress output on stderr: a line per image, a bar and a line per video, and errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fcos_cli.console import print_error, progress, say
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.pipeline import Failure, Prediction
from fcos_cli.predict.sources.frames import Clip, Moment
from fcos_cli.runtime.results import Detections

MAX_IMAGE_LINES = 20
"""Images reported on a line of their own; later ones are only counted."""
SECONDS_PER_LINE = 30
"""Between two lines that count them."""
MAX_ERRORS = 20
"""Errors that are printed; later ones are only counted."""
MAX_NOTES = 3
"""Files reported on a line of their own because they have more pages or frames; later ones are only counted."""
FRAMES_PER_LINE = 100
"""Frames per progress line if stderr is not a terminal."""


class ProgressReporter:
    """Reports predictions and failures on stderr. On exit it reports the last clip and the totals."""

    def __init__(self, classes: ClassTable) -> None:
        self.classes = classes
        self.total = self.failed = self.frames = self.noted = 0
        self._latest_line = 0.0
        self._bar = ExitStack()
        self._update_bar: Callable[..., None] = _no_update
        self._clip: Clip | None = None
        self._clip_frames = 0
        self._frames_with_class: Counter[int] = Counter()
        self._identities: dict[int, int] = {}
        self._clip_path: Path | None = None

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if kind is None:
            self._finish_clip()
            if self.noted > MAX_NOTES:
                say(f"of {self.noted} files only the first page or frame was used")
            if self.total and (self.total - self.frames > MAX_IMAGE_LINES or self.failed):
                say(f"{self._processed()} processed, {self.failed} could not be read")

    def on_failure(self, failure: Failure) -> None:
        self.total += 1
        self.failed += 1
        if self.failed <= MAX_ERRORS:
            print_error(failure.error)
        elif self.failed == MAX_ERRORS + 1:
            say("further errors are only counted; --save FILE.jsonl has all of them")

    def on_prediction(self, prediction: Prediction, path: Path | None) -> None:
        """path: the annotated image or video, None if none is written."""
        self.total += 1
        if prediction.moment is not None:
            self._on_frame(prediction.moment, prediction.detections, path)
            return
        self._finish_clip()
        images = self.total - self.frames
        if images <= MAX_IMAGE_LINES:
            self._say(f"{prediction.source}: {summary(prediction.detections, self.classes)}{_arrow(path)}")
        elif time.monotonic() - self._latest_line >= SECONDS_PER_LINE:
            self._say(f"{images:,} images so far")
        if prediction.note is not None:
            self.noted += 1
            if self.noted <= MAX_NOTES:
                say(f"{prediction.source}: {prediction.note}")

    def _say(self, text: str) -> None:
        say(text)
        self._latest_line = time.monotonic()

    def _on_frame(self, moment: Moment, detections: Detections, path: Path | None) -> None:
        if moment.clip is not self._clip:
            self._finish_clip()
            self._start_clip(moment.clip, path)
        self.frames += 1
        self._clip_frames += 1
        self._frames_with_class.update(set(detections.classes.tolist()))
        if detections.ids is not None:
            self._identities.update(zip(detections.ids.tolist(), detections.classes.tolist(), strict=True))
        self._update_bar(self._clip_frames, note=f"{float(moment.time):.1f} s")

    def _start_clip(self, clip: Clip, path: Path | None) -> None:
        self._clip, self._clip_path = clip, path
        bar = progress(str(clip.source), total=clip.total, every=FRAMES_PER_LINE)
        self._update_bar = self._bar.enter_context(bar)

    def _finish_clip(self) -> None:
        """Close the bar and report the clip, if there is one."""
        self._bar.close()
        if self._clip is not None:
            parts = [f"{self.classes.names[index]} in {n}" for index, n in self._frames_with_class.most_common()]
            found = ", ".join(parts) or "no detections"
            self._identities.pop(0, None)
            if self._identities:
                counts = Counter(self._identities.values()).most_common()
                found += f"; tracked: {', '.join(f'{n} {self.classes.names[index]}' for index, n in counts)}"
            say(f"{self._clip.source}: {_number(self._clip_frames, 'frame')}, {found}{_arrow(self._clip_path)}")
        self._clip, self._clip_frames = None, 0
        self._frames_with_class.clear()
        self._identities.clear()

    def _processed(self) -> str:
        images = self.total - self.failed - self.frames
        parts = [_number(images, "image")] if images or not self.frames else []
        return " and ".join([*parts, *([_number(self.frames, "frame")] if self.frames else [])])


def summary(detections: Detections, classes: ClassTable) -> str:
    """`2 cat (0.91, 0.64), 1 person (0.88)`, most frequent class first."""
    counts = Counter(detections.classes.tolist())
    if not counts:
        return "no detections"
    parts = []
    for index, count in counts.most_common():
        scores = sorted(detections.scores[detections.classes == index].tolist(), reverse=True)
        listed = ", ".join(f"{score:.2f}" for score in scores[:5]) + (", …" if count > 5 else "")
        parts.append(f"{count} {classes.names[index]} ({listed})")
    return ", ".join(parts)


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _arrow(path: Path | None) -> str:
    return f" → {path}" if path else ""


def _no_update(*args: object, **kwargs: object) -> None: ...
