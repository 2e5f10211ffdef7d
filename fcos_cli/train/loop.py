"""The training loop: run epochs, validate, keep the best weights, and save the state so that a run can be resumed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from fcos_cli.config import Config
from fcos_cli.data.samples import Dataset
from fcos_cli.distributed.group import Task, by_main_process, from_main_process, join_world
from fcos_cli.errors import FcosError
from fcos_cli.train.batches import BatchStream, explaining_deaths
from fcos_cli.train.checkpoint import Progress, read_state, restore_state, start_anew
from fcos_cli.train.pace import Clock
from fcos_cli.train.run import Run, open_run, plan_schedule
from fcos_cli.train.signals import catching_signals, share_stop
from fcos_cli.train.speed.estimate import estimate
from fcos_cli.train.speed.freezing import keep_frozen_norms
from fcos_cli.train.step import NonFiniteLoss, optimizer_step
from fcos_cli.train.tracking.listener import Listener, Row
from fcos_cli.train.tracking.metrics import LOG_EVERY, Meter
from fcos_cli.train.validation import validate

SAVES_APART = 30.0
"""The state is saved before and after a validation only if the last save is more than this many seconds ago, or
`train.save_minutes` if that is less. Runs with epochs of a few steps would write gigabytes otherwise.
"""

MAX_RECOVERIES = 3
"""Number of times that a run recovers from a loss that is not finite."""


def train(
    config: Config,
    train_set: Dataset,
    val_set: Dataset,
    *,
    folder: Path,
    resume: bool,
    listener: Listener,
    started: float | None = None,
) -> Progress:
    """Train on `train_set`, validate on `val_set` and write the run to `folder`. Return the final progress.

    resume: continue from `folder`/state.pt. started: `time.monotonic()` when the command began, from which a time limit
    counts; default: now. Of several processes, the main one decides the settings, reads the state and writes the run.
    Raises Interrupted or Stopped after saving the state, FcosError if the loss is not finite for the fourth time,
    DataError if the data differs from what the run started with.
    """
    clock = Clock(started=started)
    task: Task = "fcos train --resume" if resume else "fcos train"
    with join_world(task) as world, catching_signals() as stop, explaining_deaths():
        given = (from_main_process(config), train_set, val_set, folder)
        with (
            open_run(*given, world=world, listener=listener, stop=stop, clock=clock, resume=resume) as run,
            closing(BatchStream(run)) as stream,
        ):
            progress = run.progress
            at_start = progress.step == 0  # also for a run that was stopped before its first step
            if at_start:
                run.listener.note(estimate(run))
            plan_schedule(run)
            if at_start or progress.world != world.size:  # the state for a recovery must count steps of this world
                run.save()
            while not progress.finished:
                if not progress.pending_validation:
                    try:
                        _epoch(run, stream)
                    except NonFiniteLoss as error:
                        _recover(run, error)
                        stream.restart()
                        run.length.pace.pause()
                        continue
                end = progress.end
                _end_epoch(run)
                if progress.end != end:  # the run ends early, and what was loaded ahead has mosaics
                    stream.restart()
        return progress


def _end_epoch(run: Run) -> None:
    """Validate after an epoch if it is time, and go on to the next epoch. Save the state before and after."""
    progress, apart = run.progress, min(SAVES_APART, 60 * run.config.train.save_minutes)
    over = from_main_process(run.length.is_over(progress))
    if not progress.pending_validation:  # otherwise a stopped run must repeat it
        progress.pending_validation = from_main_process(run.length.validation_due(progress))
    validated = progress.pending_validation
    if validated:
        run.save(apart=apart)
        validate(run)
    progress.epoch, progress.step_in_epoch, progress.pending_validation = progress.epoch + 1, 0, False
    if validated:  # which may have taken the time that was left
        progress.finished = over or from_main_process(run.length.is_over(progress))
        run.save(apart=0 if progress.finished else apart)


def _epoch(run: Run, stream: BatchStream) -> None:
    """Run the rest of the current epoch, from `progress.step_in_epoch` on, or until the run is over."""
    progress = run.progress
    keep_frozen_norms(run.parts.model.train())
    meter = Meter()
    for index, batch in stream.epoch(progress.epoch):
        progress.step_in_epoch = index  # a batch before it may have been left out
        remaining = run.length.remaining(progress)
        if run.length.limit is not None:  # each process has measured a different pace
            remaining = from_main_process(remaining)
        if remaining < 1:
            return
        for error in batch.unreadable:
            run.listener.note(f"skipped an image: {error}")
        terms = optimizer_step(run, batch)
        run.parts.schedule.advance(remaining=remaining)
        run.length.pace.tick()
        progress.step, progress.step_in_epoch = progress.step + 1, index + 1
        if terms is not None:
            meter.add(terms, pictures=len(batch.names))
            row = _row(run, meter)
            total = progress.step + round(run.length.remaining(progress))
            run.listener.step({**row, "steps": total, "seconds_left": run.length.seconds_left(progress)})
            if run.metrics is not None and progress.step % LOG_EVERY == 0:
                run.metrics.add(row)
                meter = Meter()
        share_stop(run.stop)
        if run.stop:
            run.save()
            raise run.stopped()
        run.save(apart=60 * run.config.train.save_minutes)
    progress.step_in_epoch = run.length.steps_per_epoch


def _recover(run: Run, error: NonFiniteLoss) -> None:
    """Go back to the last saved state, leave the batch out from now on, and halve the learning rate.

    Raises FcosError after MAX_RECOVERIES recoveries.
    """
    progress, names = run.progress, ", ".join(error.names)
    if progress.recoveries >= MAX_RECOVERIES:
        raise FcosError(
            f"the loss is not finite ({error}), for the fourth time",
            where=names,
            remedy=f"check these images and their boxes, or {start_anew(run.folder)} and a lower --lr",
        ) from error
    failed, count = progress.step, progress.recoveries + 1
    skipped = [*progress.skipped, [progress.epoch, progress.step_in_epoch]]
    saved = by_main_process(lambda: read_state(run.folder, data_hash=run.data_hash))
    restored = restore_state(saved, run.parts)
    vars(progress).update({**vars(restored), "skipped": skipped, "recoveries": count})
    run.parts.schedule.set_scale(0.5**count)
    if run.metrics is not None:
        run.metrics.rewind(progress.step, pending=progress.pending_validation)
    run.listener.note(
        f"the loss is not finite at step {failed + 1} ({error}), {names}: back to step {progress.step}, without this "
        f"batch and with half the learning rate ({count} of {MAX_RECOVERIES} times)"
    )
    run.save()


def _row(run: Run, meter: Meter) -> Row:
    lr = max(group["lr"] for group in run.parts.optimizer.param_groups)
    progress = run.progress
    return {
        "kind": "train",
        "step": progress.step,
        "epoch": progress.epoch + 1,
        **meter.read(),
        "lr": float(f"{lr:.4g}"),
    }
