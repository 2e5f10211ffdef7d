"""Learning rate over a run: linear warm-up, then half a cosine. The length of the run may change meanwhile."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer

FLOOR = 0.01
"""Share of the learning rate that is left at the last step."""


class Schedule:
    """Sets the learning rates of an optimizer.

    step: steps done. progress: 0…1, position on the cosine. scale: factor on all learning rates, halved after a loss
    that was not finite. Warm-up rises from `warmup_from` (a share of the full rate) over `warmup` steps after step
    `start`.
    """

    def __init__(self, optimizer: Optimizer, *, warmup: int) -> None:
        self.optimizer = optimizer
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.step = self.start = 0
        self.warmup, self.warmup_from = warmup, 0.0
        self.progress, self.scale = 0.0, 1.0
        self._apply()

    @property
    def warming_up(self) -> bool:
        """Whether the next step belongs to the warm-up."""
        return self.step - self.start < self.warmup

    @property
    def factor(self) -> float:
        """Share of the full learning rate for the next step, without `scale`."""
        if self.warming_up:
            return self.warmup_from + (1 - self.warmup_from) * (self.step - self.start + 1) / (self.warmup + 1)
        return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min(1.0, self.progress))) / 2

    def advance(self, *, remaining: float) -> None:
        """Go on after a step. remaining: number of steps that were left before it, that step included.

        If `remaining` falls by one each time, `progress` grows evenly; if it changes, the rest of the cosine is
        stretched over the new length.
        """
        if not self.warming_up:
            self.progress += (1 - self.progress) / max(1.0, remaining)
        self.step += 1
        self._apply()

    def restart(self, *, warmup: int, warmup_from: float | None = None) -> None:
        """Begin anew: warm-up to the full rate from a share of it (default: the current one), then a whole cosine."""
        self.warmup_from = self.factor if warmup_from is None else warmup_from
        self.warmup, self.start, self.progress = warmup, self.step, 0.0
        self._apply()

    def set_scale(self, scale: float) -> None:
        """Use this share of all learning rates from the next step on."""
        self.scale = scale
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and its full learning rates."""
        return {key: value for key, value in vars(self).items() if key not in ("optimizer", "rates")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if something is missing."""
        if set(state) != set(self.state_dict()):
            raise ValueError(f"not the state of a schedule: {sorted(state)}")
        vars(self).update(state)
        self._apply()

    def _apply(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.scale * self.factor
