"""How long a run is: a number of epochs, or a time limit whose steps are estimated from the measured pace."""

from __future__ import annotations

import time
from collections import deque

from fcos_cli.train.checkpoint import Progress

AIM = 0.975
"""Share of a session's time that is planned for, to end in time on a machine whose speed varies."""

VALIDATION_SHARE = 0.05
"""Largest share of a time limit that validations may take, apart from the last one."""

FEW_STEPS = 10
"""Steps that a validation has to leave time for; otherwise only the last one takes place."""


class Clock:
    """Seconds that a run has used, in this process and in earlier ones. used: in earlier ones."""

    def __init__(self, *, used: float = 0.0, started: float | None = None) -> None:
        self.used = used
        self.started = time.monotonic() if started is None else started

    @property
    def seconds(self) -> float:
        """Seconds used so far."""
        return self.used + time.monotonic() - self.started


class Pace:
    """Recent seconds per step, measured from one step's end to the next."""

    def __init__(self, initial: float = 0.0) -> None:
        self.initial = initial
        self.recent: deque[float] = deque(maxlen=40)
        self.last: float | None = None

    def tick(self) -> None:
        """A step has ended."""
        now = time.monotonic()
        if self.last is not None:
            self.recent.append(now - self.last)
        self.last = now

    def pause(self) -> None:
        """Do not count the time until the next step: a validation, or the start of a loader."""
        self.last = None

    @property
    def seconds_per_step(self) -> float:
        """Mean of the last steps; the initial value until four are measured."""
        return sum(self.recent) / len(self.recent) if len(self.recent) >= 4 else self.initial


class RunLength:
    """How many steps are left.

    limit: seconds for the whole run, or None for a number of epochs. validation_seconds: time of one validation with
    its files and report, measured or estimated. export_seconds: time to keep for the export after the last one.
    best_unseen: whether the best weights are those of an earlier session, which the first validation may repeat.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        val_every: int,
        limit: float | None,
        clock: Clock,
        pace: Pace,
        validation_seconds: float = 0.0,
        export_seconds: float = 0.0,
        best_unseen: bool = False,
    ) -> None:
        self.epochs, self.steps_per_epoch, self.val_every = epochs, steps_per_epoch, val_every
        self.limit, self.clock, self.pace = limit, clock, pace
        self.validation_seconds, self.export_seconds = validation_seconds, export_seconds
        self.best_unseen = best_unseen
        self.validations: deque[float] = deque(maxlen=3)
        self.last_validation = clock.seconds

    def remaining(self, progress: Progress) -> float:
        """Steps from `progress` to the end; at most those of a cool-down that has begun."""
        if self.limit is None:
            steps = float((self.epochs - progress.epoch) * self.steps_per_epoch - progress.step_in_epoch)
        else:
            seconds = self._seconds_for_steps(self.limit)
            steps = seconds / max(1e-6, self.pace.seconds_per_step + self.validation_seconds / self._interval)
        return max(0.0, min(steps, progress.end - progress.step) if progress.end is not None else steps)

    def is_over(self, progress: Progress) -> bool:
        """Whether no step is left."""
        return self.remaining(progress) < 1

    def validation_due(self, progress: Progress) -> bool:
        """Whether to validate after the epoch that has just ended, or after the last step."""
        if self.is_over(progress):
            return True
        if (progress.epoch + 1) % self.val_every:
            return False
        if self.limit is None:
            return True
        after = self._seconds_for_steps(self.limit) - self.validation_seconds
        if after < FEW_STEPS * self.pace.seconds_per_step:  # the last validation is about to come
            return False
        waited = self.clock.seconds - self.last_validation
        return waited * VALIDATION_SHARE >= self.validation_seconds

    def validated(self, seconds: float) -> None:
        """A validation took this long."""
        self.best_unseen = False
        self.validations.append(seconds)
        self.validation_seconds = sum(self.validations) / len(self.validations)
        self.last_validation = self.clock.seconds
        self.pace.pause()

    def seconds_left(self, progress: Progress) -> float:
        """Estimated seconds to the end, validations and the export included."""
        if self.limit is not None and progress.end is None:
            return max(0.0, self.limit - self.clock.seconds)
        steps = self.remaining(progress)
        validations = 1 + steps // self._interval
        return steps * self.pace.seconds_per_step + validations * self.validation_seconds + self.export_seconds

    @property
    def seconds_at_end(self) -> float:
        """Seconds that are kept for the last validation and the export."""
        return self.validation_seconds * (1 + self.best_unseen) + self.export_seconds

    def _seconds_for_steps(self, limit: float) -> float:
        """Seconds until the last validation has to begin."""
        end = self.clock.used + AIM * (limit - self.clock.used)
        return end - self.clock.seconds - self.seconds_at_end

    @property
    def _interval(self) -> float:
        """Steps between two validations."""
        steps = float(self.steps_per_epoch * self.val_every)
        if self.limit is None:
            return steps
        return max(steps, self.validation_seconds / VALIDATION_SHARE / max(1e-6, self.pace.seconds_per_step))
