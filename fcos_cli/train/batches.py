"""The batches of a run in order, loaded by processes that live as long as the run."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from fcos_cli.data.cache import START_METHOD
from fcos_cli.data.training_set import Batch, EpochBatches, Example, Key, Unreadable, collate
from fcos_cli.errors import FcosError
from fcos_cli.hardware import allowed_cores
from fcos_cli.train.run import Run, training_set
from fcos_cli.train.signals import StoppedWaiting

SHORT_OF_SHARED_MEMORY = ("Bus error", "shared memory", "No space left on device")
DEATHS = (*SHORT_OF_SHARED_MEMORY, "is killed by signal", "exited unexpectedly")
"""What torch says when a loader process has died."""


class Position(NamedTuple):
    """A step of a run: the epoch, the number of the batch in it, and the batch's images."""

    epoch: int
    number: int
    keys: list[Key]


class BatchStream:
    """Batches from a run's current position on, without end.

    The loader processes are started once: after each start, a step is several times slower, since the memory that it
    writes to is copied first.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.loaded: Iterator[Batch] = iter(())
        self.restart()

    def close(self) -> None:
        """End the loader processes. They ignore SIGTERM, so one that hangs is killed."""
        shut_down = getattr(self.loaded, "_shutdown_workers", None)  # torch has no public way
        if shut_down is not None:
            shut_down()
        for child in getattr(self.loaded, "_workers", ()):
            child.kill()
            child.join()

    def restart(self) -> None:
        """Go to the position in `run.progress`, without the batches that it leaves out."""
        self.close()
        run = self.run
        self.ahead = positions(run)
        self.upcoming = next(self.ahead)
        self.loaded = iter(image_loader(run, _Keys(positions(run))))

    def epoch(self, epoch: int) -> Iterator[tuple[int, Batch]]:
        """The rest of an epoch: the number of each batch in it, and the batch."""
        while self.upcoming.epoch == epoch:
            number = self.upcoming.number
            self.upcoming = next(self.ahead)
            yield number, self._load()

    def _load(self) -> Batch:
        """The next batch. A signal ends the wait for it, with the state saved: a loader process may hang."""
        run = self.run
        try:
            try:
                run.stop.waiting = run.world.size == 1  # several processes have to stop after the same step
                return next(self.loaded)
            finally:
                run.stop.waiting = False
        except StoppedWaiting:
            run.save()
            raise run.stopped() from None
        except (EOFError, ConnectionError) as error:  # it died while it handed over a batch
            raise RuntimeError("the loader process exited unexpectedly") from error


@contextmanager
def explaining_deaths() -> Iterator[None]:
    """Turn the death of a loader process into one clear error.

    torch raises it in the main thread at any moment, also in the middle of a step, so nothing is saved then.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(words in text for words in DEATHS):
            raise
        if any(words in text for words in SHORT_OF_SHARED_MEMORY):
            what, where, remedy = "ran out of shared memory", "/dev/shm", "or docker run --shm-size=1g"
        else:
            what, where, remedy = "was killed", " ".join(text.split())[:100], "or free some memory"
        raise FcosError(
            f"a data loader process {what}",
            where=where,
            remedy=f"use --workers 0, {remedy}; the last saved state is kept, and --resume continues from it",
        ) from error


def positions(run: Run) -> Iterator[Position]:
    """Positions from `run.progress` on (as it is now), without end.

    After a pending validation comes the next epoch, even if a time limit cut this one short, or if it has more steps
    with the present number of processes.
    """
    progress = run.progress
    epoch, first = (progress.epoch + 1, 0) if progress.pending_validation else (progress.epoch, progress.step_in_epoch)
    return _positions(run, epoch, first, left_out={(skipped, number) for skipped, number in progress.skipped})


def _positions(run: Run, epoch: int, first: int, *, left_out: set[tuple[int, int]]) -> Iterator[Position]:
    while True:
        batches = EpochBatches(
            len(run.train),
            batch=run.config.train.batch,
            seed=run.config.train.seed,
            epoch=epoch,
            rank=run.world.rank,
            world=run.world.size,
            repeats=run.repeats,
        )
        for number, keys in enumerate(batches):
            if number >= first and (epoch, number) not in left_out:
                alone = _mosaic_is_closed(run, epoch + number / len(batches))
                yield Position(epoch, number, [key._replace(alone=alone) for key in keys])
        epoch, first = epoch + 1, 0


def _mosaic_is_closed(run: Run, epochs: float) -> bool:
    """Whether the last part of a run has begun when this many epochs are done: from then on, images come alone (YOLOX,
    §2.1), as they do in the cool-down of a run that ends early.

    With a time limit, the batches that are being loaded at that moment are the last mosaics.
    """
    share = run.config.augment.close_mosaic
    if share > 0 and run.progress.end is not None:
        return True
    done = epochs / run.length.epochs if run.length.limit is None else run.parts.schedule.progress
    return share > 0 and done >= 1 - share


class _Keys(Sampler[list[Key]]):
    def __init__(self, source: Iterator[Position]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[list[Key]]:
        return (position.keys for position in self.source)


def image_loader(run: Run, keys: Iterable[list[Key]]) -> DataLoader[Any]:
    """Load the batches with these keys, in order, in worker processes."""
    workers = run.config.train.workers
    if workers < 0:
        workers = min(8, max(1, allowed_cores() // run.world.local_size // 2))
    return DataLoader(
        training_set(run.config, run.train.samples, cache=run.cache),
        batch_sampler=keys,
        collate_fn=_shared,
        num_workers=workers,
        multiprocessing_context=START_METHOD if workers else None,
        pin_memory=run.device.type == "cuda",
        worker_init_fn=_ignore_signals if workers else None,
        generator=torch.Generator(),  # iterators draw a seed; the global generator must stay as it is for resuming
    )


def _shared(examples: list[Example | Unreadable]) -> Batch:
    """Combine examples, in shared memory if this is a loader process.

    torch would move them there itself, in a thread whose failure for lack of space is not reported to the training
    process, which would wait forever.
    """
    batch = collate(examples)
    if get_worker_info() is not None:
        for tensor in (batch.images, *batch.truth):
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    return batch


def _ignore_signals(_worker: int) -> None:
    """Ignore SIGINT and SIGTERM, which reach the whole process group: only the training loop handles them."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
