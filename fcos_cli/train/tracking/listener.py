"""The events of a run, and who may listen to them: the terminal, the report, experiment trackers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fcos_cli.evaluate.coco import CocoResult
from fcos_cli.runtime.facts import Facts
from fcos_cli.runtime.results import Detections

Row = dict[str, Any]
"""A row of metrics.jsonl."""


class Evaluation(NamedTuple):
    """What a validation found.

    facts: of the weights, with their thresholds. detections: of each val image, in order. best: whether these are the
    best weights so far.
    """

    facts: Facts
    result: CocoResult
    detections: Sequence[Detections]
    best: bool


class Listener:
    """Receives the events of a run, in the main process. This one ignores them; others override some methods."""

    def begun(self) -> None:
        """Called once, for a resumed run too, when the run's folder is there and nothing keeps it from starting."""

    def note(self, text: str) -> None:
        """Called with a message of one line."""

    def step(self, row: Row) -> None:
        """Called after each step. `row` is that of metrics.jsonl plus `steps` (total) and `seconds_left`."""

    def validating(self, done: int, total: int) -> None:
        """Called when `done` of `total` validation images have been processed."""

    def resumed(self, evaluation: Evaluation) -> None:
        """Called with the best weights of an earlier session, if the first validation of this one finds none better."""

    def validated(self, row: Row, evaluation: Evaluation) -> None:
        """Called after validation with the row of metrics.jsonl."""

    def close(self) -> None:
        """Called once, when the run ends or stops."""


class Listeners(Listener):
    """Passes every event on to several listeners, in order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def begun(self) -> None:
        for listener in self.listeners:
            listener.begun()

    def note(self, text: str) -> None:
        for listener in self.listeners:
            listener.note(text)

    def step(self, row: Row) -> None:
        for listener in self.listeners:
            listener.step(row)

    def validating(self, done: int, total: int) -> None:
        for listener in self.listeners:
            listener.validating(done, total)

    def resumed(self, evaluation: Evaluation) -> None:
        for listener in self.listeners:
            listener.resumed(evaluation)

    def validated(self, row: Row, evaluation: Evaluation) -> None:
        for listener in self.listeners:
            listener.validated(row, evaluation)

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
