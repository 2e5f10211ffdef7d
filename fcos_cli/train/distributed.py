"""Distributed training: the process group that `torchrun` announces. Without it there is one process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from fcos_cli.errors import FcosError
from fcos_cli.train.signals import StopRequest

LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")
"""What gloo reports when another process has died."""


@dataclass(frozen=True)
class World:
    """Process group of a run. rank: of this process, 0…size-1. local_rank: its rank on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0


@contextmanager
def join_world(*, cuda: bool, environ: Mapping[str, str] | None = None) -> Iterator[World]:
    """Join the process group announced in the environment, and leave it at the end."""
    env = os.environ if environ is None else environ
    if int(env.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    world = World(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", "0")))
    if cuda:
        torch.cuda.set_device(world.local_rank)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield world
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST_CONNECTION):
            raise
        raise FcosError(
            "another training process has ended unexpectedly",
            remedy="see its messages; then go on with --resume and the run folder",
        ) from error
    finally:
        distributed.destroy_process_group()


def from_main_process(value: Any) -> Any:
    """Return the `value` of the main process in every process. All processes must call it together."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def any_process(flag: bool, *, device: torch.device) -> bool:  # noqa: FBT001 (the flag is the subject)
    """Return True if `flag` is true in any process. All processes must call it together."""
    return bool(_maximum(float(flag), device=device)[0])


def share_stop(stop: StopRequest, *, device: torch.device, done: bool = False) -> bool:
    """Make a signal that one process has received a request to all of them. Return `done` of any process.

    All processes must call it together.
    """
    number, finished = _maximum(float(stop.signal or 0), float(done), device=device)
    stop.signal = int(number) or None
    return bool(finished)


def wait_for_main(stop: StopRequest, *, device: torch.device) -> None:
    """Answer the calls of `share_stop` in the main process until it is done, or until a process was told to stop."""
    while not share_stop(stop, device=device) and not stop:
        pass


def _maximum(*values: float, device: torch.device) -> list[float]:
    """Each value's maximum over all processes."""
    if not distributed.is_initialized():
        return list(values)
    shared = torch.tensor(values, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return shared.tolist()
