"""The training loop, top to bottom: build the parts, run epochs, validate, keep the best; stop and go on anywhere."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from fcos_cli import __version__
from fcos_cli.config import Config, to_toml
from fcos_cli.data.dataset import Batch, EpochBatches, TrainingSet, batches_per_epoch, collate
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.samples import Dataset, Sample
from fcos_cli.data.transforms import Augmentation
from fcos_cli.errors import DataError, FcosError
from fcos_cli.evaluate.coco import CocoResult, evaluate
from fcos_cli.files import replacing
from fcos_cli.model.artifact import Artifact, save
from fcos_cli.model.fcos import FCOS
from fcos_cli.model.losses import losses
from fcos_cli.model.targets import Truth, assign
from fcos_cli.runtime.detector import Facts
from fcos_cli.runtime.pytorch import PyTorchDetector, pick_device
from fcos_cli.train.distributed import World, any_process, join_world, mean_over_processes
from fcos_cli.train.initial import build_initial
from fcos_cli.train.log import Listener, Meter, MetricsFile, Row, Silent
from fcos_cli.train.recipe import Precision, build_average, build_optimizer, build_schedule, pick_precision
from fcos_cli.train.signals import StopRequest, catching_signals
from fcos_cli.train.state import Parts, Progress, load_state, save_state

LOG_EVERY = 20
"""Steps between two train rows of metrics.jsonl."""


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step of a run to its last."""

    config: Config
    train: Dataset
    val: Dataset
    folder: Path
    parts: Parts
    network: nn.Module
    precision: Precision
    world: World
    device: torch.device
    origin: str
    data_hash: str
    metrics: MetricsFile | None
    listener: Listener
    stop: StopRequest

    @property
    def steps_per_epoch(self) -> int:
        return batches_per_epoch(len(self.train), batch=self.config.train.batch, world=self.world.size)

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.config.train.epochs


def train(
    config: Config, train_set: Dataset, val_set: Dataset, *, folder: Path, resume: bool, listener: Listener
) -> Progress:
    """Train on `train_set`, validate on `val_set`, write the run into `folder`; returns where it ended.

    resume: go on from `folder`/state.pt. Raises Interrupted or Stopped after saving, FcosError for a loss that is
    not finite, DataError for data that differs from what the run began with.
    """
    device = pick_device(config.train.device)
    with join_world(cuda=device.type == "cuda") as world, catching_signals() as stop:
        with _building(config, train_set, val_set, folder, world, listener, stop, resume=resume) as (run, progress):
            while progress.epoch < config.train.epochs:
                if not progress.pending_validation:
                    _epoch(run, progress)
                    progress.pending_validation = True
                    _save(run, progress)
                if progress.epoch % config.train.val_every == config.train.val_every - 1 or _last(run, progress):
                    _validate(run, progress)
                progress.epoch, progress.step_in_epoch, progress.pending_validation = progress.epoch + 1, 0, False
                _save(run, progress)
        return progress


@contextmanager
def _building(
    config: Config,
    train_set: Dataset,
    val_set: Dataset,
    folder: Path,
    world: World,
    listener: Listener,
    stop: StopRequest,
    *,
    resume: bool,
) -> Iterator[tuple[Run, Progress]]:
    """All parts of a run, new or as they were saved."""
    device = pick_device(config.train.device)
    model, origin = build_initial(config, train_set.classes)
    model.to(device).to(memory_format=torch.channels_last)
    if config.data.drop_empty:
        train_set = _without_empty(train_set)
    if len(train_set) == 0:
        raise DataError("no picture is left to train on", where=train_set.source)
    batch = config.train.batch
    optimizer = build_optimizer(model, config.train, pictures=batch * world.size)
    steps = batches_per_epoch(len(train_set), batch=batch, world=world.size) * config.train.epochs
    precision = pick_precision(config.train, device)
    parts = Parts(
        model=model,
        average=build_average(model, config.train),
        optimizer=optimizer,
        schedule=build_schedule(optimizer, steps=steps, warmup=config.train.warmup),
        scaler=GradScaler(device.type, enabled=precision.scaled),
    )
    data_hash = fingerprint(train_set)
    progress = load_state(folder / "state.pt", parts, data_hash=data_hash) if resume else Progress()
    if world.main:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "config.toml") as file:
            file.write(to_toml(config))
    run = Run(
        config=config,
        train=train_set,
        val=val_set,
        folder=folder,
        parts=parts,
        network=model if world.size == 1 else DistributedDataParallel(model),
        precision=precision,
        world=world,
        device=device,
        origin=origin,
        data_hash=data_hash,
        metrics=MetricsFile(folder / "metrics.jsonl", resume_at=progress.step) if world.main else None,
        listener=listener if world.main else Silent(),
        stop=stop,
    )
    run.listener.note(f"starting from {origin}")
    if precision.note:
        run.listener.note(precision.note)
    try:
        yield run, progress
    finally:
        if run.metrics is not None:
            run.metrics.close()


def _epoch(run: Run, progress: Progress) -> None:
    """The rest of the current epoch, from `progress.step_in_epoch` on."""
    keys = EpochBatches(
        len(run.train),
        batch=run.config.train.batch,
        seed=run.config.train.seed,
        epoch=progress.epoch,
        skip=progress.step_in_epoch,
        rank=run.world.rank,
        world=run.world.size,
    )
    run.parts.model.train()
    pace, meter, saved = Meter(), Meter(), time.monotonic()
    for batch in _loader(run, keys):
        for error in batch.unreadable:
            run.listener.note(f"a picture was left out: {error}")
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
            _save(run, progress)
            raise run.stop.error(remedy=_remedy(run))
        if time.monotonic() - saved > 60 * run.config.train.save_minutes:
            _save(run, progress)
            saved = time.monotonic()


