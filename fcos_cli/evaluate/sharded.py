"""`fcos eval` by several processes: each detects in its share of the images, and the main one scores them all.

Whole batches are shared out, so that every image is in the same batch as with one process: how a network rounds can
depend on the other images of a batch, and so can the padding. After each batch all processes hear how far the others
are, so that one that fails or dies ends all of them soon. One process needs no torch for this.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

from fcos_cli.data.samples import Dataset, fingerprint
from fcos_cli.data.tiling import Tiling
from fcos_cli.distributed.world import World, announced, messages_of, use_own_gpu
from fcos_cli.errors import FcosError
from fcos_cli.evaluate.coco import NO_DETECTIONS, collect_detections, reading_order
from fcos_cli.extras import require_train, versions
from fcos_cli.predict.pipeline import Failure
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.results import Detections

T = TypeVar("T")
PACKAGES = {
    "pytorch": ("torch",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu13-bindings"),
}
"""Packages of each backend; at least one of them is installed."""


@contextmanager
def eval_processes() -> Iterator[World]:
    """Join the other processes that torchrun has started, if any. An FcosError of one ends all, with one message."""
    world = announced()
    if world.size == 1:
        yield world
        return
    require_train("an evaluation by several processes")
    use_own_gpu(world)
    from fcos_cli.distributed.group import failing_together, join_world

    with messages_of(world), join_world("fcos eval"), failing_together():
        yield world


def check_alike(
    detectors: Sequence[Detector], dataset: Dataset, *, batch: int, lowest: float, tiling: Tiling | None
) -> None:
    """Raise UsageError in all processes if they do not evaluate the same models on the same data in the same way."""
    from fcos_cli.distributed import group

    facts = {"data": fingerprint(dataset), "number of images per batch": str(batch)}
    facts |= {"lowest score": str(lowest), "tiles": str(tiling)}
    for number, detector in enumerate(detectors, start=1):
        model = f"model {number}, {detector.name}" if len(detectors) > 1 else f"model {detector.name}"
        facts[model] = hashlib.sha256(repr(detector.facts).encode()).hexdigest()[:16]
        installed = versions(PACKAGES[detector.backend])
        facts[f"version of {detector.backend}"] = ", ".join(" ".join(pair) for pair in installed.items())
        facts[f"device of {model}"] = f"{str(detector.device).partition(':')[0]} in {detector.precision}"
    group.check_alike(facts)


def share_of(order: Sequence[T], *, batch: int, rank: int, world: int) -> list[T]:
    """The part of `order` for one process: every `world`-th batch."""
    batches = [order[first : first + batch] for first in range(0, len(order), batch)]
    return [item for part in batches[rank::world] for item in part]


def detect_together(
    detector: Detector,
    dataset: Dataset,
    *,
    batch: int,
    tiling: Tiling | None,
    world: World,
    on_progress: Callable[[int, int], None],
    on_unreadable: Callable[[Failure], None] | None = None,
) -> tuple[list[Detections], list[str]]:
    """What `collect_detections` returns, by all processes. Only the main one gets the detections; the others get none.

    on_progress: called with the images done by all processes, and their total. on_unreadable: as there, but called in
    the main process only, at the end.
    """
    if world.size == 1:
        return collect_detections(
            detector, dataset, batch=batch, tiling=tiling, on_progress=on_progress, on_unreadable=on_unreadable
        )
    from fcos_cli.distributed import group

    together = 1 if tiling else batch
    order = reading_order(detector.facts.resize, dataset.samples)
    shares = [share_of(order, batch=together, rank=rank, world=world.size) for rank in range(world.size)]
    samples = [dataset.samples[index] for index in shares[world.rank]]
    rounds = _Rounds(together, math.ceil(len(order) / (together * world.size)), len(order), on_progress)
    mine: list[Detections] = []
    failures: list[Failure] = []
    notes: list[str] = []
    error: FcosError | None = None
    try:
        mine, notes = collect_detections(
            detector,
            replace(dataset, samples=samples),
            batch=batch,
            tiling=tiling,
            on_progress=rounds.image,
            on_unreadable=None if on_unreadable is None else failures.append,
        )
        rounds.finish()
    except _AnotherFailedError:
        pass
    except FcosError as caught:
        error = caught
        rounds.fail()
    group.raise_together(error)
    found = [NO_DETECTIONS] * (len(order) if world.main else 0)
    for share, (theirs, unreadable) in zip(shares, group.sent_to_main((mine, failures)), strict=False):
        for index, detections in zip(share, theirs, strict=True):
            found[index] = detections
        for failure in unreadable:
            assert on_unreadable is not None
            on_unreadable(failure)
    return found, notes


class _AnotherFailedError(Exception):
    """Another process cannot go on."""


class _Rounds:
    """The batches of all processes, side by side. After each round all processes hear of the others.

    A process with fewer batches than others takes part in the rest of the `count` rounds without any.
    """

    def __init__(self, batch: int, count: int, images: int, on_progress: Callable[[int, int], None]) -> None:
        self.batch, self.count, self.images, self.on_progress = batch, count, images, on_progress
        self.past = self.mine = self.done = 0

    def image(self, done: int, total: int) -> None:
        """Called after each image of this process: `done` of `total`."""
        if done % self.batch == 0 or done == total:
            self._round(done - self.mine)
            self.mine = done

    def finish(self) -> None:
        while self.past < self.count:
            self._round(0)

    def fail(self) -> None:
        """Tell the others, unless they are past their last round and will hear of the error at once."""
        if self.past < self.count:
            self._exchange(0, failed=True)

    def _round(self, images: int) -> None:
        if self._exchange(images, failed=False):
            raise _AnotherFailedError
        self.on_progress(self.done, self.images)

    def _exchange(self, images: int, *, failed: bool) -> bool:
        from fcos_cli.distributed import group

        self.past += 1
        images_of_all, failures = group.total(float(images), float(failed))
        self.done += round(images_of_all)
        return failures > 0


def while_others_wait(world: World) -> AbstractContextManager[None]:
    """Work alone in the main process. The others call `wait_for_main`."""
    if world.size == 1:
        return nullcontext()
    from fcos_cli.distributed import group

    return group.while_others_wait()


def wait_for_main() -> None:
    """Wait until the main process has finished its work alone."""
    from fcos_cli.distributed import group

    group.wait_for_main()
