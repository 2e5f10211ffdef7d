"""The demo of `fcos train`: settings for minutes on a CPU, and images that are generated."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from fcos_cli.console import say
from fcos_cli.data.demo_shapes import write_shapes
from fcos_cli.distributed.group import wait_minutes
from fcos_cli.distributed.world import announced
from fcos_cli.errors import FcosError

DEMO: dict[str, Any] = {
    "model": {"channels": 64, "convs": 1, "ranges": [32.0, 64.0, 128.0, 256.0], "backbone_norm": "frozen"},
    "data": {"size": [160, 160]},
    "augment": {"crop": 0.0, "zoom_out": 0.0, "scale": [0.9, 1.1], "colour": 0.0, "mosaic": 0.0},
    "train": {"epochs": 4, "batch": 16, "lr": 0.001, "backbone_lr": 0.5, "freeze": 0, "val_every": 2, "ema": 0.98},
}
"""Settings of `--demo`, which takes minutes on a CPU."""


def demo_data(folder: Path) -> Path:
    """Generate the data set of `--demo`, unless it exists. If there are several processes on a machine, one does it.

    Raises FcosError in the others if that one does not finish.
    """
    last = folder / "val.json"
    if announced().local_rank == 0 and not last.is_file():
        say(f"generating the demo images in {folder}")
        write_shapes(folder, train=800, val=100, size=160)
    minutes, started = wait_minutes(os.environ), monotonic()
    while not last.is_file():
        if monotonic() - started > 60 * minutes:
            raise FcosError(
                f"the demo images were not finished within {minutes:g} minutes",
                where=folder,
                remedy="see the messages of the process that generates them, the first on this machine",
            )
        sleep(0.1)
    return folder
