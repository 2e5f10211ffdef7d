"""`--batch auto`: the largest batch that fits into memory and is not slower per image, found by trying."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from fcos_cli.config import Config
from fcos_cli.console import say
from fcos_cli.data.samples import Dataset
from fcos_cli.distributed.world import announced
from fcos_cli.hardware import available_memory
from fcos_cli.train.run import open_run
from fcos_cli.train.speed.estimate import peak_memory, step_seconds
from fcos_cli.train.step import is_out_of_memory

SIZES = (2, 4, 8, 16, 32, 64, 128)
SLOWER = 1.05
"""A batch may take this many times the least time per image."""

SHARE_OF_MEMORY = 0.8
"""Largest share of the memory that training with a batch size may use."""

STEPS_PER_EPOCH = 10
"""An epoch keeps at least this many steps, so that small data sets are not trained in a handful of large ones."""


def choose_batch(config: Config, train_set: Dataset, val_set: Dataset) -> int:
    """Try batch sizes from 2 upwards on this machine, and return the best. Each takes a few training steps.

    A batch that needs more parts than `train.accumulate` counts as not fitting, unless it is the smallest.
    """

    def measure(batch: int) -> tuple[float, float]:
        train = config.train.model_copy(update={"batch": batch, "tune": False})
        tried = config.model_copy(update={"train": train})
        with tempfile.TemporaryDirectory() as folder, open_run(tried, train_set, val_set, Path(folder)) as run:
            seconds = step_seconds(run)
            if run.accumulation.parts > train.accumulate and batch > SIZES[0]:  # it did not fit in one part
                raise MemoryError
            return seconds / batch, share_of_memory(run.device)

    return search(measure, largest=max(SIZES[0], len(train_set) // (STEPS_PER_EPOCH * announced().size)))


def share_of_memory(device: torch.device) -> float:
    """Share of the device's memory (of the machine's, for a CPU) that this process used at its peak, 0…1.

    Memory that other processes use does not count as available.
    """
    used = peak_memory(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return used / max(1, free + torch.cuda.memory_reserved(device))
    free = available_memory()
    return used / (used + free) if free else 0.0  # not known on this system


def search(measure: Callable[[int], tuple[float, float]], *, largest: int) -> int:
    """Return the largest batch size that is not slower per image than the fastest.

    measure: (seconds per image, share of the memory used) of a batch size; may raise if memory runs out.
    """
    times: dict[int, float] = {}
    for batch in SIZES:
        if batch > largest and times:
            break
        try:
            times[batch], used = measure(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not times:
                raise
            say(f"batch {batch}: out of memory")
            break
        if used > SHARE_OF_MEMORY and len(times) > 1:
            del times[batch]
            say(f"batch {batch}: takes {100 * used:.0f} % of the memory")
            break
        say(f"batch {batch}: {1000 * times[batch]:.0f} ms per image")
        if used > SHARE_OF_MEMORY or times[batch] > 1.3 * min(times.values()):
            break
    return max(batch for batch, seconds in times.items() if seconds <= SLOWER * min(times.values()))
