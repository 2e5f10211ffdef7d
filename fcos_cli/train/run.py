"""One training run: everything that stays the same from its first step to its last, built anew or restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fcos_cli.atomic import atomic_write
from fcos_cli.config import Config, TrainConfig, to_toml
from fcos_cli.data.augment.transforms import Augmentation
from fcos_cli.data.cache import ImageCache
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.repeat import epoch_length, repeat_factors
from fcos_cli.data.samples import Dataset, Sample, fingerprint
from fcos_cli.data.tiling import Tiling
from fcos_cli.data.training_set import TrainingSet, batches_per_epoch
from fcos_cli.distributed.group import (
    by_main_process,
    check_alike,
    check_own_gpus,
    failing_together,
    from_main_process,
)
from fcos_cli.distributed.world import World
from fcos_cli.errors import DataError, FcosError, ModelError
from fcos_cli.model.fcos import FCOS
from fcos_cli.runtime.pytorch import pick_device
from fcos_cli.train.checkpoint import Parts, Progress, SavedState, read_state, restore_state, save_state, start_anew
from fcos_cli.train.distillation import Teacher, load_teacher
from fcos_cli.train.export import reserved_seconds
from fcos_cli.train.initial_weights import build_initial
from fcos_cli.train.optim import Precision, build_parts, choose_precision
from fcos_cli.train.pace import Clock, Pace, RunLength
from fcos_cli.train.signals import StopRequest
from fcos_cli.train.speed.freezing import freeze_stages
from fcos_cli.train.speed.prepare import speed_up
from fcos_cli.train.speed.tuning import Tuning
from fcos_cli.train.tracking.listener import Listener
from fcos_cli.train.tracking.metrics import MetricsFile
from fcos_cli.train.tracking.terminal import format_duration


@dataclass
class Accumulation:
    """Number of parts in which each batch is computed; doubled when memory runs out."""

    parts: int


@dataclass(frozen=True)
class Run:
    """Everything that stays the same from the first step of a run to its last."""

    config: Config
    train: Dataset
    val: Dataset
    folder: Path
    parts: Parts
    network: nn.Module
    teacher: Teacher | None
    precision: Precision
    world: World
    device: torch.device
    origin: str
    data_hash: str
    val_hash: str
    repeats: npt.NDArray[np.float64] | None
    tuning: Tuning
    cache: ImageCache | None
    metrics: MetricsFile | None
    listener: Listener
    stop: StopRequest
    progress: Progress
    length: RunLength
    accumulation: Accumulation

    def save(self, *, apart: float = 0.0) -> None:
        """Write state.pt, if this is the main process, and if the last save was more than `apart` seconds ago."""
        progress, config = self.progress, self.config.train
        if apart and self.length.clock.seconds - progress.seconds <= apart:
            return
        progress.planned, progress.seconds = [config.epochs, config.time], self.length.clock.seconds
        progress.world, progress.step_seconds = self.world.size, self.length.pace.seconds_per_step
        progress.validation_seconds, progress.origin = self.length.validation_seconds, self.origin
        progress.teacher_hash = "" if self.teacher is None else self.teacher.sha256
        if self.world.main:
            tuning = self.tuning.to_json()
            save_state(self.folder, self.parts, progress, data_hash=self.data_hash, tuning=tuning)

    @property
    def val_changed(self) -> bool:
        """Whether the best AP was measured on other val data."""
        return self.progress.best_epoch >= 0 and self.progress.val_hash not in ("", self.val_hash)

    def stopped(self) -> FcosError:
        """Return the exception for a request to stop."""
        error = self.stop.error(remedy=f"go on with: fcos train --resume {quote(str(self.folder))}")
        error.shared, error.elsewhere = True, not self.world.main
        return error


@contextmanager
def open_run(
    config: Config,
    train_set: Dataset,
    val_set: Dataset,
    folder: Path,
    *,
    world: World | None = None,
    listener: Listener | None = None,
    stop: StopRequest | None = None,
    clock: Clock | None = None,
    resume: bool = False,
) -> Iterator[Run]:
    """Build all parts of a run, or restore them from `folder`/state.pt.

    Default: a new run in one process, whose clock starts now, without listeners or signals.
    """
    world, listener, clock = world or World(), listener or Listener(), clock or Clock()
    stop = StopRequest() if stop is None else stop  # a request without a signal is false
    with failing_together():
        device = pick_device(config.train.device)
        check_own_gpus(device)
        model, origin = _build_model(config, train_set, device, resume=resume)
        teacher = load_teacher(config, train_set.classes)
    batch, repeats = config.train.batch, repeats_of(config, train_set)
    precision = choose_precision(config.train, device)
    parts = build_parts(model, config.train, pictures=batch * world.size, precision=precision, device=device)
    data_hash = fingerprint(train_set)
    alike = {"training data": data_hash, "device": device.type, "precision (--amp)": str(precision.dtype)}
    check_alike(alike if teacher is None else {**alike, "teacher": teacher.sha256})
    saved = by_main_process(lambda: read_state(folder, data_hash=data_hash)) if resume else None
    progress = Progress() if saved is None else restore_state(saved, parts)
    if teacher is not None:
        _check_same_teacher(teacher, progress, config.train, folder)
    if progress.world != world.size:  # the epoch goes on where as many images were seen
        progress.step_in_epoch = progress.step_in_epoch * progress.world // world.size
        progress.skipped = []
    steps = batches_per_epoch(images_per_epoch(train_set, repeats), batch=batch, world=world.size)
    length = _length(config.train, progress, clock, steps_per_epoch=steps)
    if world.main:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "config.toml") as file:
            file.write(to_toml(config))
    tuning = speed_up(model, config, dtype=precision.dtype, saved=None if saved is None else saved.tuning)
    run = Run(
        config=config,
        train=train_set,
        val=val_set,
        folder=folder,
        parts=parts,
        network=model if world.size == 1 else DistributedDataParallel(model),
        teacher=None if teacher is None else teacher.to(device),
        precision=precision,
        world=world,
        device=device,
        origin=progress.origin or origin,
        data_hash=data_hash,
        val_hash=fingerprint(val_set),
        repeats=repeats,
        tuning=tuning,
        cache=_make_cache(config, train_set, world),
        metrics=_open_metrics(folder, progress) if world.main else None,
        listener=listener if world.main else Listener(),
        stop=stop,
        progress=progress,
        length=length,
        accumulation=Accumulation(config.train.accumulate),
    )
    try:
        _tell_start(run, saved)
        yield run
    finally:
        run.listener.close()


def _build_model(config: Config, train_set: Dataset, device: torch.device, *, resume: bool) -> tuple[FCOS, str]:
    """Return the network on its device, and what its initial weights are."""
    if resume:  # the saved state has the weights: those that the run started from may be gone by now
        model, origin = FCOS(config.model, classes=len(train_set.classes)), config.train.init
    else:
        model, origin = build_initial(config, train_set.classes)
    model.to(device).to(memory_format=torch.channels_last)
    if len(train_set) == 0:
        raise DataError("there are no images to train on", where=train_set.source)
    freeze_stages(model, config.train.freeze)
    return model, origin


def _check_same_teacher(teacher: Teacher, progress: Progress, config: TrainConfig, folder: Path) -> None:
    """Raise ModelError if a run that goes on would learn from another detector than before."""
    if progress.teacher_hash not in ("", teacher.sha256):
        raise ModelError(
            "the teacher is not the one this run started with",
            where=config.teacher,
            remedy=f"restore the file, or {start_anew(folder)}",
        )


def _length(config: TrainConfig, progress: Progress, clock: Clock, *, steps_per_epoch: int) -> RunLength:
    """Return how long a run is that has come to `progress`, and give `clock` the time used until then."""
    clock.used = progress.seconds
    return RunLength(
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        val_every=config.val_every,
        limit=config.time or None,
        clock=clock,
        pace=Pace(progress.step_seconds),
        validation_seconds=progress.validation_seconds,
        export_seconds=reserved_seconds(config, progress),
        best_unseen=progress.best_epoch >= 0,
    )


def _tell_start(run: Run, saved: SavedState | None) -> None:
    """Tell the listener how the run starts or goes on."""
    run.listener.begun()
    if saved is None:
        run.listener.note(f"starting from {run.origin}")
        if run.teacher is not None:
            run.listener.note(f"learning from {run.config.train.teacher} too")
    elif saved.problem is not None:
        run.listener.note(f"{saved.problem}: continuing from the state before it, step {run.progress.step}")
    if run.val_changed:
        ended = run.progress.finished and run.progress.planned == [run.config.train.epochs, run.config.train.time]
        later = "the next validation repeats that of the best weights"
        text = "fcos eval measures the best weights on it" if ended else later
        run.listener.note(f"the val data has changed: {text}")
    for note in (run.precision.note, run.tuning.describe()):
        if note:
            run.listener.note(note)


def _open_metrics(folder: Path, progress: Progress) -> MetricsFile:
    return MetricsFile(folder / "metrics.jsonl", resume_at=progress.step, pending=progress.pending_validation)


def plan_schedule(run: Run) -> None:
    """Set the warm-up of a new run, or of one that goes on for longer than it was planned."""
    progress, schedule, config = run.progress, run.parts.schedule, run.config.train
    longer = progress.planned != [config.epochs, config.time]
    if longer:
        progress.end, progress.stale = None, 0
    remaining = from_main_process(run.length.remaining(progress))  # each process has a clock of its own
    over, warmup = longer and remaining < 1, min(config.warmup, int(remaining) // 10)
    if longer:
        progress.finished = progress.finished and over
    if over and run.length.limit is not None:
        kept = format_duration(run.length.seconds_at_end)
        run.listener.note(f"no time is left for a step: validation and export at the end are expected to take {kept}")
    if progress.step == 0:
        schedule.restart(warmup=warmup, warmup_from=0.0)
    elif longer and not over:
        schedule.restart(warmup=warmup)
        run.listener.note(
            f"going on after step {progress.step}: {schedule.warmup} steps of warm-up, then the learning rate falls "
            "along a new cosine to the new end"
        )
        run.save()


def _make_cache(config: Config, dataset: Dataset, world: World) -> ImageCache | None:
    if not config.data.cache:
        return None
    return ImageCache.for_samples(dataset.samples, longest=longest_side(config), processes=world.local_size)


def resize_rule(config: Config) -> ResizeRule:
    return ResizeRule(mode=config.data.resize, size=config.data.size)


def tiles_of(config: Config) -> Tiling | None:
    """Return the tiles of the settings, or None. Raises UsageError if they are too small."""
    return Tiling(config.data.tile) if config.data.tile else None


def training_set(config: Config, samples: Sequence[Sample], *, cache: ImageCache | None = None) -> TrainingSet:
    """Return the samples as augmented network inputs."""
    fill = resize_rule(config).colour
    changes = config.augment.model_dump(exclude={"close_mosaic"})
    augmentation = Augmentation(size=_canvas(config, samples), fill=fill, **changes)
    return TrainingSet(samples, augmentation, longest=longest_side(config), cache=cache)


def _canvas(config: Config, samples: Sequence[Sample]) -> tuple[int, int]:
    """(height, width) of the network inputs of training. Where `data.size` is (shorter, longer), as most images are."""
    portraits = sum(sample.height > sample.width for sample in samples)
    upright = config.data.resize == "shortest" and 2 * portraits > len(samples)
    return config.data.size[::-1] if upright else config.data.size


def longest_side(config: Config) -> int:
    """Pixels of an image's longer side that training can use; larger images are reduced."""
    return 2 * max(config.data.size)


def repeats_of(config: Config, dataset: Dataset) -> npt.NDArray[np.float64] | None:
    """How often each image comes per epoch, or None if each comes once."""
    threshold = config.train.repeat
    return repeat_factors(dataset.samples, classes=len(dataset.classes), threshold=threshold) if threshold else None


def images_per_epoch(dataset: Dataset, repeats: npt.NDArray[np.float64] | None) -> int:
    return len(dataset) if repeats is None else epoch_length(repeats)
