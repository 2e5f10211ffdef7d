"""The training loop: run epochs, validate, keep the best weights, and save the state so that a run can be resumed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fcos_cli.config import Config
from fcos_cli.data.samples import Dataset
from fcos_cli.data.training_set import Batch, EpochBatches, collate
from fcos_cli.errors import FcosError
from fcos_cli.model.losses import compute_losses, mean_over_processes
from fcos_cli.model.targets import Truth, assign_targets, to_box_ends
from fcos_cli.runtime.pytorch import pick_device
from fcos_cli.train.checkpoint import Progress
from fcos_cli.train.distributed import any_process, join_world
from fcos_cli.train.freezing import keep_frozen_norms
from fcos_cli.train.metrics_log import Listener, Meter, Row
from fcos_cli.train.run import Run, open_run, training_set
from fcos_cli.train.signals import catching_signals
from fcos_cli.train.validation import validate

LOG_EVERY = 20
"""Steps between two train rows of metrics.jsonl."""


def train(
    config: Config, train_set: Dataset, val_set: Dataset, *, folder: Path, resume: bool, listener: Listener
) -> Progress:
    """Train on `train_set`, validate on `val_set` and write the run to `folder`. Return the final progress.

    resume: continue from `folder`/state.pt. Raises Interrupted or Stopped after saving the state, FcosError if the loss
    is not finite, DataError if the data differs from what the run started with.
    """
    device = pick_device(config.train.device)
    with join_world(cuda=device.type == "cuda") as world, catching_signals() as stop:
        with open_run(config, train_set, val_set, folder, world, listener, stop, resume=resume) as (run, progress):
            while progress.epoch < config.train.epochs:
                if not progress.pending_validation:
                    _epoch(run, progress)
                    progress.pending_validation = True
                    run.save(progress)
                done = progress.epoch + 1
                if done % config.train.val_every == 0 or done == config.train.epochs:
                    validate(run, progress)
                progress.epoch, progress.step_in_epoch, progress.pending_validation = done, 0, False
                run.save(progress)
        return progress


def _epoch(run: Run, progress: Progress) -> None:
    """Run the rest of the current epoch, from `progress.step_in_epoch` on."""
    keys = EpochBatches(
        len(run.train),
        batch=run.config.train.batch,
        seed=run.config.train.seed,
        epoch=progress.epoch,
        skip=progress.step_in_epoch,
        rank=run.world.rank,
        world=run.world.size,
    )
    keep_frozen_norms(run.parts.model.train())
    pace, meter, saved = Meter(), Meter(), time.monotonic()
    for batch in _loader(run, keys):
        for error in batch.unreadable:
            run.listener.note(f"skipped an image: {error}")
        terms = _step(run, batch)
        progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
        if terms is not None:
            meter.add(terms, pictures=len(batch.names))
            pace.add({}, pictures=len(batch.names))
            row = _row(run, progress, meter)
            run.listener.step({**row, "steps": run.steps, "seconds_left": _seconds_left(run, progress, pace)})
            if run.metrics is not None and progress.step % LOG_EVERY == 0:
                run.metrics.add(row)
                meter = Meter()
        if any_process(bool(run.stop), device=run.device):
            run.save(progress)
            raise run.stopped()
        if time.monotonic() - saved > 60 * run.config.train.save_minutes:
            run.save(progress)
            saved = time.monotonic()


def _loader(run: Run, keys: EpochBatches) -> DataLoader[Any]:
    config = run.config
    workers = config.train.workers if config.train.workers >= 0 else min(8, max(1, (os.cpu_count() or 1) // 2))
    return DataLoader(
        training_set(config, run.train.samples, cache=run.cache),
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=run.device.type == "cuda",
        worker_init_fn=_ignore_signals if workers else None,
        generator=torch.Generator(),  # iterators draw a seed; the global generator must stay as it is for resuming
    )


def _ignore_signals(_worker: int) -> None:
    """Ignore SIGINT and SIGTERM, which reach the whole process group: only the training loop handles them."""
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _step(run: Run, batch: Batch) -> dict[str, float] | None:
    """Run one optimizer step. Return the loss terms, or None if no image of the batch could be read."""
    if any_process(not batch.names, device=run.device):
        run.parts.schedule.step()
        return None
    parts, config = run.parts, run.config.train
    images = batch.images.to(run.device, non_blocking=True)
    model = run.config.model
    truth = to_box_ends(Truth(*(tensor.to(run.device, non_blocking=True) for tensor in batch.truth)), model.conventions)
    with torch.autocast(run.device.type, dtype=run.precision.dtype, enabled=run.precision.dtype is not None):
        raw = run.network(images)
    points = parts.model.points(raw, input_size=(images.shape[-2], images.shape[-1]))
    targets = assign_targets(points, truth, ranges=model.ranges, conventions=model.conventions)
    terms = compute_losses(
        raw,
        targets,
        points,
        class_loss=config.class_loss,
        box_loss=config.box_loss,
        box_by_centerness=config.box_by_centerness,
        quality=model.conventions.quality,
    )
    total = terms["cls"] + config.box_weight * terms["box"] + config.centerness_weight * terms["centerness"]
    if any_process(not bool(torch.isfinite(total)), device=run.device):
        raise FcosError(
            f"the loss is not finite ({', '.join(f'{k} {v.item():.3g}' for k, v in terms.items())})",
            where=", ".join(batch.names),
            remedy="lower --lr, or check these images and their boxes; the last saved state is kept",
        )
    parts.optimizer.zero_grad(set_to_none=True)
    parts.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
    parts.scaler.unscale_(parts.optimizer)
    norm = nn.utils.clip_grad_norm_(parts.model.parameters(), config.clip)
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    parts.schedule.step()
    if parts.average is not None:
        parts.average.update_parameters(parts.model)
    return _numbers(total, terms, norm)


def _numbers(total: Tensor, terms: dict[str, Tensor], norm: Tensor) -> dict[str, float]:
    named = {"loss": total, **terms, "grad_norm": norm}
    means = mean_over_processes(torch.stack([value.detach().float() for value in named.values()]))
    return dict(zip(named, means.tolist(), strict=True))


def _row(run: Run, progress: Progress, meter: Meter) -> Row:
    lr = max(group["lr"] for group in run.parts.optimizer.param_groups)
    return {
        "kind": "train",
        "step": progress.step,
        "epoch": progress.epoch + 1,
        **meter.read(),
        "lr": float(f"{lr:.4g}"),
    }


def _seconds_left(run: Run, progress: Progress, pace: Meter) -> float:
    """Estimated seconds until the end of training, without validation."""
    return (run.steps - progress.step) * pace.seconds_per_step
