"""Compare the throughput of predicting a folder with that of the network alone on prepared arrays.

    python examples/folder_speed.py FOLDER [--model default] [--count 200] [--rounds 5]

Both run alternately in one process, with the same images and threads. The ratio is the median over the rounds of
(time of the network alone) / (time of the whole pipeline: reading, decoding, resizing, network, boxes in source
pixels). If the network keeps all cores busy, the ratio cannot exceed (network's CPU time) / (network's + opening's CPU
time), which is printed too.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter, process_time

from fcos_cli.allocator import keep_freed_memory
from fcos_cli.data.images import open_image
from fcos_cli.predict.pipeline import Failure, predict
from fcos_cli.predict.sources.open import open_sources
from fcos_cli.runtime.open import open_detector


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default=None)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()
    detector = open_detector(options.model, backend=options.backend)
    paths = [path for path, _ in zip(open_sources([options.folder]), range(options.count), strict=False)]
    groups = [paths[n : n + options.batch] for n in range(0, len(paths), options.batch)]
    ready = [detector.facts.resize.batch([open_image(path) for path in group])[0] for group in groups]

    start = process_time()
    for group in groups:
        detector.facts.resize.batch([open_image(path) for path in group])
    opening = (process_time() - start) / len(paths)

    rows = []
    for number in range(options.rounds + 1):
        alone, alone_cpu = timed(lambda: [detector(images) for images in ready])
        whole, whole_cpu = timed(lambda: check(list(predict(detector, paths, batch=options.batch))))
        if number:  # the first round is a warm-up
            rows.append((alone / whole, alone, whole, alone_cpu, whole_cpu))
    ratios, alone, whole, alone_cpu, whole_cpu = (median(column) for column in zip(*rows, strict=True))
    per = 1000 / len(paths)
    print(f"{len(paths)} images, {detector.name} on {detector.backend}, batch {options.batch}, {options.rounds} rounds")
    print(f"network alone  {len(paths) / alone:7.1f} images/s, {alone_cpu * per:6.1f} ms of CPU each")
    print(f"whole pipeline {len(paths) / whole:7.1f} images/s, {whole_cpu * per:6.1f} ms of CPU each")
    bound = alone_cpu * per / (alone_cpu * per + opening * 1000)
    print(f"opening and resizing take {opening * 1000:.1f} ms of CPU each, so the bound is {bound:.3f}")
    print(f"ratio {ratios:.3f} (rounds: {', '.join(f'{row[0]:.3f}' for row in rows)})")


def timed(work) -> tuple[float, float]:
    """Return wall-clock and CPU time in seconds."""
    start, cpu = perf_counter(), process_time()
    work()
    return perf_counter() - start, process_time() - cpu


def check(results: list) -> None:
    assert not any(isinstance(result, Failure) for result in results), "an image cannot be read; choose another folder"


if __name__ == "__main__":
    main()
