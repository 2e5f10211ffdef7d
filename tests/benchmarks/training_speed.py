"""Speed of training against torchvision's FCOS class, as ratios of one run.

    python -m tests.benchmarks.training_speed DATA [--backbone resnet18] [--size 320]

DATA is a folder that `fcos train` accepts. Each row trains in its own process with one data loader process, on the same
batches of the same augmented images; the rows take turns. The network has the same backbone (without pretrained
weights, which do not change the speed), channels, towers and frozen BatchNorm in every row:

- torchvision, tuned: its FCOS class in mixed precision and channels last, with AdamW and freed memory kept.
- torchvision, plain: the same class as its reference script trains it: float32, channels first, SGD.
- fcos: what `fcos train` does, including gradient clipping and averaged weights.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcos_cli.allocator import keep_freed_memory
from fcos_cli.config import Config
from fcos_cli.data.formats.read import read_dataset
from fcos_cli.data.training_set import Batch, EpochBatches
from fcos_cli.model.backbone import input_normalization
from fcos_cli.train import step as steps
from fcos_cli.train.batches import image_loader
from fcos_cli.train.optim import choose_precision
from fcos_cli.train.run import Run, open_run
from tests.benchmarks.torchvision_fcos import losses_of, torchvision_fcos

ROUNDS, STEPS, WARMUP = 5, 8, 3
"""Turns of each row, steps per turn, and steps before the first turn."""

PARTS = ("waiting for images", "forward", "targets and losses", "backward", "the rest")


class Watch:
    """Seconds spent in named parts of a step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                self.seconds[part] += time.perf_counter() - started

        return run


def make_config(options: argparse.Namespace) -> Config:
    model = {"backbone": options.backbone, "channels": 128, "convs": 2, **input_normalization(options.backbone)}
    train = {"batch": 8, "init": "random", "device": "cpu", "workers": 1, "epochs": 1000}
    return Config.model_validate({"model": model, "data": {"size": (options.size, options.size)}, "train": train})


def batches(run: Run) -> Iterator[Batch]:
    """Endless training batches, from one loader process."""
    epoch = 0
    while True:
        keys = EpochBatches(len(run.train), batch=run.config.train.batch, seed=0, epoch=epoch)
        yield from image_loader(run, keys.batches)
        epoch += 1


def torchvision_step(run: Run, *, tuned: bool, watch: Watch) -> Callable[[Batch], None]:
    model = torchvision_fcos(run.config, len(run.train.classes))
    precision = choose_precision(run.config.train, run.device)
    dtype = precision.dtype if tuned else None
    if tuned:
        model.to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if tuned:
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=1e-4)
    else:
        optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    forward = watch.timed("forward", losses_of)

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            total = forward(model, batch)
        optimizer.zero_grad(set_to_none=True)
        watch.timed("backward", total.backward)()
        optimizer.step()

    return step


def fcos_step(run: Run, *, watch: Watch) -> Callable[[Batch], None]:
    network = run.network
    network.forward = watch.timed("forward", network.forward)  # type: ignore[method-assign]
    for name in ("assign_targets", "compute_losses"):
        setattr(steps, name, watch.timed("targets and losses", getattr(steps, name)))
    Tensor.backward = watch.timed("backward", Tensor.backward)  # type: ignore[method-assign]

    def step(batch: Batch) -> None:
        steps.optimizer_step(run, batch)
        run.parts.schedule.advance(remaining=1000)

    return step


def work(connection: Connection, row: str, options: argparse.Namespace) -> None:
    """A process that trains STEPS steps for each message, and answers with seconds per part."""
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in `fcos train`
    if row != "torchvision, plain":
        keep_freed_memory()
    config, watch = make_config(options), Watch()
    data, val = (read_dataset(options.data, split=split) for split in ("train", "val"))
    with tempfile.TemporaryDirectory() as folder, open_run(config, data, val, Path(folder)) as run:
        if row == "fcos":
            step = fcos_step(run, watch=watch)
        else:
            step = torchvision_step(run, tuned=row == "torchvision, tuned", watch=watch)
        source = batches(run)
        for _ in range(WARMUP):
            step(next(source))
        connection.send((run.tuning.describe(), run.tuning.default_ms, run.tuning.tuned_ms))
        while connection.recv():
            watch.seconds = dict.fromkeys(PARTS, 0.0)
            started = time.perf_counter()
            for _ in range(STEPS):
                step(watch.timed("waiting for images", source.__next__)())
            seconds = time.perf_counter() - started
            watch.seconds["the rest"] = seconds - sum(watch.seconds.values())
            connection.send((seconds, watch.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=320)
    options = parser.parse_args()
    rows = ("torchvision, tuned", "torchvision, plain", "fcos")
    context = multiprocessing.get_context("spawn")
    pipes, tuning = {}, ("", 0.0, 0.0)
    for row in rows:
        pipes[row], end = context.Pipe()
        context.Process(target=work, args=(end, row, options)).start()
        tuning = pipes[row].recv()
    results: dict[str, list[tuple[float, dict[str, float]]]] = {row: [] for row in rows}
    for turn in range(ROUNDS):
        for row in rows if turn % 2 else rows[::-1]:
            pipes[row].send(True)
            results[row].append(pipes[row].recv())
    for pipe in pipes.values():
        pipe.send(False)
    show(options, tuning, results)


def show(
    options: argparse.Namespace,
    tuning: tuple[str, float, float],
    results: dict[str, list[tuple[float, dict[str, float]]]],
) -> None:
    images = 8 * STEPS
    threads = torch.get_num_threads()
    print(f"{options.backbone}, {options.size} px, batches of 8, {threads} threads, torch {torch.__version__}")
    note, default, tuned = tuning
    print(f"fcos {note}")
    print(
        f"its convolutions and GroupNorms alone, which bound a step: {tuned / 8:.0f} ms per image "
        f"({default / 8:.0f} before tuning)"
    )
    base = [seconds for seconds, _ in results["torchvision, tuned"]]
    for row, turns in results.items():
        speed = images / statistics.median(seconds for seconds, _ in turns)
        ratio = statistics.median(a / b for a, (b, _) in zip(base, turns, strict=True))
        print(f"{row:20} {speed:6.1f} images/s   {ratio:.2f} times the tuned torchvision")
        for part in PARTS:
            median = statistics.median(parts[part] for _, parts in turns)
            share = statistics.median(parts[part] / seconds for seconds, parts in turns)
            print(f"  {part:20} {1000 * median / images:6.1f} ms per image  {share:6.1%}")


if __name__ == "__main__":
    main()
