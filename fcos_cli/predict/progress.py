"""What people read while predictions run: a line per picture, a bar and a line per video, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fcos_cli.console import print_error, progress, say
from fcos_cli.model.classes import ClassTable
from fcos_cli.predict.frames import Clip, Moment
from fcos_cli.predict.pipeline import Failure, Prediction
from fcos_cli.runtime.results import Detections

MAX_LINES = 20
"""Pictures that get a line of their own; the rest is counted."""
FRAMES_PER_LINE = 100
"""Frames per line where there is no terminal for a bar."""


class ProgressReporter:
    """Tells of every answer on stderr; at the end of the context of the last clip and of all."""

    def __init__(self, classes: ClassTable) -> None:
        self.classes = classes
        self.seen = self.failed = self.frames = 0
        self._clip: Clip | None = None
        self._bar = ExitStack()
        self._update: Callable[..., None] = _nothing
        self._count = 0
        self._in: Counter[int] = Counter()
        self._path: Path | None = None

    def __enter__(self) -> ProgressReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if kind is None:
            self._end()
            if self.seen and (self.seen - self.frames > MAX_LINES or self.failed):
                say(f"{self._done()} done, {self.failed} could not be read")

    def on_failure(self, answer: Failure) -> None:
        self.seen += 1
        self.failed += 1
        print_error(answer.error)

    def on_prediction(self, answer: Prediction, path: Path | None) -> None:
        """path: what was drawn."""
        self.seen += 1
        if answer.moment is not None:
            self._frame(answer.moment, answer.detections, path)
            return
        self._end()
        if self.seen <= MAX_LINES:
            say(f"{answer.source}: {summary(answer.detections, self.classes)}{_arrow(path)}")

    def _frame(self, moment: Moment, found: Detections, path: Path | None) -> None:
        if moment.clip is not self._clip:
            self._end()
            self._clip, self._path = moment.clip, path
            bar = progress(str(moment.clip.source), total=moment.clip.total, every=FRAMES_PER_LINE)
            self._update = self._bar.enter_context(bar)
        self.frames += 1
        self._count += 1
        self._in.update(set(found.classes.tolist()))
        self._update(self._count, note=f"{float(moment.time):.1f} s")

    def _end(self) -> None:
        """The clip is over: its line."""
        self._bar.close()
        if self._clip is not None:
            parts = [f"{self.classes.names[index]} in {count}" for index, count in self._in.most_common()]
            say(f"{self._clip.source}: {self._count} frames, {', '.join(parts) or 'nothing found'}{_arrow(self._path)}")
        self._clip, self._count = None, 0
        self._in.clear()

    def _done(self) -> str:
        pictures = self.seen - self.failed - self.frames
        parts = [f"{pictures} pictures"] if pictures or not self.frames else []
        return " and ".join([*parts, *([f"{self.frames} frames"] if self.frames else [])])


def summary(detections: Detections, classes: ClassTable) -> str:
    """`2 cat (0.91, 0.64), 1 person (0.88)`, most frequent first."""
    counts = Counter(detections.classes.tolist())
    if not counts:
        return "nothing found"
    parts = []
    for index, count in counts.most_common():
        best = sorted(detections.scores[detections.classes == index].tolist(), reverse=True)
        listed = ", ".join(f"{score:.2f}" for score in best[:5]) + (", …" if count > 5 else "")
        parts.append(f"{count} {classes.names[index]} ({listed})")
    return ", ".join(parts)


def _arrow(path: Path | None) -> str:
    return f" → {path}" if path else ""


def _nothing(*args: object, **named: object) -> None: ...
