"""Messages between the benchmark and the processes it measures. Both sides import it, so it stays lightweight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fcos_cli.errors import FcosError
from fcos_cli.runtime.facts import Facts

Sample = dict[str, float]
"""Milliseconds of one batch per stage; the keys are from STAGES, without those that were not timed."""

STAGES = ("open", "preprocess", "network", "decode_nms", "network_decode_nms", "total")
"""Stages in execution order: files → pixels, pixels → network input, network, decode and NMS (including the conversion
to source pixels), the last two combined if the backend does not separate them, and the total."""


@dataclass(frozen=True)
class Job:
    """One row to be measured.

    model: as for `open_detector`. pictures: image paths, at least one; used in order, `batch` at a time. asked: the
    requested precision, None for the file's own. attempts: precisions to try in this order when opening the model.
    size: (height, width) of the network input with letterboxing; None for the model's own resize rule.
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
    """The model has been opened and has run once.

    attempt: the entry of `Job.attempts` that worked. precision: the precision that is computed in. facts: with the
    resize rule in use. threads: CPU threads, if the backend reports them.
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
    """Why a request failed; `exit_code` is that of the underlying error."""

    reason: str
    exit_code: int = 1

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        if isinstance(error, FcosError):
            return cls("; ".join(filter(None, (error.what, error.remedy))), error.exit_code)
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


class JobSkipped(Exception):
    """A row cannot be measured, or its process has failed."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def unwrap(reply: Any) -> Any:
    """Return `reply`; raise JobSkipped if it is a Refusal."""
    if isinstance(reply, Refusal):
        raise JobSkipped(reply)
    return reply
