"""Measure the speed of the PyTorch detector, as ratios to torchvision's FCOS with the same weights and images.

    python examples/pytorch_speed.py                     # R50, 800 × 1066, batch 1, float32 and bfloat16
    python examples/pytorch_speed.py --rounds 20 --photos photos/*.jpg

Needs fcos-cli with the extra `train`. The weights are random as in export_speed.py and give dozens of detections per
image. Both sides start from the same pixels of 800 × 1066 and end with boxes in them. Each side runs in its own
process; they alternate, one measured call each per round. It prints median milliseconds, the median of the rounds'
ratios, and how the detections compare with torchvision's: whether labels and order are the same, how many boxes are
matched by the rules of fcos_cli.parity, and the largest difference of a box and of a score.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("torchvision", "fp32", "bf16")
Output = dict[str, list[Any]]


def open_photo(path: Path) -> np.ndarray:
    """Return uint8 [800, 1066, 3]."""
    from PIL import Image

    return np.array(Image.open(path).convert("RGB").resize((1066, 800), Image.Resampling.BILINEAR))


def make_weights(path: Path) -> None:
    """Save torchvision's network and conventions with random weights as an artifact."""
    import torch

    from fcos_cli.model.artifact import Artifact, save
    from fcos_cli.model.classes import ClassTable
    from fcos_cli.model.config import ModelConfig
    from fcos_cli.model.fcos import FCOS
    from fcos_cli.model.presets import PRESETS

    torch.manual_seed(0)
    preset = PRESETS["torchvision"]
    config = ModelConfig(backbone="resnet50", conventions=preset.conventions, **preset.model)
    model = FCOS(config, classes=91)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("bn3.weight"):  # small residual branches
                tensor.fill_(0.1)
        model.head.classification_head.cls_logits.weight.normal_(0, 0.05)
        model.head.classification_head.cls_logits.bias.fill_(-9.5)
        model.head.regression_head.bbox_reg.bias.fill_(4.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, Artifact(model.state_dict(), config, ClassTable.from_names(map(str, range(91))), preset.geometry))


def ours(path: Path, precision: str, threads: int) -> Callable[[np.ndarray], Output]:
    from fcos_cli.runtime.detector import detect_batch
    from fcos_cli.runtime.open import open_detector

    detector = open_detector(path, device="cpu", precision=precision, threads=threads)

    def call(photo: np.ndarray) -> Output:
        (found,) = detect_batch(detector, *detector.facts.resize.batch([photo]))
        return {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "classes": found.classes.tolist()}

    return call


def theirs(path: Path, threads: int) -> Callable[[np.ndarray], Output]:
    import torch
    from torchvision.models.detection import fcos_resnet50_fpn
    from torchvision.ops.misc import FrozenBatchNorm2d

    from fcos_cli.model.artifact import load

    torch.set_num_threads(threads)
    model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).eval()
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):  # as for its published weights
                setattr(module, name, FrozenBatchNorm2d(child.num_features))
    model.load_state_dict(load(path).weights)

    def call(photo: np.ndarray) -> Output:
        with torch.inference_mode():
            found = model([torch.from_numpy(photo).permute(2, 0, 1).float() / 255])[0]
        return {
            "boxes": found["boxes"].tolist(),
            "scores": found["scores"].tolist(),
            "classes": found["labels"].tolist(),
        }

    return call


def worker(side: str, options: argparse.Namespace) -> None:
    """Serve one side: print its detections in all photos; then read photo indices and print milliseconds per call."""
    from fcos_cli.allocator import keep_freed_memory

    keep_freed_memory()
    path = weights_of(options)
    call = theirs(path, options.threads) if side == "torchvision" else ours(path, side, options.threads)
    photos = [open_photo(photo) for photo in options.photos]
    try:
        print(json.dumps([call(photo) for photo in photos]), flush=True)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    for line in sys.stdin:
        start_time = time.perf_counter()
        call(photos[int(line)])
        print(1e3 * (time.perf_counter() - start_time), flush=True)