def _loader(run: Run, keys: EpochBatches) -> DataLoader[Any]:
    config, rule = run.config, resize_rule(run.config)
    augmentation = Augmentation(size=config.data.size, fill=rule.pad_value, **config.augment.model_dump())
    workers = config.train.workers if config.train.workers >= 0 else min(8, max(1, (os.cpu_count() or 1) // 2))
    return DataLoader(
        TrainingSet(run.train.samples, augmentation),
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=run.device.type == "cuda",
        worker_init_fn=_ignore_interrupts if workers else None,
    )


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; the loop alone decides what it means."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _step(run: Run, batch: Batch) -> dict[str, float] | None:
    """One step of the optimiser; the loss terms, or None where no picture of the batch could be read."""
    if any_process(not batch.names, device=run.device):
        run.parts.schedule.step()
        return None
    parts, config = run.parts, run.config.train
    images = batch.images.to(run.device, non_blocking=True)
    truth = Truth(*(tensor.to(run.device, non_blocking=True) for tensor in batch.truth))
    with torch.autocast(run.device.type, dtype=run.precision.dtype, enabled=run.precision.dtype is not None):
        raw = run.network(images)
    points = parts.model.points(raw)
    model = run.config.model
    targets = assign(points, truth, ranges=model.ranges, conventions=model.conventions)
    terms = losses(raw, targets, points, class_loss=config.class_loss, box_loss=config.box_loss)
    total = terms["cls"] + config.box_weight * terms["box"] + config.centerness_weight * terms["centerness"]
    if any_process(not bool(torch.isfinite(total)), device=run.device):
        raise FcosError(
            f"the loss is not finite ({', '.join(f'{k} {v.item():.3g}' for k, v in terms.items())})",
            where=", ".join(batch.names),
            remedy="lower --lr, or look at these pictures and their boxes; the last saved state is kept",
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
    """Training alone; the time of validations is not known before the first."""
    return (run.steps - progress.step) * pace.seconds_per_step


def _validate(run: Run, progress: Progress) -> None:
    """COCO numbers of the averaged weights on val; keeps `last`, and `best` where AP is the highest so far."""
    if run.world.main:
        model = _averaged(run)
        facts = Facts(classes=run.train.classes, resize=resize_rule(run.config))
        detector = PyTorchDetector(model.eval(), facts, name="last", device=run.device)
        started = time.monotonic()
        result = evaluate(detector, run.val, on_progress=partial(_watch, run))
        row: Row = {
            "kind": "val",
            "step": progress.step,
            "epoch": progress.epoch + 1,
            **{name: round(value, 5) for name, value in result.metrics.items()},
            "seconds": round(time.monotonic() - started, 1),
        }
        better = result.metrics["AP"] >= progress.best
        artifact = _artifact(run, model, result, progress)
        save(run.folder / "last.safetensors", artifact)
        if better:
            progress.best, progress.best_epoch = result.metrics["AP"], progress.epoch
            save(run.folder / "best.safetensors", artifact)
        if run.metrics is not None:
            run.metrics.add(row)
        run.listener.validated({**row, "best": better})
    if run.world.size > 1:
        torch.distributed.barrier()


def _watch(run: Run, done: int, total: int) -> None:
    """A validation can take minutes: a request to stop is heard in it too. The state was saved before it."""
    run.listener.validating(done, total)
    if run.stop:
        raise run.stop.error(remedy=_remedy(run))


def _remedy(run: Run) -> str:
    return f"go on with: fcos train --resume {run.folder}"


def _averaged(run: Run) -> FCOS:
    return run.parts.model if run.parts.average is None else cast(FCOS, run.parts.average.module)


def _artifact(run: Run, model: FCOS, result: CocoResult, progress: Progress) -> Artifact:
    """The weights with everything a user of them has to know."""
    artifact = Artifact(
        weights=dict(model.state_dict()),
        config=run.config.model,
        classes=run.train.classes,
        geometry=resize_rule(run.config).to_json(),
        provenance={
            "fcos_cli": __version__,
            "torch": torch.__version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {"name": run.train.source.name, "pictures": len(run.train), "sha256": run.data_hash},
            "initial_weights": run.origin,
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "metrics": {name: round(value, 4) for name, value in result.metrics.items()},
        },
    )
    found = [row.best_threshold for row in result.per_class if row.best_threshold is not None]
    if not found:
        return artifact
    middle = sum(found) / len(found)
    per_class = tuple(middle if row.best_threshold is None else row.best_threshold for row in result.per_class)
    return artifact.with_thresholds(middle, per_class)


def _last(run: Run, progress: Progress) -> bool:
    return progress.epoch == run.config.train.epochs - 1


def _save(run: Run, progress: Progress) -> None:
    if run.world.main:
        save_state(run.folder / "state.pt", run.parts, progress, data_hash=run.data_hash)


def resize_rule(config: Config) -> ResizeRule:
    return ResizeRule(mode=config.data.resize, size=config.data.size)


def _without_empty(dataset: Dataset) -> Dataset:
    from dataclasses import replace

    return replace(dataset, samples=[s for s in dataset.samples if len(s.boxes)])


def fingerprint(dataset: Dataset) -> str:
    """A hash of what is learned from: file names, boxes, classes, in order. Not of the pictures' bytes."""
    digest = hashlib.sha256()

    def add(sample: Sample) -> None:
        digest.update(sample.image.name.encode())
        for array in (sample.boxes, sample.classes, sample.ignore):
            digest.update(array.tobytes())

    for sample in dataset.samples:
        add(sample)
    digest.update(repr((dataset.classes.names, dataset.classes.ids)).encode())
    return digest.hexdigest()[:16]
