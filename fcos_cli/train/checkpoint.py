"""Training state: everything that is needed to resume a run exactly. Written atomically, read with `weights_only`.

The previous state stays beside the new one, so that a run survives a state.pt that was truncated or damaged.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError
from fcos_cli.model.fcos import FCOS
from fcos_cli.train.schedule import Schedule

STATE, PREVIOUS = "state.pt", "state.previous.pt"
STATE_VERSION = 2
_KEYS = ("data_hash", "progress", "model", "average", "optimizer", "schedule", "scaler", "torch_rng", "tuning")


@dataclass
class Progress:
    """Position in a run: `step` steps are done in all, and `step_in_epoch` of them in the current `epoch` (from 0).

    planned: epochs and time limit in seconds at the last save. seconds: time used, at the last save. stale: validations
    since the best one. end: last step of a cool-down, once one has begun. recoveries: number of losses that were not
    finite; skipped: (epoch, index) of the batches that were left out because of them. world: number of processes at the
    last save. step_seconds, validation_seconds: the measured pace. export_seconds: estimated for the export at the end.
    origin: what the initial weights were; val_hash: of the val data that `best` was measured on; teacher_hash: of the
    teacher's file, or empty without one. All three are empty in states of older versions.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: float = -1.0
    best_epoch: int = -1
    pending_validation: bool = False
    finished: bool = False
    planned: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stale: int = 0
    end: int | None = None
    recoveries: int = 0
    skipped: list[list[int]] = field(default_factory=list)
    world: int = 1
    step_seconds: float = 0.0
    validation_seconds: float = 0.0
    export_seconds: float = 0.0
    origin: str = ""
    val_hash: str = ""
    teacher_hash: str = ""


@dataclass(frozen=True)
class Parts:
    """The stateful objects of a run."""

    model: FCOS
    average: AveragedModel | None
    optimizer: Optimizer
    schedule: Schedule
    scaler: GradScaler


@dataclass(frozen=True)
class SavedState:
    """A state that was read. problem: why state.pt could not be used, if this is the previous one; else None."""

    path: Path
    content: dict[str, Any]
    problem: str | None = None

    @property
    def tuning(self) -> dict[str, Any]:
        """The methods of the convolutions (`speed.tuning`)."""
        tuning: dict[str, Any] = self.content["tuning"]
        return tuning


def has_state(folder: Path) -> bool:
    """Whether `folder` holds a run that can be resumed."""
    return any((folder / name).is_file() for name in (STATE, PREVIOUS))


def save_state(folder: Path, parts: Parts, progress: Progress, *, data_hash: str, tuning: dict[str, Any]) -> None:
    """Save the state. At every moment the folder holds at least one complete state."""
    content = {
        "version": STATE_VERSION,
        "data_hash": data_hash,
        "progress": dict(vars(progress)),
        "model": parts.model.state_dict(),
        "average": None if parts.average is None else parts.average.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "schedule": parts.schedule.state_dict(),
        "scaler": parts.scaler.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "tuning": tuning,
    }
    path = folder / STATE
    new = folder / f"{STATE}.new"
    buffer = io.BytesIO()  # on a full disk, torch.save to a file hides the reason behind an internal error
    torch.save(content, buffer)
    with atomic_write(new, binary=True) as file:
        file.write(buffer.getbuffer())
    if path.exists():
        path.replace(folder / PREVIOUS)
    new.replace(path)


def read_state(folder: Path, *, data_hash: str | None) -> SavedState:
    """Read state.pt, or the previous state if it is missing or damaged. data_hash: None = any data.

    Raises DataError if neither can be read, or if the state belongs to other data or another version of fcos.
    """
    problems = []
    for path in (folder / STATE, folder / PREVIOUS):
        try:
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types of error for damaged files
            problems.append(f"{path.name} cannot be read ({type(error).__name__})")
            continue
        _check(path, content, data_hash=data_hash)
        return SavedState(path, content, problem=problems[0] if problems else None)
    raise DataError(
        f"the saved state {problems[0].removeprefix(f'{STATE} ')}",
        where=folder / STATE,
        remedy=start_anew(folder),
    )


def start_anew(folder: Path) -> str:
    """The advice to start a new run instead of the one in `folder`: from its weights, if it has any."""
    weights = folder / "last.safetensors"
    return "start a new run" + (f" with --init {quote(str(weights))}" if weights.is_file() else "")


def read_progress(folder: Path) -> Progress:
    """How far the run in `folder` has come, whatever its data. Raises DataError as `read_state` does."""
    return Progress(**read_state(folder, data_hash=None).content["progress"])


def _check(path: Path, content: Any, *, data_hash: str | None) -> None:
    if not isinstance(content, dict) or content.get("version") != STATE_VERSION:
        raise DataError(
            "the saved state is from another version of fcos", where=path, remedy="finish the run with that version"
        )
    if missing := [key for key in _KEYS if key not in content]:
        raise DataError(f"the saved state lacks {missing[0]!r}", where=path, remedy="start a new run")
    if data_hash not in (None, content["data_hash"]):
        raise DataError(
            "the training data is not what this run started with",
            where=path,
            remedy=f"restore the data, or {start_anew(path.parent)}",
        )


def restore_state(saved: SavedState, parts: Parts) -> Progress:
    """Restore `parts` and torch's random state, and return the progress.

    Raises DataError if the state does not fit the network.
    """
    content = saved.content
    try:
        parts.model.load_state_dict(content["model"])
        if parts.average is not None:
            parts.average.load_state_dict(content["average"])
        fused = [group.get("fused") for group in parts.optimizer.param_groups]  # of this precision
        parts.optimizer.load_state_dict(content["optimizer"])
        for group, value in zip(parts.optimizer.param_groups, fused, strict=True):
            group["fused"] = value
        parts.schedule.load_state_dict(content["schedule"])
        if content["scaler"]:  # empty if saved in another precision than float16
            parts.scaler.load_state_dict(content["scaler"])
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(
            "the saved state does not fit the network of config.toml",
            where=saved.path,
            remedy="restore the original config.toml beside it, or start a new run",
        ) from error
    torch.set_rng_state(content["torch_rng"])
    return Progress(**content["progress"])