def weights_of(options: argparse.Namespace) -> Path:
    return Path(options.folder) / "r50-torchvision.safetensors"


def compare(expected: list[Output], outputs: list[Output], precision: str) -> str:
    """Describe the differences over all photos."""
    from fcos_cli.model.presets import PRESETS
    from fcos_cli.parity.matching import ImageDetections, Limits, match
    from fcos_cli.parity.tolerance import TOLERANCES

    tolerance, model = TOLERANCES[precision], PRESETS["torchvision"].model
    limits = Limits(
        model["score_threshold"],
        model["nms_iou"],
        model["max_detections"],
        same_iou=min(tolerance.same_iou, 0.9),
        same_px=tolerance.same_px,
        score_eps=tolerance.score_eps,
        iou_eps=tolerance.iou_eps,
    )

    def to_detections(side: Output) -> ImageDetections:
        boxes = np.array(side["boxes"], np.float32).reshape(-1, 4)
        return ImageDetections(boxes, np.array(side["scores"], np.float32), np.array(side["classes"], np.int64))

    matches = [match(to_detections(a), to_detections(b), limits=limits) for a, b in zip(expected, outputs, strict=True)]
    unexplained = sum(item.reason is None for result in matches for item in result.unmatched)
    pairs = sum(len(result.pairs) for result in matches)
    same = sum(a["classes"] == b["classes"] for a, b in zip(expected, outputs, strict=True))
    px = np.concatenate([result.px for result in matches])
    return (
        f"same labels and order in {same} of {len(matches)} images; "
        f"{pairs} of {sum(result.reference for result in matches)} boxes matched ({unexplained} unexplained), "
        f"px median {np.median(px):.2g}, max {px.max():.2g}; "
        f"score max {max(result.max_score for result in matches):.2g}"
    )


def main() -> None:
    photos = sorted((Path(__file__).parent / "photos").glob("*.jpg"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/export-speed"), help="folder for the weights")
    parser.add_argument("--photos", type=Path, nargs="+", default=photos)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=[*SIDES, "prepare"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker == "prepare":
        make_weights(weights_of(options))
    elif options.worker:
        worker(options.worker, options)
    else:
        measure(options)


def start(side: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--worker", side, "--folder", str(options.folder)]
    command += ["--threads", str(options.threads), "--photos", *map(str, options.photos)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(options: argparse.Namespace) -> None:
    """Start the workers, let them alternate and print the table."""
    if not weights_of(options).exists() and start("prepare", options).wait():
        sys.exit("the weights could not be created")
    workers, outputs = {}, {}
    for side in SIDES:
        process = start(side, options)
        ready = json.loads(process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in ready:
            print(f"{side}: not measured ({ready['error']})", file=sys.stderr)
            continue
        workers[side], outputs[side] = process, ready
    if "torchvision" not in workers:
        sys.exit("the others are measured relative to torchvision")

    def timed(side: str, photo: int) -> float:
        workers[side].stdin.write(f"{photo}\n")
        workers[side].stdin.flush()
        return float(workers[side].stdout.readline())

    times: dict[str, list[float]] = {side: [] for side in workers}
    for turn in range(options.rounds):
        for side in workers:
            times[side].append(timed(side, turn % len(options.photos)))
    for process in workers.values():
        process.stdin.close()

    print(f"R50, 91 classes, 800 × 1066, batch 1, {options.threads} threads, {options.rounds} alternating rounds")
    for side, side_times in times.items():
        pairs = zip(times["torchvision"], side_times, strict=True)
        ratio = statistics.median(reference / time_ for reference, time_ in pairs)
        print(f"{side:12} {statistics.median(side_times):6.0f} ms {ratio:6.2f}", end="  ")
        print("" if side == "torchvision" else compare(outputs["torchvision"], outputs[side], side))


if __name__ == "__main__":
    main()
