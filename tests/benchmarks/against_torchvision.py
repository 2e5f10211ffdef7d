"""Compare post-processing and target assignment with torchvision's, on the same tensors.

Usage: python tests/benchmarks/against_torchvision.py

Both implementations alternate; the reported speed-up is the median over rounds of torchvision's time / ours. Their
results are first checked to be equal. Peak memory is measured in a separate process per implementation and task, above
the memory in use after creating the inputs.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from fcos_cli.allocator import keep_freed_memory
from fcos_cli.model.config import STRIDES, ModelConfig
from fcos_cli.model.decode import decode
from fcos_cli.model.head import RawOutputs
from fcos_cli.model.nms import suppress
from fcos_cli.model.points import all_points, make_grids
from fcos_cli.model.presets import PRESETS
from fcos_cli.model.targets import Truth, assign_targets

ROUNDS, CLASSES = 15, 80
PRESET = PRESETS["torchvision"]
SIZE = (800, 1088)  # 800 × 1066, padded to whole cells


def torchvision_model() -> Any:
    class Backbone(torch.nn.Module):
        out_channels = 256

    return detection.FCOS(Backbone(), num_classes=CLASSES)


def level_sizes() -> list[tuple[int, int]]:
    return [(-(-SIZE[0] // stride), -(-SIZE[1] // stride)) for stride in STRIDES]


def post_processing() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Batch of 8, 80 classes, with about 1 in 1,000 logits above the threshold, as for a typical image."""
    generator = torch.Generator().manual_seed(0)
    raw = RawOutputs([], [], [])
    for (height, width), stride in zip(level_sizes(), STRIDES, strict=True):
        raw.cls.append(torch.randn(8, CLASSES, height, width, generator=generator) - 5.5)
        raw.ltrb.append(torch.rand(8, 4, height, width, generator=generator) * 6 * stride)
        raw.ctr.append(torch.randn(8, 1, height, width, generator=generator))
    model = torchvision_model()
    sizes = [(800, 1066)] * 8
    anchors = model.anchor_generator(ImageList(torch.empty(8, 3, *SIZE), sizes), raw.cls)
    counts = [height * width for height, width in level_sizes()]
    split = [list(anchor.split(counts)) for anchor in anchors]
    outputs = {
        "cls_logits": [level.flatten(2).transpose(1, 2).contiguous() for level in raw.cls],
        "bbox_regression": [
            (level / stride).flatten(2).transpose(1, 2).contiguous()
            for level, stride in zip(raw.ltrb, STRIDES, strict=True)
        ],
        "bbox_ctrness": [level.flatten(2).transpose(1, 2).contiguous() for level in raw.ctr],
    }
    config = ModelConfig(conventions=PRESET.conventions, **PRESET.model)
    inside = torch.tensor(sizes)

    def torchvision_fn() -> list[Tensor]:
        return [detections["boxes"] for detections in model.postprocess_detections(outputs, split, sizes)]

    def ours() -> list[Tensor]:
        candidates = decode(raw, height=SIZE[0], width=SIZE[1], config=config, sizes=inside)
        detections = suppress(
            candidates, iou=config.nms_iou, max_detections=config.max_detections, conventions=config.conventions
        )
        return [boxes[:count] for boxes, count in zip(detections.boxes, detections.counts.tolist(), strict=True)]

    return torchvision_fn, ours


def target_assignment() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """16 images with 50 boxes each."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(16, 50, 2, generator=generator) * torch.tensor([900.0, 650.0])
    boxes = torch.cat((corners, corners + 8 + 400 * torch.rand(16, 50, 2, generator=generator) ** 3), 2)
    labels = torch.randint(0, CLASSES, (16, 50), generator=generator)
    features = [torch.empty(1, 1, *size) for size in level_sizes()]
    model = torchvision_model()
    anchors = model.anchor_generator(ImageList(torch.empty(16, 3, *SIZE), [SIZE] * 16), features)
    counts = [height * width for height, width in level_sizes()]
    targets = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]
    model.head.compute_loss = lambda targets, head_outputs, anchors, matched: matched  # the assignment only
    points = all_points(make_grids(level_sizes(), STRIDES, conventions=PRESET.conventions, input_size=SIZE))
    truth = Truth(boxes, labels, torch.zeros_like(labels, dtype=torch.bool))

    def torchvision_fn() -> list[Tensor]:
        matched: list[Tensor] = model.compute_loss(targets, {}, anchors, counts)
        return matched

    def ours() -> list[Tensor]:
        assigned = assign_targets(points, truth, ranges=PRESET.model["ranges"], conventions=PRESET.conventions)
        return list(assigned.box)

    return torchvision_fn, ours


TASKS: dict[str, Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]] = {
    "decode + NMS, batch of 8, 80 classes": post_processing,
    "target assignment, 16 images, 50 boxes each": target_assignment,
}


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_mb(task: str, side: int) -> float:
    """Peak memory of one call in megabytes above that of the inputs, in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (task, side))


def _peak(task: str, side: int) -> float:
    call = TASKS[task]()[side]
    Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak
    before = _peak_kb()
    call()
    return (_peak_kb() - before) / 1024


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, 800 x 1066 in {SIZE}")
    for task, make in TASKS.items():
        torchvision_fn, ours = make()
        if not all(torch.equal(a, b) for a, b in zip(torchvision_fn(), ours(), strict=True)):
            sys.exit(f"{task}: the results differ")
        pairs = []
        for turn in range(ROUNDS):
            order = (torchvision_fn, ours) if turn % 2 else (ours, torchvision_fn)
            seconds = {call: timed(call) for call in order}
            pairs.append((seconds[torchvision_fn], seconds[ours]))
        ratio = statistics.median(a / b for a, b in pairs)
        a, b = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
        memory = [peak_mb(task, side) for side in (0, 1)]
        print(f"{task}: torchvision {a:.0f} ms, ours {b:.0f} ms: {ratio:.1f} times as fast")
        print(f"  peak memory above the inputs: torchvision {memory[0]:.0f} MB, ours {memory[1]:.0f} MB")


if __name__ == "__main__":
    main()
