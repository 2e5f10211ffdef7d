"""Several processes, one model: what `torchrun` sets up, in four facts. Without it: one process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class World:
    """rank 0…size-1 of this process; local_rank: its number on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """The process that writes files and speaks to people."""
        return self.rank == 0


@contextmanager
def join_world(*, cuda: bool, environ: Mapping[str, str] | None = None) -> Iterator[World]:
    """Join the group that torchrun announced in the environment, and leave it at the end."""
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
    finally:
        distributed.destroy_process_group()


def any_process(flag: bool, *, device: torch.device) -> bool:  # noqa: FBT001 (the flag is the subject)
    """Is `flag` true in any process? All must ask together."""
    if not distributed.is_initialized():
        return flag
    answer = torch.tensor(float(flag), device=device)
    distributed.all_reduce(answer, distributed.ReduceOp.MAX)
    return bool(answer.item())
