"""Prepare a network for fast training."""

from __future__ import annotations

from typing import Any

import torch

from fcos_cli.config import Config
from fcos_cli.distributed.group import from_main_process
from fcos_cli.model.fcos import FCOS
from fcos_cli.train.speed.convolution import guard_narrow_maps
from fcos_cli.train.speed.folding import fold_frozen_norms
from fcos_cli.train.speed.tuning import Tuning, apply_tuning, tune


def speed_up(model: FCOS, config: Config, *, dtype: torch.dtype | None, saved: dict[str, Any] | None) -> Tuning:
    """Fold frozen norms, and choose on a CPU how each layer is computed.

    dtype: of autocast, None for float32. saved: the tuning of a resumed run, which it keeps, since other methods round
    differently; None for a new run. All processes of a run must call it together.
    """
    fold_frozen_norms(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if on_cpu:
        guard_narrow_maps(model)
    tuning = Tuning() if saved is None else Tuning.from_json(saved)
    if saved is None and config.train.tune and on_cpu:
        measured = tune(model, batch=config.train.batch, size=config.data.size, dtype=dtype)
        tuning = Tuning.from_json(from_main_process(measured.to_json()))
    if on_cpu:  # a run may go on on a GPU
        apply_tuning(model, tuning)
    return tuning
