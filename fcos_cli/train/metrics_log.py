"""What a run tells: metrics.jsonl for programs, TensorBoard where installed, and a listener for people."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fcos_cli.atomic import atomic_write

Row = dict[str, Any]


class Listener(Protocol):
    """Whoever watches a run: a terminal, a log, a test."""

    def note(self, text: str) -> None:
        """Something worth one line."""

    def step(self, row: Row) -> None:
        """After each step; `row` as in metrics.jsonl plus `steps` in all and `seconds_left`."""

    def validating(self, done: int, total: int) -> None:
        """`done` of `total` validation pictures are through."""

    def validated(self, row: Row) -> None:
        """After a validation; `row` as in metrics.jsonl."""


class SilentListener:
    """A listener for the processes that do not speak, and for tests."""

    def note(self, text: str) -> None: ...
    def step(self, row: Row) -> None: ...
    def validating(self, done: int, total: int) -> None: ...
    def validated(self, row: Row) -> None: ...


class MetricsFile:
    """`metrics.jsonl`: one JSON object a line, `kind` train or val. Rows after a resumed step are dropped first."""

    def __init__(self, path: Path, *, resume_at: int) -> None:
        kept = []
        if resume_at and path.is_file():
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [row for row in rows if row["step"] <= resume_at]
        with atomic_write(path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self.path = path
        self.board = _tensorboard(path.parent)

    def add(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for key, value in row.items():
                if isinstance(value, int | float) and key not in ("step", "epoch"):
                    self.board.add_scalar(f"{row['kind']}/{key}", value, row["step"])

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def _tensorboard(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(folder))


class Meter:
    """Means of the loss terms since the last reading, and the pace of the run."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0
        self.pictures = 0
        self.started = time.monotonic()

    def add(self, terms: dict[str, float], *, pictures: int) -> None:
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.pictures += pictures

    @property
    def seconds_per_step(self) -> float:
        return (time.monotonic() - self.started) / max(1, self.steps)

    def read(self) -> Row:
        """Mean of each term and images per second (of this process)."""
        steps = max(1, self.steps)
        pace = self.pictures / max(1e-9, time.monotonic() - self.started)
        return {**{name: round(total / steps, 5) for name, total in self.sums.items()}, "images_per_s": round(pace, 2)}
