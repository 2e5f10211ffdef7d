"""Write predictions as a data set, picture by picture, and say at the end which pictures to look at first."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from fcos_cli.atomic import atomic_write
from fcos_cli.console import say, warn
from fcos_cli.errors import DataError, FcosError, UsageError
from fcos_cli.predict.labels.pictures import Content, Pictures, content_of, stem_of
from fcos_cli.predict.labels.plan import LabelPlan
from fcos_cli.predict.labels.review import REVIEW, Limits, Review
from fcos_cli.predict.labels.target import LabelSet, hold
from fcos_cli.predict.pipeline import Prediction
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections

MIN_SIDE = 0.01
"""Pixels; a smaller box would not survive the rounding of the formats."""


class LabelWriter:
    """Writes predictions that carry their images and all their detections.

    facts: of the detector. limits: the thresholds of labels, one or one per class [C]. most: number of labels per
    picture; None = all. every: step of the frames. However the context is left, the data set is complete for the
    pictures written until then. Raises UsageError if the format cannot hold a class name, or, in the context, if
    another run adds to the data set.
    """

    def __init__(
        self, plan: LabelPlan, facts: Facts, *, limits: Limits, most: int | None = None, every: int = 1
    ) -> None:
        self.plan, self.limits, self.most = plan, limits, most
        plan.target.begin(facts.classes)
        self._resize = facts.resize
        self._review = Review(facts.classes, limits, every=every)
        self._labels = self._skipped = 0
        self._held = ExitStack()

    def __enter__(self) -> LabelWriter:
        folder, target = self.plan.folder, self.plan.target
        with ExitStack() as held:
            held.enter_context(hold(folder))
            listed = _listed(target)
            self._pictures = Pictures((folder, target.images), target.taken(), listed=listed)
            self._left = "whose labels are left alone" if listed is not None else "perhaps with labels"
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            if kind is None:
                self._finish()
            else:
                with suppress(FcosError, OSError):  # the first error is the one to show
                    self._finish()

    def write(self, prediction: Prediction) -> Path | None:
        """Add a picture, and return its path. One that is already in the data set is left alone, and None is returned.

        One that lies where new pictures go, but is in no split (from a killed run, or not labelled yet), is added as it
        is.
        """
        content = content_of(prediction)
        there = self._pictures.same(content.data)
        if there is not None:
            self._skipped += 1
            say(f"{prediction.source}: already in the data set as {there}, {self._left}")
            return None
        labels = _usable(prediction.detections.above(np.asarray(self.limits, np.float32)).best(self.most))
        target, size = self.plan.target, (prediction.width, prediction.height)
        picture = self._pictures.unlisted(content.data, target.images)
        if picture is not None and target.takes(picture):
            target.add(picture, size, labels)
        else:
            picture = target.images / f"{self._pictures.choose(stem_of(prediction))}{content.suffix}"
            self._store(picture, content, size, labels)
        self._pictures.add(picture, len(content.data))
        self._labels += len(labels)
        scale = self._resize.geometry(*size).resized[0] / prediction.width
        self._review.add(_name(picture, self.plan.folder), prediction, labels, scale=scale)
        return picture

    def _store(self, picture: Path, content: Content, size: tuple[int, int], labels: Detections) -> None:
        """Write the labels, then let the picture appear: one without labels would count as background."""
        if self.plan.link and content.file is not None:
            with _link(picture, content.file):
                self.plan.target.add(picture, size, labels)
            return
        with atomic_write(picture, binary=True) as stream:
            stream.write(content.data)
            stream.flush()
            os.fsync(stream.fileno())  # what takes time or fails on a full disk is done before the labels are there
            self.plan.target.add(picture, size, labels)

    def _finish(self) -> None:
        self.plan.target.end()
        rows = self._review.ordered()
        if rows:
            self._review.write(self.plan.folder / REVIEW, rows)
        elif not self._skipped:
            return
        there = f", {self._skipped} already there" if self._skipped else ""
        images = "1 image" if len(rows) == 1 else f"{len(rows)} images"
        labels = "1 label" if self._labels == 1 else f"{self._labels} labels"
        first = f"; look at {rows[0].picture} first ({REVIEW})" if rows and rows[0].score else ""
        say(f"{self.plan.folder}: {images} with {labels} added{there}{first}")


@contextmanager
def _link(picture: Path, file: Path) -> Iterator[None]:
    """Let `picture` appear as a link to `file` if the block succeeds. Raises UsageError, before it, if that fails."""
    temporary, made = picture.with_name(f".{secrets.token_hex(8)}.tmp"), not picture.parent.exists()
    picture.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.symlink_to(file.resolve())
    except OSError as error:
        if made:
            picture.parent.rmdir()
        what = f"links cannot be made here ({error.strerror})"
        raise UsageError(what, where=picture, remedy="omit --link") from error
    try:
        yield
        temporary.replace(picture)
    finally:
        temporary.unlink(missing_ok=True)


def _listed(target: LabelSet) -> set[Path] | None:
    """The pictures that are in a split; None if one cannot be read, since its pictures must not be added again."""
    try:
        return set(target.listed())
    except DataError as error:
        warn(f"{error.brief}: pictures already in the data set are therefore not added")
        return None


def _usable(labels: Detections) -> Detections:
    """The labels without empty boxes, which no reader accepts."""
    return labels.select((labels.boxes[:, 2:] - labels.boxes[:, :2]).min(axis=1) >= MIN_SIDE)


def _name(picture: Path, folder: Path) -> str:
    return picture.relative_to(folder).as_posix() if picture.is_relative_to(folder) else str(picture)
