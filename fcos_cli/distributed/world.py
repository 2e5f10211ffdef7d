"""The processes of a run, as `torchrun` announces them in the environment. Without it there is one. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from fcos_cli.console import quiet
from fcos_cli.errors import UsageError
from fcos_cli.hardware import allowed_cores

NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables without which several processes cannot find each other."""


@dataclass(frozen=True)
class World:
    """The processes of a run. rank: of this process, 0…size-1. local_rank, local_size: the same on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0


def announced(environ: Mapping[str, str] | None = None) -> World:
    """The processes that the environment announces. Raises UsageError if a part of the announcement is missing."""
    env = os.environ if environ is None else environ
    size = _number(env, "WORLD_SIZE", 1)
    if size == 1:
        return World()
    if missing := [name for name in NEEDED if not env.get(name)]:
        raise UsageError(
            f"WORLD_SIZE is {size}, but {missing[0]} is not set",
            where="the environment",
            remedy="start the processes with torchrun, or unset WORLD_SIZE",
        )
    local = _number(env, "LOCAL_RANK", 0), _number(env, "LOCAL_WORLD_SIZE", size)
    return World(_number(env, "RANK", 0), size, *local)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(f"{name} is {text!r}, not a number", where="the environment", remedy=f"unset {name}")
    return int(text)


def messages_of(world: World) -> AbstractContextManager[None]:
    """Print no messages inside the block, unless this is the main process."""
    return nullcontext() if world.main else quiet()


def threads_of(world: World) -> int | None:
    """The share of this process in the CPU cores of its machine; None if it has the machine for itself."""
    if world.local_size == 1:
        return None
    return max(1, allowed_cores() // world.local_size)


def use_own_gpu(world: World, environ: MutableMapping[str, str] | None = None) -> None:
    """Let this process see one GPU of its machine, the one of its local rank. Call it before CUDA is used.

    A list that is too short, or a machine with fewer GPUs than processes, is noticed later, because the devices of the
    processes then differ.
    """
    env = os.environ if environ is None else environ
    listed = env.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(world.local_size)] if listed is None else listed.split(",")
    if world.local_size > 1 and world.local_rank < len(names):
        env["CUDA_VISIBLE_DEVICES"] = names[world.local_rank]
