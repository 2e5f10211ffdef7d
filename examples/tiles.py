"""Measure the effect of tiles: small copies of the demo photos on a large canvas, detected with and without tiles.

    python examples/tiles.py [--tile 640] [--sizes 160 240 480]

Up to 40 copies of each photo are pasted at random places on 4000 × 3000 grey pixels with some noise. Their longer side
is one of the sizes. A copy counts as found if a detection of its class has IoU ≥ 0.5 with the box that the detector
finds in the photo itself. The last canvas with the detections found with tiles is saved as build/tiles.jpg.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from fcos_cli.data.images import open_image
from fcos_cli.data.tiling import Tiling
from fcos_cli.predict.draw import draw, save_image
from fcos_cli.predict.pipeline import predict
from fcos_cli.predict.selection import report_thresholds
from fcos_cli.predict.sources.frames import Frame
from fcos_cli.runtime.detector import Detector
from fcos_cli.runtime.open import open_detector
from fcos_cli.runtime.results import Detections

CANVAS, COPIES = (4000, 3000), 40
PHOTOS = sorted(Path(__file__).parent.glob("photos/*.jpg"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 240, 480])
    options = parser.parse_args()
    detector = open_detector("default")
    tiling = Tiling(options.tile, options.overlap)
    print(f"{'size':>5} {'objects':>8} {'recall':>8} {'with tiles':>11} {'false':>6} {'with tiles':>11} {'seconds':>8}")
    for size in options.sizes:
        image, truth = scene(detector, size)
        plain, tiled = detect(detector, image, None), detect(detector, image, tiling)
        (hits, false, _), (tile_hits, tile_false, seconds) = count(*plain, truth), count(*tiled, truth)
        print(
            f"{size:>5} {len(truth):>8} {hits / len(truth):>8.3f} {tile_hits / len(truth):>11.3f} {false:>6} "
            f"{tile_false:>11} {seconds:>8.1f}"
        )
    save_image(Path("build/tiles.jpg"), draw(image, tiled[0], detector.facts.classes, max_side=2000))


def scene(detector: Detector, size: int) -> tuple[np.ndarray, Detections]:
    """Return a canvas and the ground truth."""
    random = np.random.default_rng(size)
    canvas = random.normal(128, 12, (CANVAS[1], CANVAS[0], 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
    boxes, classes, occupied = [], [], []
    for photo in PHOTOS:
        image = open_image(photo)
        (result,) = predict(detector, [photo], threshold=report_thresholds(detector.facts, score=None, chosen=None))
        scale = size / max(image.shape[:2])
        width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
        small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
        for _ in range(COPIES):
            x, y = free_position(random, width, height, occupied)
            if x < 0:
                break
            occupied.append((x, y, x + width, y + height))
            canvas[y : y + height, x : x + width] = small
            boxes.append(result.detections.boxes[0] * scale + np.array([x, y, x, y], np.float32))
            classes.append(result.detections.classes[0])
    return canvas, Detections(np.array(boxes), np.ones(len(boxes), np.float32), np.array(classes))


def free_position(random: np.random.Generator, width: int, height: int, occupied: list) -> tuple[int, int]:
    for _ in range(1000):
        x, y = int(random.integers(0, CANVAS[0] - width)), int(random.integers(0, CANVAS[1] - height))
        if all(x + width <= a or c <= x or y + height <= b or d <= y for a, b, c, d in occupied):
            return x, y
    return -1, -1


def detect(detector: Detector, image: np.ndarray, tiling: Tiling | None) -> tuple[Detections, float]:
    start = perf_counter()
    frame = Frame(Path("canvas"), image)
    thresholds = report_thresholds(detector.facts, score=None, chosen=None)
    (result,) = predict(detector, [frame], threshold=thresholds, tiling=tiling, batch=4)
    return result.detections, perf_counter() - start


def count(found: Detections, seconds: float, truth: Detections) -> tuple[int, int, float]:
    """Return the number of objects found, the number of false detections, and the seconds."""
    missed = set(range(len(truth)))
    for box, index in zip(found.boxes, found.classes, strict=True):
        shared = np.clip(np.minimum(box[2:], truth.boxes[:, 2:]) - np.maximum(box[:2], truth.boxes[:, :2]), 0, None)
        shared = shared.prod(axis=1)
        areas = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
        overlap = np.where(truth.classes == index, shared / (areas - shared), 0)
        best = int(overlap.argmax())
        if overlap[best] >= 0.5:
            missed.discard(best)
    hits = len(truth) - len(missed)
    return hits, len(found) - hits, seconds


if __name__ == "__main__":
    main()
