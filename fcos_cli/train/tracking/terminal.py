"""Training progress in a terminal: a progress bar, or plain lines if the output is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from fcos_cli.console import progress, say
from fcos_cli.train.tracking.listener import Evaluation, Listener, Row

PLAIN_EVERY = 50
"""Steps between two plain lines of output."""


class TerminalReporter(Listener):
    """The Listener of `fcos train`."""

    def __init__(self, *, interactive: bool | None = None) -> None:
        self.interactive = sys.stderr.isatty() if interactive is None else interactive
        self.stack = ExitStack()
        self.update: Callable[..., None] | None = None

    def close(self) -> None:
        """Remove the progress bar, so that the next line of output stands alone."""
        self.stack.close()
        self.update = None

    def note(self, text: str) -> None:
        self.close()
        say(text)

    def step(self, row: Row) -> None:
        if self.interactive:
            self._bar("training", row["step"], row["steps"], note=format_step(row))
        elif row["step"] % PLAIN_EVERY == 0 or row["step"] == row["steps"]:
            say(f"step {row['step']}/{row['steps']} epoch {row['epoch']} {format_step(row)}")

    def validating(self, done: int, total: int) -> None:
        if self.interactive:
            if done == 1:
                self.close()
            self._bar("validating", done, total)

    def validated(self, row: Row, evaluation: Evaluation) -> None:  # noqa: ARG002 (the interface)
        self.close()
        if row["AP"] < 0:
            say(f"epoch {row['epoch']} val without boxes: no AP")
            return
        figures = " ".join(f"{name} {row[name]:.3f}" for name in ("AP", "AP50", "AP75"))
        say(f"epoch {row['epoch']} val {figures} in {row['seconds']:.0f} s{' (best so far)' if row['best'] else ''}")

    def _bar(self, task: str, done: int, total: int, *, note: str = "") -> None:
        if self.update is None:
            self.update = self.stack.enter_context(progress(task, total=total))
        self.update(done, total=total, note=note)


def format_step(row: dict[str, Any]) -> str:
    """Format a row: `loss 1.21 (cls 0.23 box 0.34 centerness 0.64) 6.9 images/s, 12 min left`."""
    terms = " ".join(f"{name} {row[name]:.3f}" for name in ("cls", "box", "centerness", "teacher") if name in row)
    left = format_duration(row["seconds_left"])
    return f"loss {row['loss']:.3f} ({terms}) {row['images_per_s']:.1f} images/s, {left} left"


def format_duration(seconds: float) -> str:
    """Format seconds as `45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
