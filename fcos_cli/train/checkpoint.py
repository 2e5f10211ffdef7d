"""Training state: everything that is needed to resume a run exactly. Written atomically, read with `weights_only`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from fcos_cli.atomic import atomic_write
from fcos_cli.errors import DataError
from fcos_cli.model.fcos import FCOS

STATE_VERSION = 1


@dataclass
class Progress:
    """Position in a run: `step` steps are done in all, and `step_in_epoch` of them in the current `epoch` (from 0)."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: float = -1.0
    best_epoch: int = -1
    pending_validation: bool = False


@dataclass(frozen=True)
class Parts:
    """The objects with state of a run."""

    model: FCOS
    average: AveragedModel | None
    optimizer: Optimizer
    schedule: LambdaLR
    scaler: GradScaler


def save_state(path: Path, parts: Parts, progress: Progress, *, data_hash: str) -> None:
    """Write the state to one file. The previous file is replaced only when the new one is complete."""
    content = {
        "version": STATE_VERSION,
        "data_hash": data_hash,
        "progress": vars(progress),
        "model": parts.model.state_dict(),
        "average": None if parts.average is None else parts.average.state_dict(),
        "optimizer": parts.optimizer.state_dict(),
        "schedule": parts.schedule.state_dict(),
        "scaler": parts.scaler.state_dict(),
        "torch_rng": torch.get_rng_state(),
    }
    with atomic_write(path, binary=True) as file:
        torch.save(content, file)


def load_state(path: Path, parts: Parts, *, data_hash: str) -> Progress:
    """Restore `parts` and return the progress. Raises DataError if the file is unreadable or belongs to other data."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise DataError(
            f"the saved state cannot be read ({type(error).__name__})",
            where=path,
            remedy="start a new run; best.safetensors and last.safetensors of this one are still good (--init)",
        ) from error
    if not isinstance(content, dict) or content.get("version") != STATE_VERSION:
        raise DataError(
            "the saved state is from another version of fcos", where=path, remedy="finish the run with that version"
        )
    if content["data_hash"] != data_hash:
        raise DataError(
            "the training data is not what this run started with",
            where=path,
            remedy="restore the data, or start a new run with --init RUN/last.safetensors",
        )
    try:
        parts.model.load_state_dict(content["model"])
        if parts.average is not None:
            parts.average.load_state_dict(content["average"])
        parts.optimizer.load_state_dict(content["optimizer"])
        parts.schedule.load_state_dict(content["schedule"])
        parts.scaler.load_state_dict(content["scaler"])
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            "the saved state does not fit the network of config.toml",
            where=path,
            remedy="restore config.toml beside it as it was, or start a new run",
        ) from error
    torch.set_rng_state(content["torch_rng"])
    return Progress(**content["progress"])
