"""What the benchmark and the processes it measures say to each other. Light: both sides import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcos_cli.errors import FcosError
from fcos_cli.runtime.facts import Facts

Sample = dict[str, float]
"""Milliseconds of one batch by stage; the keys are of STAGES, those that were not timed are left out."""

STAGES = ("open", "preprocess", "network", "decode_nms", "network_decode_nms", "total")
"""In the order of the work: files → pixels, pixels → network input, network, decode and NMS (with the way back to the
source's pixels), the last two as one where the backend does not show what is between them, and all of it."""


@dataclass(frozen=True)
class Job:
    """One row to be measured.

    model: as `open_detector` takes it. pictures: paths, at least one; they are taken in turn, `batch` at a time.
    asked: the precision that was asked for, None for the file's own. attempts: precisions to try to open the model in,
    one after the other. size: (height, width) of the network input, letterboxed; None is the model's own rule.
    """

    model: str
    pictures: tuple[str, ...]
    batch: int = 1
    asked: str | None = None
    attempts: tuple[str | None, ...] = (None,)
    backend: str | None = None
    device: str = "auto"
    threads: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Ready:
    """The model has answered for the first time.

    attempt: the one of `Job.attempts` that opened it. precision: what really runs. facts: with the resize rule that is
    used. threads: of the CPU, where the backend says.
    """

    backend: str
    device: str
    precision: str
    attempt: str | None
    facts: Facts
    threads: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a request was not met; `exit_code` as of the error behind it."""

    reason: str
    exit_code: int = 1

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        if isinstance(error, FcosError):
            return cls("; ".join(filter(None, (error.what, error.remedy))), error.exit_code)
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


class JobSkipped(Exception):
    """A row cannot be measured, or not any longer."""

    def __init__(self, refused: Refusal) -> None:
        super().__init__(refused.reason)
        self.refused = refused


def unwrap(answer: Any) -> Any:
    """`answer`, or Skipped where it is a refusal."""
    if isinstance(answer, Refusal):
        raise JobSkipped(answer)
    return answer
