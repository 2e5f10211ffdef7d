"""Measure how fast a run will be, before its first step: a few steps and a few validation images on a copy."""

from __future__ import annotations

import copy
import math
import time
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count, islice

import torch

from fcos_cli import hardware
from fcos_cli.distributed.group import from_main_process
from fcos_cli.predict.pipeline import predict
from fcos_cli.runtime.pytorch import PyTorchDetector
from fcos_cli.train.batches import BatchStream
from fcos_cli.train.export import export_seconds, reserved_seconds
from fcos_cli.train.optim import build_parts
from fcos_cli.train.run import Run, tiles_of
from fcos_cli.train.step import NonFiniteLoss, optimizer_step
from fcos_cli.train.tracking.terminal import format_duration
from fcos_cli.train.validation import build_artifact

WARMUP, STEPS, IMAGES = 2, 3, 8
"""Steps that are not timed, timed steps, and validation images."""

REPORT_SECONDS = 2.0
"""Assumed time for files and report after a validation, until one is measured."""


def estimate(run: Run) -> str:
    """Measure a new run, pass the results to its `RunLength`, and describe it in one line.

    All processes of a run must call it together.
    """
    seconds = from_main_process(step_seconds(run))
    per_image, crowding = from_main_process(image_seconds(run) if run.world.main else (0.0, 1.0))
    validation = per_image * len(run.val) + REPORT_SECONDS
    run.progress.export_seconds = export_seconds(per_image, crowding=crowding)
    run.length.pace.initial, run.length.validation_seconds = seconds, validation
    run.length.export_seconds = reserved_seconds(run.config.train, run.progress)
    memory = peak_memory(run.device) + (run.cache.size if run.cache and run.device.type == "cpu" else 0)
    return describe(run, memory=memory)


def step_seconds(run: Run) -> float:
    """Time training steps on a copy of the network. All processes of a run must call it together."""
    if run.device.type == "cuda":  # not the peak of another batch size that was tried
        torch.cuda.reset_peak_memory_stats(run.device)
    with torch.random.fork_rng(devices=[]):
        twin = _twin(run)
        seconds = []
        with closing(BatchStream(run)) as stream:
            batches = (batch for epoch in count(run.progress.epoch) for _, batch in stream.epoch(epoch))
            started = time.monotonic()
            for batch in islice(batches, WARMUP + STEPS):
                with suppress(NonFiniteLoss):  # the run itself deals with that
                    optimizer_step(twin, batch)
                seconds.append(time.monotonic() - started)
                started = time.monotonic()
    return sum(seconds[WARMUP:]) / STEPS


def describe(run: Run, *, memory: int) -> str:
    """`30 epochs of 36 steps: about 14 min on this machine, 1.9 GB`, in the words of `--time` if there is a limit.

    memory: peak in bytes, with the image cache once it is full.
    """
    config, length = run.config.train, run.length
    steps, used = length.steps_per_epoch, f"{memory / 1e9:.1f} GB"
    if length.limit is not None:
        total = round(length.remaining(run.progress))
        epochs = f"{total / steps:.1f} epochs of {steps}"
        return f"{format_duration(config.time)}: about {total:,} steps on this machine ({epochs}), {used}"
    validations = math.ceil(config.epochs / config.val_every)
    seconds = config.epochs * steps * length.pace.initial + validations * length.validation_seconds
    seconds += length.export_seconds
    return f"{config.epochs} epochs of {steps} steps: about {format_duration(seconds)} on this machine, {used}"


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process in bytes: of the GPU if there is one, else resident memory."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else hardware.peak_memory()


def _twin(run: Run) -> Run:
    """The run with copies of everything that a step changes."""
    model, config = copy.deepcopy(run.parts.model).train(), run.config.train
    pictures = config.batch * run.world.size
    parts = build_parts(model, config, pictures=pictures, precision=run.precision, device=run.device)
    return replace(run, parts=parts, network=model)


def image_seconds(run: Run) -> tuple[float, float]:
    """Return the seconds that a validation takes per image, measured on IMAGES images, and the crowding.

    Crowding is how many times longer a single thread takes here than on a core of its own, at least 1.
    """
    started, own = time.monotonic(), time.thread_time()
    detector = PyTorchDetector.from_artifact(build_artifact(run), name="estimate", device=str(run.device))
    crowding = max(1.0, (time.monotonic() - started) / max(1e-3, time.thread_time() - own))
    images = [sample.image for sample in run.val.samples[:IMAGES]]
    started = time.monotonic()
    for _ in predict(detector, images, batch=len(images), tiling=tiles_of(run.config)):
        pass
    return (time.monotonic() - started) / max(1, len(images)), crowding
