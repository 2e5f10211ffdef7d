"""Several training processes stop together, and wait while the main one validates."""

from __future__ import annotations

import torch

from fcos_cli.distributed.group import largest
from fcos_cli.train.signals import StopRequest


def share_stop(stop: StopRequest, *, device: torch.device, done: bool = False) -> bool:
    """Make a signal that one process has received a request to all of them. Return `done` of any process.

    All processes must call it together.
    """
    number, finished = largest(float(stop.signal or 0), float(done), device=device)
    stop.signal = int(number) or None
    return bool(finished)


def wait_for_main(stop: StopRequest, *, device: torch.device) -> None:
    """Answer the calls of `share_stop` in the main process until it is done, or until a process was told to stop."""
    while not share_stop(stop, device=device) and not stop:
        pass
