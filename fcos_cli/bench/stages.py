"""Run files → detections and time each stage. Runs in the measured process.

Notable choices:
- The detector itself is timed, called as `fcos predict` calls it. Network and post-processing are timed separately only
if the network is a torch module, with a hook on it; an exported graph contains both, and no split is estimated.
- Every turn covers the same images equally often, so rows are comparable whatever the image sizes. A turn starts with
an untimed batch, because the CPU caches still hold another process's data.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

from fcos_cli.bench.protocol import Sample
from fcos_cli.data.geometry import ResizeRule
from fcos_cli.data.images import open_image
from fcos_cli.runtime.detector import Detector, detect_batch

Batch = tuple[Path, ...]

TURN_SECONDS = 0.25
"""Minimum duration of a turn: fast models run several times in it, slow ones once per image."""


def batches_of(images: Sequence[str], size: int) -> list[Batch]:
    """Split the images into batches of exactly `size`; the last one is filled up from the beginning."""
    count = -(-len(images) // size)
    endless = cycle(Path(image) for image in images)
    return [tuple(islice(endless, size)) for _ in range(count)]


class Pipeline:
    """Runs one batch of files to detections and returns the milliseconds taken by each stage."""

    def __init__(self, detector: Detector, rule: ResizeRule) -> None:
        self.detector, self.rule = detector, rule
        self._network = _NetworkClock(detector)

    def __call__(self, paths: Batch) -> Sample:
        start = perf_counter()
        images = [open_image(path) for path in paths]
        opened = perf_counter()
        inputs, geometries = self.rule.batch(images)
        prepared = perf_counter()
        network_end = self._network.watch(lambda: detect_batch(self.detector, inputs, geometries))
        end = perf_counter()
        durations = {"open": opened - start, "preprocess": prepared - opened, "total": end - start}
        if network_end is None:
            durations["network_decode_nms"] = end - prepared
        else:
            durations |= {"network": network_end - prepared, "decode_nms": end - network_end}
        return {stage: 1e3 * seconds for stage, seconds in durations.items()}


class _NetworkClock:
    """Records when a detector's torch module has finished; does nothing for other detectors."""

    def __init__(self, detector: Detector) -> None:
        self._ends = list[float]()
        self._synchronize: Callable[[], None] | None = None
        module: Any = getattr(detector, "model", None)
        if not hasattr(module, "register_forward_hook"):
            return
        module.register_forward_hook(self._on_forward)
        if str(detector.device).startswith("cuda"):  # CUDA kernels may still be running when the call returns
            import torch

            self._synchronize = lambda: torch.cuda.synchronize(str(detector.device))

    def watch(self, detect: Callable[[], object]) -> float | None:
        """Run `detect`; return when the network finished, or None if it did not run exactly once."""
        self._ends.clear()
        detect()
        return self._ends[0] if len(self._ends) == 1 else None

    def _on_forward(self, *_: object) -> None:
        if self._synchronize is not None:
            self._synchronize()
        self._ends.append(perf_counter())


def warm_up(run: Callable[[Batch], Sample], batches: Sequence[Batch], *, seconds: float = 2 * TURN_SECONDS) -> None:
    """Run each batch at least twice (libraries set up kernels per shape), and for at least `seconds`."""
    spent, passes = 0.0, 0
    while passes < 2 or spent < 1e3 * seconds:
        spent += sum(run(batch)["total"] for batch in batches)
        passes += 1


def measure_turn(
    run: Callable[[Batch], Sample], batches: Sequence[Batch], *, seconds: float = TURN_SECONDS
) -> list[Sample]:
    """Run all of `batches` repeatedly until `seconds` have passed; return a sample per call except the first."""
    samples: list[Sample] = []
    with _no_garbage_collection():
        run(batches[0])
        while not samples or sum(sample["total"] for sample in samples) < 1e3 * seconds:
            samples += [run(batch) for batch in batches]
    return samples


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
