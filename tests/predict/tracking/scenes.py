"""Synthetic clips: objects of known identity as a detector would see them, and a count of the mistakes of a tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from fcos_cli.predict.tracking.bytetrack import Tracker
from fcos_cli.runtime.results import Detections

THRESHOLDS = np.array([0.5, 0.5], np.float32)


@dataclass
class Actor:
    """An object. place: (x, y) of its centre by frame. hidden: frames without detection. faint: with a low score."""

    place: Callable[[int], tuple[float, float]]
    frames: range
    size: tuple[float, float] = (30, 60)
    class_index: int = 0
    hidden: frozenset[int] = frozenset()
    faint: frozenset[int] = frozenset()


@dataclass
class Outcome:
    """What a tracker did. ids: truth → the identities it had, in order, without repetition. untracked: detections
    without identity."""

    ids: dict[int, list[int]] = field(default_factory=dict)
    rows: list[tuple[int, int, int, np.ndarray]] = field(default_factory=list)
    untracked: int = 0

    @property
    def switches(self) -> int:
        """How often an object got another identity, as in MOTA."""
        return sum(len(history) - 1 for history in self.ids.values())

    @property
    def identities(self) -> int:
        return len({identity for history in self.ids.values() for identity in history})


def frames_of(
    actors: list[Actor], *, jitter: float = 0.0, seed: int = 0
) -> Iterator[tuple[int, Detections, list[int]]]:
    """Yield number, detections in random order, and the actor of each."""
    rng = np.random.default_rng(seed)
    for number in range(max(actor.frames.stop for actor in actors)):
        rows, truth = [], []
        for index, actor in enumerate(actors):
            if number in actor.frames and number not in actor.hidden:
                (x, y), (width, height) = actor.place(number), actor.size
                box = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
                rows.append(
                    (*(box + rng.normal(0, jitter, 4)), 0.3 if number in actor.faint else 0.9, actor.class_index)
                )
                truth.append(index)
        order = rng.permutation(len(rows))
        table = np.array(rows, np.float32).reshape(-1, 6)[order]
        detections = Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))
        yield number, detections, [truth[place] for place in order]


def follow(actors: list[Actor], *, rate: int = 30, jitter: float = 0.0, every: int = 1, seed: int = 0) -> Outcome:
    """Run a tracker on the clip and compare with the truth."""
    tracker, outcome = Tracker(THRESHOLDS), Outcome()
    for number, detections, truth in frames_of(actors, jitter=jitter, seed=seed):
        if number % every:
            continue
        ids = tracker.update(detections, Fraction(number, rate))
        given = [identity for identity in ids.tolist() if identity]
        assert len(given) == len(set(given)), "two boxes of a frame have the same identity"
        for actor, identity, box in zip(truth, ids.tolist(), detections.boxes, strict=True):
            if not identity:
                outcome.untracked += 1
                continue
            history = outcome.ids.setdefault(actor, [])
            if not history or history[-1] != identity:
                history.append(identity)
            outcome.rows.append((number, actor, identity, box))
    return outcome
