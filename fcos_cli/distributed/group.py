"""The process group of a run of several processes: join it, fail together, and share what the main process knows.

All functions but `join_world` and `telling_others` do nothing special where no group was joined. Inside it, all
processes have to call them together. Objects travel as pickles, which is for processes of one's own run only.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import distributed

from fcos_cli import __version__
from fcos_cli.distributed.world import World, announced
from fcos_cli.errors import FcosError, UsageError, first_line

T = TypeVar("T")
Task = Literal["fcos train", "fcos train --resume", "fcos eval"]

WAIT, MINUTES = "FCOS_WAIT_MINUTES", 10.0
"""Variable, and its default: minutes without an answer after which another process counts as lost."""

LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "ncclRemoteError",
    "remote process exited",
)
SILENT = ("Timed out", "timed out", "timeout")
"""What torch reports when another process has died, and when it does not answer."""

BEAT = 1.0
"""Seconds between two signs of life of a main process that works alone."""


@contextmanager
def join_world(
    task: Task, *, error: FcosError | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[World]:
    """Join the process group that the environment announces, and leave it at the end; inside another such block, do
    neither. A single process has no group.

    task: what this process is going to do. error: why it cannot. Raises the error of any process in all of them;
    UsageError if they do not do the same with the same versions; FcosError if another process does not join, ends or
    stops answering.
    """
    world = announced(environ)
    if world.size == 1 or distributed.is_initialized():
        raise_together(error)
        yield world
        return
    minutes = wait_minutes(os.environ if environ is None else environ)
    _meet(world, minutes)
    try:
        with _explaining_losses(task, minutes):
            raise_together(error)
            check_alike({"command": task, "fcos-cli": __version__, "torch": str(torch.__version__)})
            yield world
        _leave_together()
    except FcosError as error:
        if error.shared:
            _leave_together()
        raise
    finally:
        distributed.destroy_process_group()


def _leave_together() -> None:
    """Wait for the others before the connections are closed: one may still be receiving what this process has sent."""
    with suppress(RuntimeError):  # another has just ended, after doing the same
        distributed.barrier()


@contextmanager
def telling_others(task: Task) -> Iterator[None]:
    """Before the group is joined: raise an FcosError of the block also in the processes that wait for this one."""
    try:
        yield
    except FcosError as error:
        try:
            with join_world(task, error=error):
                pass
        except FcosError as told:
            if told.shared:
                raise told from None
        raise


def wait_minutes(environ: Mapping[str, str]) -> float:
    """The value of FCOS_WAIT_MINUTES. Raises UsageError if it is not a number above 0."""
    text = environ.get(WAIT) or str(MINUTES)
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise UsageError(f"{WAIT} is {text!r}, not a number of minutes", where="the environment", remedy=f"unset {WAIT}")


def _meet(world: World, minutes: float) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, timeout=timedelta(minutes=minutes))
    except RuntimeError as error:
        raise FcosError(
            f"the {world.size} processes of this run could not connect to each other ({first_line(error)})",
            where=f"rank {world.rank} on {platform.node()}",
            remedy="see the messages of the other processes; if all have started, check that the machines can reach "
            f"each other's ports. GLOO_SOCKET_IFNAME sets the network interface, {WAIT} the minutes to wait",
        ) from error


@contextmanager
def _explaining_losses(task: Task, minutes: float) -> Iterator[None]:
    """Turn what torch says about a lost process into one clear error."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if any(words in text for words in LOST):
            what = "another process of this run has ended unexpectedly"
        elif any(words in text for words in SILENT):
            what = f"another process of this run has not answered for {minutes:g} minutes"
        else:
            raise
        again = "run the command again" if task == "fcos eval" else "continue with --resume and the run folder"
        raise FcosError(what, remedy=f"see its messages; then {again}") from error


def exchange(value: Any = None, *, error: FcosError | None = None) -> list[tuple[str, Any]]:
    """The name of the machine and the `value` of each process, by rank. Raises the first `error` in all of them."""
    if not distributed.is_initialized():
        if error is not None:
            raise error
        return [(platform.node(), value)]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, (platform.node(), value, error))
    for rank, (machine, _, theirs) in enumerate(everyone):
        if rank == distributed.get_rank():
            theirs = error  # with its traceback
        if theirs is not None and rank:
            place = f"rank {rank} on {machine}"
            theirs.where = place if theirs.where is None else f"{theirs.where} ({place})"
        _raise_everywhere(theirs)
    return [(machine, value) for machine, value, _ in everyone]


