"""Files → detections with a clock at every joint. Runs in the process that is measured.

Notable choices:
- What is timed is the detector itself, called as `fcos predict` calls it. Only where the network is a torch module are
  network and post-processing told apart, by a hook on that module; an exported graph holds both: no split is made up.
- Every turn covers the same pictures the same number of times, so that rows can be compared whatever the sizes of the
  pictures. It begins with an untimed batch: the caches are still another process's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

from fcos_cli.bench.messages import Sample
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.runtime.detector import Detector, detect_batch

Batch = tuple[Path, ...]

TURN_SECONDS = 0.25
"""A turn lasts at least so long: fast models answer several times in it, slow ones once per picture."""


def batches_of(pictures: Sequence[str], size: int) -> list[Batch]:
    """All `pictures` in batches of exactly `size`; the last one is filled up from the beginning."""
    count = -(-len(pictures) // size)
    endless = cycle(Path(picture) for picture in pictures)
    return [tuple(islice(endless, size)) for _ in range(count)]


class Pipeline:
    """One batch of files → detections, returning the milliseconds that each stage took."""

    def __init__(self, detector: Detector, rule: ResizeRule) -> None:
        self.detector, self.rule = detector, rule
        self._network = _NetworkClock(detector)

    def __call__(self, paths: Batch) -> Sample:
        begun = perf_counter()
        pictures = [open_image(path) for path in paths]
        opened = perf_counter()
        images, geometries = self.rule.batch(pictures)
        prepared = perf_counter()
        network_end = self._network.watch(lambda: detect_batch(self.detector, images, geometries))
        done = perf_counter()
        marks = {"open": opened - begun, "preprocess": prepared - opened, "total": done - begun}
        if network_end is None:
            marks["network_decode_nms"] = done - prepared
        else:
            marks |= {"network": network_end - prepared, "decode_nms": done - network_end}
        return {stage: 1e3 * seconds for stage, seconds in marks.items()}


class _NetworkClock:
    """Notes when a detector's torch module has finished; of other detectors it learns nothing."""

    def __init__(self, detector: Detector) -> None:
        self._ends = list[float]()
        self._wait: Callable[[], None] | None = None
        module: Any = getattr(detector, "model", None)
        if not hasattr(module, "register_forward_hook"):
            return
        module.register_forward_hook(self._finished)
        if str(detector.device).startswith("cuda"):  # a GPU is still at work when the call returns
            import torch

            self._wait = lambda: torch.cuda.synchronize(str(detector.device))

    def watch(self, detect: Callable[[], object]) -> float | None:
        """When the network was done with what `detect` asked of it: None unless that was exactly once."""
        self._ends.clear()
        detect()
        return self._ends[0] if len(self._ends) == 1 else None

    def _finished(self, *_: object) -> None:
        if self._wait is not None:
            self._wait()
        self._ends.append(perf_counter())


def warm_up(answer: Callable[[Batch], Sample], batches: Sequence[Batch], *, seconds: float = 2 * TURN_SECONDS) -> None:
    """Each batch at least twice (libraries prepare themselves for every new shape), and for `seconds` at least."""
    spent, passes = 0.0, 0
    while passes < 2 or spent < 1e3 * seconds:
        spent += sum(answer(batch)["total"] for batch in batches)
        passes += 1


def measure_turn(
    answer: Callable[[Batch], Sample], batches: Sequence[Batch], *, seconds: float = TURN_SECONDS
) -> list[Sample]:
    """All of `batches`, again and again until `seconds` have been spent; a sample for each but the first call."""
    samples: list[Sample] = []
    with _no_garbage_collection():
        answer(batches[0])
        while not samples or sum(sample["total"] for sample in samples) < 1e3 * seconds:
            samples += [answer(batch) for batch in batches]
    return samples


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
