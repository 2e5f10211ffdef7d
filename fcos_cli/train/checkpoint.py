"""Training state: everything a killed run needs to go on exactly where it was. Saved atomically, read without pickle's
powers."""

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
    """Where a run stands: `step` steps are done, `epoch` is running, `step_in_epoch` of its steps are done."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: float = -1.0
    best_epoch: int = -1
    pending_validation: bool = False


@dataclass(frozen=True)
class Parts:
    """The objects whose state makes up a run."""

    model: FCOS
    average: AveragedModel | None
    optimizer: Optimizer
    schedule: LambdaLR
    scaler: GradScaler


def save_state(path: Path, parts: Parts, progress: Progress, *, data_hash: str) -> None:
    """One file; the old one stays until the new one is whole."""
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
    """Bring `parts` to the saved state. Raises DataError where the file is unreadable or of other data."""
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
            "the saved state is of another version of fcos", where=path, remedy="finish it with that version"
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