def _raise_everywhere(error: FcosError | None) -> None:
    """Raise an error that all processes have; the main process prints it."""
    if error is not None:
        error.shared, error.elsewhere = True, distributed.get_rank() != 0
        raise error


def raise_together(error: FcosError | None) -> None:
    """Raise the first error that any process has in all of them."""
    exchange(error=error)


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise an FcosError that one process meets in the block in all of them: at its end, or at their next exchange."""
    error: FcosError | None = None
    try:
        yield
    except FcosError as caught:
        if caught.shared:
            raise
        error = caught
    raise_together(error)


def check_alike(facts: Mapping[str, str]) -> None:
    """Raise UsageError in all processes if they differ in one of these facts, given by their names in plain words."""
    everyone = exchange(dict(facts))
    first_machine, first = everyone[0]
    for rank, (machine, theirs) in enumerate(everyone):
        for name, value in first.items():
            if theirs.get(name) != value:
                _raise_everywhere(
                    UsageError(
                        f"the processes of this run do not have the same {name}",
                        where=f"{value} for rank 0 on {first_machine}, {theirs.get(name)} for rank {rank} on {machine}",
                        remedy="start all of them with the same command, data and packages",
                    )
                )


def check_own_gpus(device: torch.device) -> None:
    """Raise UsageError in all processes if a machine has fewer GPUs than processes. device: of this process."""
    own = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
    machines: dict[str, list[str | None]] = {}
    for machine, gpu in exchange(own):
        machines.setdefault(machine, []).append(gpu)
    for machine, gpus in machines.items():
        count = len({*gpus} - {None})
        if 0 < count < len(gpus):
            _raise_everywhere(
                UsageError(
                    f"there are {len(gpus)} processes for {count} GPU{'s' if count > 1 else ''}",
                    where=machine,
                    remedy=f"use torchrun --nproc-per-node {count}, or --device cpu",
                )
            )


def from_main_process(value: T) -> T:
    """Return the `value` of the main process in every process."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def by_main_process(make: Callable[[], T]) -> T:
    """What `make` returns in the main process, which alone calls it, or the FcosError that it raises there."""
    if not distributed.is_initialized():
        return make()
    made: Any = None
    with failing_together():
        if distributed.get_rank() == 0:
            made = make()
    value: T = from_main_process(made)
    return value


def sent_to_main(value: T) -> Iterator[T]:
    """In the main process the `value` of each process, by rank, one at a time. In the others nothing."""
    if distributed.get_rank() != 0:
        distributed.send_object_list([value], dst=0)
        return
    yield value
    for rank in range(1, distributed.get_world_size()):
        received: list[Any] = [None]
        distributed.recv_object_list(received, src=rank)
        yield received[0]


@contextmanager
def while_others_wait() -> Iterator[None]:
    """Work alone in the main process, however long it takes, while the others are in `wait_for_main`."""
    done = threading.Event()

    def beat() -> None:
        with suppress(RuntimeError):  # another process is gone: the next exchange reports it
            while not done.wait(BEAT):
                largest(0.0)

    thread = threading.Thread(target=beat, name="fcos-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        largest(1.0)


def wait_for_main() -> None:
    """Wait until the main process leaves its block of `while_others_wait`."""
    while not largest(0.0)[0]:
        pass


def any_process(flag: bool) -> bool:  # noqa: FBT001 (the flag is the subject)
    """Return True if `flag` is true in any process."""
    return bool(largest(float(flag))[0])


def largest(*values: float) -> list[float]:
    """Each value's maximum over all processes."""
    return _reduced(values, distributed.ReduceOp.MAX)


def total(*values: float) -> list[float]:
    """Each value's sum over all processes."""
    return _reduced(values, distributed.ReduceOp.SUM)


def _reduced(values: tuple[float, ...], operation: Any) -> list[float]:
    """Over the CPU, also if the run is on GPUs: gloo reports at once that another process has died."""
    if not distributed.is_initialized():
        return list(values)
    shared = torch.tensor(values, device="cpu", dtype=torch.float64)
    distributed.all_reduce(shared, operation)
    return shared.tolist()
